/* Objects of Python as C data: a macro for each kind, and how a unit of them comes to life.
 * packaging/deepfreeze.py says what is here and why; it writes what uses these macros.
 *
 * All of it is of CPython 3.11: later versions count references and lay out code otherwise.
 */
#ifndef OCIRT_DEEPFREEZE_H
#define OCIRT_DEEPFREEZE_H

#include <Python.h>

/* Never counted down to nothing, wherever references are taken and given back. */
#define REFERENCES 999999999
#define HEAD(type) {.ob_refcnt = REFERENCES, .ob_type = &type}
#define VAR_HEAD(type, size) {.ob_base = HEAD(type), .ob_size = size}

/* After so many calls code is rewritten to a faster kind: 3.11, pycore_code.h. */
#define WARMUP (-8)

/* What a start touches lies together, so that it costs few pages.  The rest gets a mapping of its
 * own: some kernels map as much of a file around a page that is used as they have in one piece. */
#define hot ".data.ocirt"
#define cold ".ldata.ocirt"
#define PLACE(part) static __attribute__((section(part)))

#define LETTERS(is_ascii, kind_, length_)                                                          \
    {.ob_base = HEAD(PyUnicode_Type),                                                              \
     .length = length_,                                                                            \
     .hash = -1,                                                                                   \
     .state = {.kind = kind_, .compact = 1, .ascii = is_ascii, .ready = 1}}

#define ASCII(part, name, size, text)                                                              \
    PLACE(part) struct {                                                                           \
        PyASCIIObject head;                                                                        \
        char body[size + 1];                                                                       \
    } name = {LETTERS(1, 1, size), text};

#define TEXT(part, name, size, kind, ...)                                                          \
    PLACE(part) struct {                                                                           \
        PyCompactUnicodeObject head;                                                               \
        Py_UCS##kind body[size + 1];                                                               \
    } name = {{._base = LETTERS(0, kind, size)}, __VA_ARGS__};

#define BYTES(part, name, size, text)                                                              \
    PLACE(part) struct {                                                                           \
        PyVarObject head;                                                                          \
        Py_hash_t hash;                                                                            \
        char body[size + 1];                                                                       \
    } name = {VAR_HEAD(PyBytes_Type, size), -1, text};

#define INT(part, name, count, size, ...)                                                          \
    PLACE(part) struct {                                                                           \
        PyVarObject head;                                                                          \
        digit body[count];                                                                         \
    } name = {VAR_HEAD(PyLong_Type, size), __VA_ARGS__};

#define FLOAT(part, name, value) PLACE(part) PyFloatObject name = {HEAD(PyFloat_Type), value};

#define COMPLEX(part, name, real, imag)                                                            \
    PLACE(part) PyComplexObject name = {HEAD(PyComplex_Type), {real, imag}};

/* The collector looks in front of a tuple, and is told that this one is not its own. */
#define TUPLE(part, name, size, ...)                                                               \
    PLACE(part) struct {                                                                           \
        uintptr_t collector[2];                                                                    \
        PyVarObject head;                                                                          \
        PyObject *items[size + 1];                                                                 \
    } name = {{0, 0}, VAR_HEAD(PyTuple_Type, size), {__VA_ARGS__}};

#define CODE(part, name, size, ...)                                                                \
    PLACE(part) struct _PyCode_DEF(size) name = {.ob_base = VAR_HEAD(PyCode_Type, size / 2),       \
                                            .co_warmup = WARMUP,                                   \
                                            __VA_ARGS__};

/* What the interpreter may have already. */
struct own {
    PyObject *object; /* until it is found, what it looks like */
    int found;
};

/* A pointer that has to be set to the object of a row of struct own. */
struct place {
    void *pointer;
    int row;
};

struct unit {
    PyObject *code;
    const struct place *places; /* those still to be set; a NULL ends them */
};

/* The code of a unit, a new reference; NULL: no memory. */
static PyObject *wake(struct unit *unit);

TUPLE(hot, empty, 0, NULL)

#endif
