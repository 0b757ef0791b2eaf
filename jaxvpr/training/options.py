"""The `options` of a group of a recipe: further arguments of one function, checked against its signature."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from inspect import Parameter, signature
from typing import Any

from jaxvpr.errors import UserError

# What a value may be, by the annotation of its argument; True and False are integers in Python, but no numbers here.
TYPES: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}


def checked(
    what: str, function: Callable[..., Any], options: Mapping[str, Any], taken: Collection[str]
) -> dict[str, Any]:
    """The options, where the function takes them.

    Args:
      what: the function, as a message calls it.
      function: its keyword arguments are annotated with the names in `TYPES`.
      taken: arguments that are no options, since they have keys of their own or the program gives them.

    Raises:
      UserError: for an argument that does not exist, which lists those that do, or a value of another type.
    """
    kinds = {
        name: getattr(parameter.annotation, "__name__", parameter.annotation)  # text where annotations are postponed
        for name, parameter in signature(function).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY and name not in taken
    }
    for name, value in options.items():
        if name not in kinds:
            there = ", ".join(f"{known} ({kind})" for known, kind in kinds.items()) or "none"
            raise UserError(f"options.{name}={value!r}: {what} has no such argument; there are {there}")
        kind = kinds[name]
        if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise UserError(f"options.{name}={value!r}: {what} takes a value of type {kind}")
    return dict(options)
