"""The flag --clips=LENGTH[,KEY=VALUE ...]: how frames become the clips of a database."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from data_pipelines.clips import Cutting
from data_pipelines.errors import DataError
from jaxvpr.cli.overrides import parsed, split_changes, unknown
from jaxvpr.errors import UserError

KEYS = {"stride": int, "every": int, "metres": float, "seconds": float, "match": str}


def clips(text: str) -> Cutting:
    """The cutting that a flag describes, for `Flag.kind`: "5,stride=2,match=last"."""
    try:
        length, *changes = split_changes(text)
        keys: dict[str, Any] = {"length": _value("the length of clips", length, int)}
        for change in changes:
            key, _, value = (part.strip() for part in change.partition("="))
            if key not in KEYS:
                raise UserError(unknown(f"key {key!r} of clips", key, KEYS))
            keys[key] = _value(key, value, KEYS[key])
        return Cutting(**keys)
    except (UserError, DataError) as error:
        raise ArgumentTypeError(str(error)) from None


def _value(key: str, text: str, kind: type) -> Any:
    value = text if kind is str else parsed(text)
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise UserError(f"{key}: {text!r} is not {'a number' if kind is float else 'an integer'}")
    return value
