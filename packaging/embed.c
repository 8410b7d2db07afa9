/* The program `ocirt-python3.N`: what the launcher calls as
 *
 *     python3 -I -S -B -X utf8 -c CODE DIR SITE [word...]
 *
 * done by the same CPython, linked in, of which only the core is started (packaging/boot.py does
 * the rest of what hot verbs need), and with our modules frozen in.  The answers are the same.
 *
 * The launcher calls it only in place of the very interpreter that it was built from.  A module of
 * ours is taken from here only while its source has the size (and in a source tree the time) that
 * it had when it was frozen; otherwise the source counts.  Nothing is taken from the environment.
 *
 * _init_main, _Py_InitializeMain, _PySignal_Init and _PyGC_Init are provisional or private, so each
 * minor version has to pass the tests before packaging/native.py builds for it.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <marshal.h>

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct module {
    const char *name;
    struct unit *unit;
    int package;
    long long bytes, seconds, nanoseconds; /* of the source; no time: any */
};

struct extension {
    const char *name, *path;
};

#include "frozen.h"

#define INIT "/__init__.py"
#define COUNT(array) (sizeof array / sizeof *array)

/* Not in the headers.  Signal handlers as any Python has them from the start. */
extern int _PySignal_Init(int install_signal_handlers);
#if PY_VERSION_HEX >= 0x030D0000
extern PyStatus _PyCodec_InitRegistry(PyInterpreterState *interpreter);
#endif

enum { CODE = 7, FIRST = 8 }; /* places in argv: python3 -I -S -B -X utf8 -c CODE FIRST... */

/* Rows of both tables begin with their names. */
static int by_name(const void *key, const void *row)
{
    return strcmp(key, *(const char *const *)row);
}

#ifdef DEEP
/* The object that the interpreter has in place of `model`; NULL: no memory. */
static PyObject *find(PyObject *model)
{
    if (PyTuple_CheckExact(model))
        return PyFrozenSet_New(model);
    Py_ssize_t length = PyUnicode_GET_LENGTH(model);
    PyObject *own = length > 1 ? Py_NewRef(model)
                               : PyUnicode_FromKindAndData(PyUnicode_KIND(model),
                                                           PyUnicode_DATA(model), length);
    if (own)
        PyUnicode_InternInPlace(&own);
    return own;
}

static PyObject *wake(struct unit *unit)
{
    const struct place *place = unit->places;
    for (; place->pointer; place++) {
        struct own *own = &found[place->row];
        PyObject *object = own->found ? own->object : find(own->object);
        if (!object)
            return NULL;
        own->object = object;
        own->found = 1;
        PyObject **pointer = place->pointer;
        if (*pointer != object)
            *pointer = Py_NewRef(object);
    }
    unit->places = place;
    return Py_NewRef(unit->code);
}

/* In place of CPython's own, which put in place all of its frozen modules at every start. */
int _Py_Deepfreeze_Init(void)
{
    return 0;
}

void _Py_Deepfreeze_Fini(void)
{
}
#else
static PyObject *wake(struct unit *unit)
{
    return PyMarshal_ReadObjectFromString((const char *)unit->code, unit->size);
}
#endif

static int unchanged(const struct module *module, const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && st.st_size == module->bytes &&
           (module->seconds == 0 || (st.st_mtim.tv_sec == module->seconds &&
                                     st.st_mtim.tv_nsec == module->nanoseconds));
}

static PyObject *load_c, *fix_file_name; /* functions that boot.py gives */

/* A module of the standard library in C; 0: not one of the table, or loaded. */
static int load_library(PyObject *name, const char *text)
{
    const struct extension *row =
        bsearch(text, extensions, COUNT(extensions), sizeof *row, by_name);
    if (!row)
        return 0;
    PyObject *done = PyObject_CallFunction(load_c, "Oz", name, row->path);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static PyObject *attribute_or_clear(PyObject *object, const char *name)
{
    PyObject *found = object ? PyObject_GetAttrString(object, name) : NULL;
    if (!found)
        PyErr_Clear();
    return found;
}

/* Where the package `parent` lies, into `path`: the first entry of its __path__; 0: nowhere. */
static int directory(PyObject *parent, char *path)
{
    PyObject *list = attribute_or_clear(parent, "__path__");
    PyObject *first = list ? PySequence_GetItem(list, 0) : NULL;
    PyObject *bytes = first ? PyUnicode_EncodeFSDefault(first) : NULL;
    int length = bytes ? snprintf(path, PATH_MAX, "%s", PyBytes_AS_STRING(bytes)) : 0;
    PyErr_Clear();
    Py_XDECREF(bytes);
    Py_XDECREF(first);
    Py_XDECREF(list);
    return length > 0 && length < PATH_MAX;
}

/* Run the code of a module in its new namespace. */
static int fill(PyObject *module, const struct module *row, const char *path)
{
    PyObject *names = PyModule_GetDict(module), *done = NULL;
    PyObject *file = PyUnicode_DecodeFSDefault(path);
    PyObject *code = wake(row->unit);
    PyObject *place = NULL;
    if (file && row->package)
        place = Py_BuildValue(
            "[N]", PyUnicode_Substring(file, 0, PyUnicode_GET_LENGTH(file) - (sizeof INIT - 1)));
    if (file && code && (place || !row->package) &&
        PyDict_SetItemString(names, "__file__", file) == 0 &&
        PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) == 0 &&
        (!place || PyDict_SetItemString(names, "__path__", place) == 0)) {
        /* An installation elsewhere than the build thought: tracebacks shall tell the truth. */
        PyObject *fixed = PyUnicode_Compare(((PyCodeObject *)code)->co_filename, file) == 0
                              ? Py_NewRef(Py_None)
                              : PyObject_CallFunctionObjArgs(fix_file_name, code, file, NULL);
        done = fixed ? PyEval_EvalCode(code, names, names) : NULL;
        Py_XDECREF(fixed);
    }
    Py_XDECREF(done);
    Py_XDECREF(place);
    Py_XDECREF(code);
    Py_XDECREF(file);
    return done ? 0 : -1;
}

