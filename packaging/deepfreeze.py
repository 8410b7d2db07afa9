"""Lay out code objects as C data, so that importing a module reads nothing and allocates nothing.

CPython keeps the few modules of its own start in this way.  Here ours are kept so, and those again,
since CPython's way touches all of them at every start.  packaging/deepfreeze.h has a macro for
each kind of object, made from the headers of the interpreter that is built for.

    unit = data.unit(code)     the C that declares it is in data.lines
    data.shared()              C for what all units share; goes behind them

What cannot be data, or is somebody else's already, is put in place when a unit is first used:

    strings that the interpreter has interned, or keeps as its only one     the very same object
    frozenset                                                            made from a tuple

Each other string is there once for all units, so names of ours are the same object wherever they
stand; nothing else relies on interning.
"""

from __future__ import annotations

import opcode
import sys
from types import CodeType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TESTED = ((3, 11),)  # code objects are another structure in each minor version

# What code of ours can meet in C before it meets any other file of Python.
BUILT_IN = ("builtins", "sys", "posix", "_imp", "_io", "_json", "_signal", "_socket", "_struct",
            "errno", "fcntl", "marshal", "select", "time")  # fmt: skip

LOCAL, CELL, FREE = 0x20, 0x40, 0x80  # kinds of variables in co_localspluskinds
LATIN_1, UCS_2 = 0x100, 0x10000
WORD = 2  # bytes of an instruction


def interned() -> set[str]:
    """Return the names by which the interpreter knows its own types, functions and attributes."""
    kinds: list[type] = [object]
    for kind in kinds:
        kinds += [below for below in type.__subclasses__(kind) if below not in kinds]
    names = {name for kind in kinds for name in (kind.__name__, *vars(kind))}
    for module in BUILT_IN:
        names |= set(vars(__import__(module)))
    return names


def quoted(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:03o}" for byte in data) + '"'


def real(value: float) -> str:
    """Return C for a number, to the bit; what is none has a name there."""
    digits = value.hex()
    return {"inf": "INFINITY", "-inf": "-INFINITY", "nan": "NAN"}.get(digits, digits)


def variables(code: CodeType) -> dict[str, int]:
    """Return the fast variables of a function in their order, and of what kind each is."""
    kinds: dict[str, int] = {}
    for names, kind in (
        (code.co_varnames, LOCAL),
        (code.co_cellvars, CELL),
        (code.co_freevars, FREE),
    ):
        for name in names:
            kinds[name] = kinds.get(name, 0) | kind
    return kinds


