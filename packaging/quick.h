/* Carry out a plain start, state, kill or delete without Python.
 * Returns the exit code, or -1: nothing has been done that Python would not do again. */
#pragma once

int quick(int argc, char **argv);
