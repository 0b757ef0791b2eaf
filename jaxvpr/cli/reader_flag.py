"""The flag --reader=NAME[,OPTION=VALUE ...]: how the folders that a command names are read."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping
from typing import Any, NamedTuple

from data_pipelines import readers
from data_pipelines.errors import DataError
from jaxvpr.cli.overrides import parsed, split_changes
from jaxvpr.errors import UserError


class Reader(NamedTuple):
    """One of `data_pipelines.readers.READERS` and its options."""

    name: str = "folder"
    options: Mapping[str, Any] = {}


def reader(text: str) -> Reader:
    """The reader that a flag names, for `Flag.kind`: "csv,file=poses.csv,columns.path=image".

    An option that takes text is given the text as it stands, one that takes several names also a single one.
    """
    try:
        name, *changes = split_changes(text)
        kinds = readers.options_of(name)
        options: dict[str, Any] = {}
        for change in changes:
            key, equals, value = change.partition("=")
            option, _, inner = key.strip().partition(".")
            if not equals:
                raise UserError(f"expected OPTION=VALUE after the comma, got {change!r}")
            if inner and isinstance(options.setdefault(option, {}), dict):
                options[option][inner] = value
            else:
                options[option] = _value(value, kinds.get(option))
        readers.check_options(name, options)
    except (UserError, DataError) as error:
        raise ArgumentTypeError(str(error)) from None
    return Reader(name, options)


def _value(text: str, kind: type | None) -> Any:
    value = text if kind is str else parsed(text)
    return (value,) if kind is tuple and isinstance(value, str) else value