class Objects:
    """Objects as lines of C, each one once; an object's name in C is an expression."""

    def __init__(self) -> None:
        self.lines = ["#define DEEP", '#include "deepfreeze.h"']
        self._part = ""
        self._made: dict[object, str] = {}
        self._interned = interned()
        self._found: dict[str, int] = {}  # in C -> place in the table of what is found at run time
        self._places: list[tuple[str, int]] = []  # of the current unit: C of a pointer, see above

    def unit(self, code: CodeType, *, hot: bool = True) -> str:
        """Return C for the address of a `struct unit` that stands for the code of a module.

        hot: it will be used soon and often; those come first.
        """
        self._places, self._part = [], "hot" if hot else "cold"
        name = self._code(code)
        places = "".join(f"{{&{place},{number}}}," for place, number in self._places)
        unit = f"unit_{len(self._made)}"
        self._made[unit] = unit
        self.lines.append(f"static const struct place {unit}_places[] = {{{places}{{0,0}}}};")
        self.lines.append(f"PLACE({self._part}) struct unit {unit} = {{{name},{unit}_places}};")
        return f"&{unit}"

    def shared(self) -> str:
        """Return C for the table of what is found at run time; it may be called once."""
        rows = "".join(f"{{{model},0}}," for model in self._found)
        return f"static struct own found[] = {{{rows}{{0,0}}}};\n"

    def _new(self, key: object, macro: str, *fields: object) -> str:
        """Return the expression for an object; declare it, if it is new."""
        if key not in self._made:
            name = f"o{len(self._made)}"
            self.lines.append(f"{macro}({self._part},{name},{','.join(map(str, fields))})")
            self._made[key] = f"(PyObject*)&{name}"
        return self._made[key]

    def _note(self, place: str, value: object, expression: str) -> None:
        """Note a pointer which has to be set to something else when the unit is first used."""
        if isinstance(value, frozenset) or (
            isinstance(value, str) and (len(value) < 2 or value in self._interned)
        ):
            number = self._found.setdefault(expression, len(self._found))
            self._places.append((place, number))

    def _text(self, value: str) -> str:
        most = ord(max(value, default="\0"))
        if most < 0x80:
            return self._new(value, "ASCII", len(value), quoted(value.encode()))
        kind = 1 if most < LATIN_1 else 2 if most < UCS_2 else 4
        units = ",".join(str(ord(character)) for character in value)
        return self._new(value, "TEXT", len(value), kind, f"{{{units}}}")

    def _table(self, value: bytes) -> str:
        # For tracebacks, and for whoever looks closer at a function.
        part, self._part = self._part, "cold"
        expression = self._object(value)
        self._part = part
        return expression

    def _int(self, value: int) -> str:
        bits, digits, rest = sys.int_info.bits_per_digit, [], abs(value)
        while rest:
            digits.append(rest & ((1 << bits) - 1))
            rest >>= bits
        size = len(digits) if value >= 0 else -len(digits)
        body = "{" + ",".join(map(str, digits or [0])) + "}"
        return self._new((int, value), "INT", max(len(digits), 1), size, body)

    def _tuple(self, values: Iterable[object]) -> str:
        values = list(values)
        inside = [self._object(value) for value in values]
        # Two that look alike may differ in what has to be found, so units share none.
        name = f"o{len(self._made)}"
        self._made[name] = name
        self.lines.append(f"TUPLE({self._part},{name},{len(inside)},{','.join(inside)})")
        for index, (value, expression) in enumerate(zip(values, inside, strict=True)):
            self._note(f"{name}.items[{index}]", value, expression)
        return f"(PyObject*)&{name}.head"

    def _object(self, value: object) -> str:
        match value:
            case None:
                return "Py_None"
            case bool():
                return "Py_True" if value else "Py_False"
            case str():
                return self._text(value)
            case bytes():
                return self._new(value, "BYTES", len(value), quoted(value))
            case int():
                return self._int(value)
            case float():
                return self._new((float, value.hex()), "FLOAT", real(value))
            case complex():
                parts = real(value.real), real(value.imag)
                return self._new((complex, *parts), "COMPLEX", *parts)
            case tuple() | frozenset():
                # A set's own order is another in each process, and would be in each build.
                items = value if isinstance(value, tuple) else sorted(value, key=repr)
                return self._tuple(items) if value else "(PyObject*)&empty.head"
            case CodeType():
                return self._code(value)
        if value is Ellipsis:
            return "Py_Ellipsis"
        raise TypeError(f"a constant of type {type(value).__name__}")

    def _code(self, code: CodeType) -> str:
        kinds = variables(code)
        entry = code.co_code[::WORD].index(opcode.opmap["RESUME"])
        objects = {
            "co_consts": code.co_consts,
            "co_names": code.co_names,
            "co_localsplusnames": tuple(kinds),
            "co_filename": code.co_filename,
            "co_name": code.co_name,
            "co_qualname": code.co_qualname,
        }
        tables = {
            "co_exceptiontable": code.co_exceptiontable,
            "co_localspluskinds": bytes(kinds.values()),
            "co_linetable": code.co_linetable,
        }
        numbers = {
            "co_flags": code.co_flags,
            "co_argcount": code.co_argcount,
            "co_posonlyargcount": code.co_posonlyargcount,
            "co_kwonlyargcount": code.co_kwonlyargcount,
            "co_stacksize": code.co_stacksize,
            "co_firstlineno": code.co_firstlineno,
            "co_nlocalsplus": len(kinds),
            "co_nlocals": len(code.co_varnames),
            "co_nplaincellvars": len(set(code.co_cellvars) - set(code.co_varnames)),
            "co_ncellvars": len(code.co_cellvars),
            "co_nfreevars": len(code.co_freevars),
            "_co_firsttraceable": entry,
        }
        fields = {key: self._object(value) for key, value in objects.items()}
        fields |= {key: self._table(value) for key, value in tables.items()}
        name = f"o{len(self._made)}"
        self._made[name] = name
        values = [f".{key}={value}" for key, value in {**fields, **numbers}.items()]
        self.lines.append(
            f"CODE({self._part},{name},{len(code.co_code)},{','.join(values)},"
            f".co_code_adaptive={quoted(code.co_code)})"
        )
        for key in ("co_name", "co_qualname"):
            self._note(f"{name}.{key}", objects[key], fields[key])
        return f"(PyObject*)&{name}"
