"""The flag `--data-set=KEY`: one of the data sets of a recipe."""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxvpr.cli.overrides import data_sets
from jaxvpr.errors import UserError


def chosen(config: ConfigDict, key: str) -> str:
    """The key of the data set that is meant; "" means the first of `test_data`, else `train_data`.

    Raises:
      UserError: where the recipe has none of that name; lists those it has.
    """
    there = [name for name, _ in data_sets(config)]
    tests = [name for name in there if name.startswith("test_data.")]
    found = key or next(iter([*tests, *there]), "")
    if found not in there:
        raise UserError(
            f"--data-set={key}: the recipe has {', '.join(there)}. Give one of these, or --images=FOLDER"
            if there
            else "the recipe has no data set: give --images=FOLDER, or --config=RECIPE,test_data.NAME.reader=READER,"
            "test_data.NAME.root=FOLDER (docs/data_formats.md)"
        )
    return found
