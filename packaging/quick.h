/* What the launcher can do without Python. */
#pragma once

/* Carry out a plain start, state, kill or delete without Python: quick.c.
 * Returns the exit code, or -1: nothing has been done that Python would not do again. */
int quick(int argc, char **argv);

/* Delete a container whose init, `pid`, has been reaped; 0, or -1 as above. */
int quick_end(const char *root, const char *id, long long pid);

/* Wait for a container's process and delete the container; return the exit code: attend.c. */
int attend(int argc, char **argv);
