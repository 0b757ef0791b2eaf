"""Reads a pickle as data: no name in it is imported, looked up or called.

Python's own unpickler calls what a file names. This one builds numbers, texts, tuples, lists and dicts, and for all
else a `Record`, which says what was named and what it was to be called with.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any, NamedTuple

# A state dict takes some 30 opcodes a tensor. Each may cost 200 bytes and three microseconds.
MOST = 1_000_000


class Record(dict):
    """Stands for a class or a function, or for the object that calling one would make.

    Where that is a kind of dict, the record holds its items.

    Attributes:
      origin: what was named, as `module.name`; "persistent" for what lies outside of the pickle.
      args: what it was to be called with; None where it was only named.
      state: what the object was to be given afterwards.
    """

    __slots__ = ("args", "origin", "state")
    origin: str
    args: Any
    state: Any

    def __init__(self, origin: str, args: Any = None):
        super().__init__()
        self.origin, self.args, self.state = origin, args, None


class Pickled(NamedTuple):
    """What a pickle holds.

    Attributes:
      value: the object.
      references: the records of what lies outside of the pickle, in order.
    """

    value: Any
    references: list[Record]


def load(file: Any) -> Pickled:
    """Reads one pickle from where a file, mapped or in memory, stands, and leaves it behind the pickle's end.

    Of dicts, items with keys that are no text are left out; of sets, all.

    Raises:
      UnpicklingError, ValueError, LookupError, TypeError: for what is no pickle, or has more than `MOST` opcodes.
    """
    stack: list[Any] = []
    below: list[list[Any]] = []  # what stood before each mark
    memo: dict[Any, Any] = {}
    references = []
    for number, (opcode, arg, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if name in VALUES:
            stack.append(arg)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if arg is None else arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[arg])
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP_MARK" or (name == "POP" and not stack):
            stack = below.pop()
        elif name in ("POP", "STOP"):
            value = stack.pop()
        elif name in MAKERS:
            since = []
            if name in MARKED:
                since, stack = [stack], below.pop()
            stack.append(MAKERS[name](arg, *_last(stack, TAKES[name]), *since))
            if name in ("BINPERSID", "PERSID"):
                references.append(stack[-1])
        elif name not in ("PROTO", "FRAME"):
            raise UnpicklingError(f"opcode {name}")
        if number == MOST:
            raise UnpicklingError(f"more than {MOST:,} steps to build what is beside its tensors")
    return Pickled(value, references)


def _last(stack: list[Any], count: int) -> list[Any]:
    """Takes the last values from a stack."""
    if count > len(stack):
        raise IndexError(count)
    taken = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return taken


def _named(arg: str) -> Record:
    return Record(arg.replace(" ", "."))


def _called(_: Any, called: Any, args: Any, *keywords: Any) -> Record:
    return Record(called.origin if isinstance(called, Record) else f"a {type(called).__name__}", args)


def _with_items(_: Any, target: Any, *items: Any) -> Any:
    """Hashing only texts, since other keys may be nested without end."""
    items = items[0] if len(items) == 1 else items
    if isinstance(target, dict):
        target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if type(key) is str)
    return target


def _with_elements(_: Any, target: Any, elements: list[Any]) -> Any:
    if isinstance(target, list):
        target.extend(elements)
    return target


def _with_state(_: Any, target: Any, state: Any) -> Any:
    if isinstance(target, Record):
        target.state = state
    return target


# What each opcode puts on the stack, made of its argument and of what it takes from there.
MAKERS: dict[str, Callable[..., Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_SET": lambda _: Record("builtins.set", ()),
    "TUPLE1": lambda _, *values: values,
    "TUPLE2": lambda _, *values: values,
    "TUPLE3": lambda _, *values: values,
    "TUPLE": lambda _, values: tuple(values),
    "LIST": lambda _, values: values,
    "DICT": lambda _, items: _with_items(_, {}, items),
    "FROZENSET": lambda _, elements: Record("builtins.frozenset", ()),
    "APPEND": lambda _, target, element: _with_elements(_, target, [element]),
    "APPENDS": _with_elements,
    "SETITEM": _with_items,
    "SETITEMS": _with_items,
    "ADDITEMS": lambda _, target, elements: target,
    "GLOBAL": _named,
    "STACK_GLOBAL": lambda _, *names: Record(".".join(names)),
    "INST": lambda arg, args: _called(arg, _named(arg), tuple(args)),
    "OBJ": lambda _, values: _called(_, values[0], tuple(values[1:])),
    "REDUCE": _called,
    "NEWOBJ": _called,
    "NEWOBJ_EX": _called,
    "BUILD": _with_state,
    "PERSID": lambda pid: Record("persistent", pid),
    "BINPERSID": lambda _, pid: Record("persistent", pid),
}
# Those whose argument is the value.
VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
BEFORE = {op.name: [kind.name for kind in op.stack_before] for op in pickletools.opcodes}
# How many values an opcode takes from the stack: in front of a mark, where it takes all that came since the mark.
TAKES = {name: kinds.index("mark") if "mark" in kinds else len(kinds) for name, kinds in BEFORE.items()}
MARKED = {name for name, kinds in BEFORE.items() if "mark" in kinds}
