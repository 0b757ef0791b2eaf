"""The flag --clips=LENGTH[,KEY=VALUE ...]: how frames become clips."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping
from typing import Any

from data_pipelines.clips import Cutting
from data_pipelines.errors import DataError
from jaxvpr.cli.overrides import parsed, split_changes, unknown
from jaxvpr.errors import UserError

KEYS = {"stride": int, "every": int, "metres": float, "seconds": float, "match": str}
MEASURED = {**KEYS, "task": str, "order": str}


def clips(text: str, keys: Mapping[str, type] = KEYS) -> Cutting:
    """The cutting that a flag describes, for `Flag.kind`: "5,stride=2,match=last"; of a database."""
    try:
        length, *changes = split_changes(text)
        found: dict[str, Any] = {"length": _value("the length of clips", length, int)}
        for change in changes:
            key, _, value = (part.strip() for part in change.partition("="))
            if key not in keys:
                raise UserError(unknown(f"key {key!r} of clips", key, keys))
            found[key] = _value(key, value, keys[key])
        return Cutting(**found)
    except (UserError, DataError) as error:
        raise ArgumentTypeError(str(error)) from None


def measured_clips(text: str) -> Cutting:
    """As `clips`, of what is measured on: also "5,task=im2seq,order=reversed"."""
    return clips(text, MEASURED)


def _value(key: str, text: str, kind: type) -> Any:
    value = text if kind is str else parsed(text)
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise UserError(f"{key}: {text!r} is not {'a number' if kind is float else 'an integer'}")
    return value
