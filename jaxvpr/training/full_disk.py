"""A full disk: how it is known, and that one error tells of it."""

from __future__ import annotations

import errno
import logging
import sys
from typing import Any


def is_full(error: BaseException | None) -> bool:
    """Whether an error, of the system or of orbax, is want of space."""
    texts = ("No space left", "quota exceeded")
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or any(text in str(error) for text in texts)


# What a save leaves behind in its threads where it fails: they go on for a loop or an interpreter that has ended.
LEFT_BEHIND = ("Event loop is closed", "cannot schedule new futures after")


def _said_once(record: logging.LogRecord) -> bool:
    """Not the tracebacks that orbax's threads and tasks log for a full disk, each for itself: `save` and `wait` raise
    the one error that says what to do."""
    error = record.exc_info[1] if record.exc_info else None
    return not (is_full(error) or str(error).startswith(LEFT_BEHIND))


def _unraisable(dying: Any) -> None:
    if not str(dying.exc_value).startswith(LEFT_BEHIND):
        _shown(dying)


for _name in ("absl", "asyncio"):
    logging.getLogger(_name).addFilter(_said_once)
_shown, sys.unraisablehook = sys.unraisablehook, _unraisable