static int load(PyObject *name);

/* One of our modules, if its source is what was frozen; 0: not ours, stale, or loaded. */
static int load_frozen(PyObject *name, const char *text)
{
    char path[PATH_MAX + NAME_MAX];
    const struct module *row = bsearch(text, modules, COUNT(modules), sizeof *row, by_name);
    const char *dot = row ? strrchr(text, '.') : NULL;
    if (!dot)
        return 0;
    PyObject *above = PyUnicode_FromStringAndSize(text, dot - text);
    if (!above || load(above) < 0) {
        Py_XDECREF(above);
        return -1;
    }
    PyObject *all = PyImport_GetModuleDict(), *parent = PyDict_GetItem(all, above);
    Py_DECREF(above);
    if (PyDict_GetItem(all, name) || !parent || !directory(parent, path))
        return 0;
    size_t length = strlen(path);
    length += (size_t)snprintf(path + length, NAME_MAX, "/%s", dot + 1);
    strcpy(path + length, row->package ? INIT : ".py");
    if (!unchanged(row, path))
        return 0;
    PyObject *module = PyModule_NewObject(name);
    int done = module && PyDict_SetItem(all, name, module) == 0 ? 0 : -1;
    if (done == 0 && fill(module, row, path) < 0) {
        PyObject *kind, *value, *trace;
        PyErr_Fetch(&kind, &value, &trace);
        PyDict_DelItem(all, name);
        PyErr_Restore(kind, value, trace);
        done = -1;
    }
    if (done == 0)
        done = PyObject_SetAttrString(parent, dot + 1, module);
    Py_XDECREF(module);
    return done;
}

static int load(PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    if (!text)
        return -1;
    if (PyDict_GetItem(PyImport_GetModuleDict(), name))
        return 0;
    return load_library(name, text) < 0 ? -1 : load_frozen(name, text);
}

/* `from name import word...`: words that are modules below `name` are loaded as well.
 * 1: all of them are there. */
static int load_words(PyObject *name, PyObject *words)
{
    int there = 1;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(words); i++) {
        PyObject *module = PyDict_GetItem(PyImport_GetModuleDict(), name);
        PyObject *word = PyTuple_GET_ITEM(words, i), *found = NULL;
        if (!module || !PyUnicode_Check(word))
            return 0;
        if ((found = PyObject_GetAttr(module, word))) {
            Py_DECREF(found);
            continue;
        }
        PyErr_Clear();
        PyObject *below = PyUnicode_FromFormat("%U.%U", name, word);
        int done = below ? load(below) : -1;
        there &= below && PyDict_GetItem(PyImport_GetModuleDict(), below);
        Py_XDECREF(below);
        if (done < 0)
            return -1;
    }
    return there;
}

/* builtins.__import__: puts in place what is ours, and leaves everything else to Python. */
static PyObject *import_module(PyObject *self, PyObject *args, PyObject *named)
{
    static char *keywords[] = {"name", "globals", "locals", "fromlist", "level", NULL};
    PyObject *name, *globals = NULL, *locals = NULL, *words = NULL;
    int level = 0;
    (void)self;
    if (!PyArg_ParseTupleAndKeywords(args, named, "U|OOOi:__import__", keywords, &name, &globals,
                                     &locals, &words, &level))
        return NULL;
    if (level == 0) {
        if (load(name) < 0)
            return NULL;
        if (words && PyTuple_CheckExact(words) && PyTuple_GET_SIZE(words) > 0) {
            int there = load_words(name, words);
            if (there != 0)
                return there < 0 ? NULL
                                 : Py_XNewRef(PyDict_GetItem(PyImport_GetModuleDict(), name));
        }
    }
    return PyImport_ImportModuleLevelObject(name, globals, locals, words, level);
}

