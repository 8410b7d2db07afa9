"""What the embedded interpreter runs first: the parts of a full start that hot verbs need.

packaging/embed.c initialises the core of CPython alone.  There are built-in and frozen modules, but
no search for files, no text streams, no `sys.path`: those cost more than a whole `create`.  Here
our own modules get a finder for the code that was frozen into the program, and stdout a writer of
a few lines.  Whatever else is asked for completes the start, once, and then everything is as in
any Python:

    a module that is neither ours nor built in          Late
    an attribute that `sys` lacks (path, stdin, ...)    missing
    text that is not UTF-8, or a file opened as text    late_codec

and the first `open` loads what opens files.

Frozen under the name `_ocirt_boot`; nothing imports it from a file.
"""

import _codecs
import _imp
import builtins
import posix
import sys
from _frozen_importlib import ModuleSpec  # type: ignore[import-not-found]

import _ocirt  # type: ignore[import-not-found] # of embed.c


def complete():
    """Do what is left of a full start."""
    if sys.__dict__.pop("__getattr__", None):
        kept = sys.argv, sys._stdlib_dir
        sys.meta_path.remove(Late)
        _ocirt.complete()
        sys.argv, sys._stdlib_dir = kept


def load(name, file):
    """Load a module of the standard library that is written in C: built in, or a file."""
    spec = ModuleSpec(name, None, origin=file)
    if file:
        module = sys.modules[name] = _imp.create_dynamic(spec)
        module.__file__ = file
        _imp.exec_dynamic(module)
    else:
        module = sys.modules[name] = _imp.create_builtin(spec)
        _imp.exec_builtin(module)


class Late:
    """Finds everything else, as soon as the start is complete."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        complete()
        return sys.meta_path[-1].find_spec(name, path, target)


class Writer:
    """sys.stdout, as far as one can go without codecs; the rest completes the start."""

    @staticmethod
    def write(text):
        data = text.encode("utf-8", "surrogateescape")
        while data:
            data = data[posix.write(1, data) :]
        return len(text)

    @staticmethod
    def flush():
        pass

    def __getattr__(self, name):
        complete()
        return getattr(sys.stdout, name)


def missing(name):
    if name[:2] == "__":
        raise AttributeError(f"module 'sys' has no attribute '{name}'")
    complete()
    return getattr(sys, name)


def late_open(*words, **named):
    import _io

    builtins.open = _io.open
    return _io.open(*words, **named)


def late_codec(name):
    complete()
    import encodings

    return encodings.search_function(name)


sys.__getattr__ = missing  # type: ignore[method-assign,assignment]
sys.meta_path.append(Late)
sys.stdout = sys.__stdout__ = Writer()  # type: ignore[assignment,misc]
builtins.open = late_open
builtins.__import__ = _ocirt.import_module
_ocirt.set_up(load, _imp._fix_co_filename)
# The registry of codecs begins with an import of `encodings`, which is dear and seldom needed; what
# it has besides, the ways to treat errors, is.
sys.modules["encodings"] = sys
_ocirt.start_codecs()
_codecs.register(late_codec)
del sys.modules["encodings"]
