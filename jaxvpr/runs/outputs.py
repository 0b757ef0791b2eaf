"""Files that a verb is about to write."""

from __future__ import annotations

import os
from pathlib import Path

from jaxvpr.errors import UserError


def refuse_existing(*files: Path, overwrite: bool) -> None:
    """Checks, before the work, that nothing is replaced that the user did not say to replace.

    Raises:
      UserError: for the first file that exists; not with `overwrite`.
    """
    if not overwrite and (there := [file for file in files if os.path.lexists(file)]):
        raise UserError(f"{there[0]} exists; --overwrite replaces it, or give another name")