static PyObject *set_up(PyObject *self, PyObject *args)
{
    (void)self;
    if (!PyArg_ParseTuple(args, "OO", &load_c, &fix_file_name))
        return NULL;
    Py_INCREF(load_c);
    Py_INCREF(fix_file_name);
    Py_RETURN_NONE;
}

static PyObject *complete(PyObject *self, PyObject *none)
{
    (void)self, (void)none;
    PyStatus status = _Py_InitializeMain();
    if (PyStatus_Exception(status))
        return PyErr_Format(PyExc_SystemError, "%s", status.err_msg);
    Py_RETURN_NONE;
}

/* From 3.13 on, the registry of codecs is made by a full start; before, when it is first used. */
static PyObject *start_codecs(PyObject *self, PyObject *none)
{
    (void)self, (void)none;
#if PY_VERSION_HEX >= 0x030D0000
    PyStatus status = _PyCodec_InitRegistry(PyInterpreterState_Get());
    if (PyStatus_Exception(status))
        return PyErr_Format(PyExc_SystemError, "%s", status.err_msg);
#endif
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"import_module", (PyCFunction)(void (*)(void))import_module, METH_VARARGS | METH_KEYWORDS,
     NULL},
    {"set_up", set_up, METH_VARARGS, NULL},
    {"start_codecs", start_codecs, METH_NOARGS, NULL},
    {"complete", complete, METH_NOARGS, NULL},
    {0},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_ocirt", .m_size = -1,
                                        .m_methods = functions};

static PyObject *make_module(void)
{
    return PyModule_Create(&definition);
}

/* The linker puts this in the place of CPython's own (packaging/native.py).  Nothing is collected
 * from the start on: a verb ends before that would be worth its cost. */
extern PyStatus __real__PyGC_Init(PyInterpreterState *interpreter);

PyStatus __wrap__PyGC_Init(PyInterpreterState *interpreter)
{
    PyGC_Disable();
    return __real__PyGC_Init(interpreter);
}

/* What -I, -S, -B and -X utf8 say, and where the library is; 0: done. */
static int start(const char *python)
{
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    PyStatus status = Py_PreInitialize(&before);
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config._init_main = 0;
    config.site_import = 0;
    config.write_bytecode = 0;
    config.module_search_paths_set = 1;
    for (size_t i = 0; i < COUNT(search) && !PyStatus_Exception(status); i++)
        status = PyWideStringList_Append(&config.module_search_paths, search[i]);
    const struct {
        wchar_t **field;
        const wchar_t *value;
    } strings[] = {
        {&config.prefix, PREFIX},           {&config.base_prefix, PREFIX},
        {&config.exec_prefix, EXEC_PREFIX}, {&config.base_exec_prefix, EXEC_PREFIX},
        {&config.platlibdir, PLATLIBDIR},   {&config.stdlib_dir, STDLIB},
    };
    wchar_t **const names[] = {&config.program_name, &config.executable, &config.base_executable};
    for (size_t i = 0; i < COUNT(names) && !PyStatus_Exception(status); i++)
        status = PyConfig_SetBytesString(&config, names[i], python);
    for (size_t i = 0; i < COUNT(strings) && !PyStatus_Exception(status); i++)
        status = PyConfig_SetString(&config, strings[i].field, strings[i].value);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    if (PyStatus_Exception(status)) {
        fprintf(stderr, "ocirt: python: %s\n", status.err_msg);
        return -1;
    }
    return _PySignal_Init(1);
}

/* What `sys` has to have: argv as -c makes it, and where frozen modules would have been. */
static int fill_sys(int argc, char **argv)
{
    PyObject *library_dir = PyUnicode_FromWideChar(STDLIB, -1);
    if (!library_dir || PySys_SetObject("_stdlib_dir", library_dir) < 0)
        return -1;
    PyObject *list = PyList_New(0), *word = PyUnicode_FromString("-c");
    for (int i = FIRST; list && word && i <= argc; i++) {
        if (PyList_Append(list, word) < 0)
            return -1;
        Py_DECREF(word);
        word = i < argc ? PyUnicode_DecodeFSDefault(argv[i]) : NULL;
    }
    return list ? PySys_SetObject("argv", list) : -1;
}

static int run(const char *source)
{
    PyObject *main_module = PyImport_AddModule("__main__");
    PyObject *own = PyModule_New("_ocirt_boot");
    if (!main_module || !own)
        return -1;
    PyObject *names = PyModule_GetDict(own);
    PyObject *code = wake(boot);
    if (!code || PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) < 0 ||
        !PyEval_EvalCode(code, names, names))
        return -1;
    return PyRun_SimpleString(source);
}

int main(int argc, char **argv)
{
    if (argc <= CODE) {
        fputs("ocirt: to be called by ocirt alone\n", stderr);
        return 1;
    }
    if (PyImport_AppendInittab("_ocirt", make_module) < 0 || start(argv[0]) < 0)
        return 1;
    int failed = fill_sys(argc, argv) < 0 || run(argv[CODE]) < 0;
    if (failed && PyErr_Occurred())
        PyErr_Print();
    return Py_FinalizeEx() < 0 || failed;
}
