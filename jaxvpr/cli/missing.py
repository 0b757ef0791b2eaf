"""What a command reads and is not there: data sets, folders and files of weights, all of it in one message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import objectives
from data_pipelines.paths import is_url
from data_pipelines.readers import READERS
from jaxvpr.cli import checks, data_set_flag, weight_source
from jaxvpr.cli.arguments import Command
from jaxvpr.cli.overrides import DATA_SET, data_sets, unknown
from jaxvpr.cli.sweep_file import Sweep
from jaxvpr.errors import UserError

FLAGS = ("images", "database", "queries", "compare")  # that name what is read


def check(command: Command) -> None:
    """Looks whether everything is there that a command reads.

    Raises:
      UserError: names all that is not there, each with its key.
    """
    recipes = [(command.verb, command.config)]
    if isinstance(command.config, Sweep):
        recipes = [("train", run.config) for run in command.config.runs]
    read = [(config, _sets(verb, config, command.flags)) for verb, config in recipes]
    lines = [*_flags(command.flags)]
    for config, sets in read:
        lines += [*([] if _model_beside(config, command) else _weights(config)), *_data(sets)]
    lines = list(dict.fromkeys(lines))  # runs of a sweep read the same
    if not lines:
        return
    found = lines[0] if len(lines) == 1 else f"{len(lines)} things are not there:\n  " + "\n  ".join(lines)
    raise UserError(found + next((_advice(config, sets) for config, sets in read if any(_data(sets))), ""))


def _flags(flags: Mapping[str, Any]) -> Iterator[str]:
    for name in FLAGS:
        given = flags.get(name) or []
        for path in given if isinstance(given, list) else [given]:
            if not _exists(path):
                yield f"--{name}={path}: no such file or folder"


def _sets(verb: str, config: ConfigDict, flags: Mapping[str, Any]) -> dict[str, ConfigDict]:
    """The data sets that a verb reads, by their keys."""
    groups: tuple[str, ...] = ()
    if verb == "train":
        groups = (*checks.TRAINED_ON, "val_data")
        groups += ("target_data",) if config.domain.method else ()
        # A family of the recipe's own may have a model that is not measured on images.
        groups += ("test_data",) if config.objective.get("name", "") in objectives.SHIPPED else ()
    elif verb == "evaluate" and not flags["database"]:
        groups = ("test_data",)
    elif verb == "compress" and not flags["images"]:
        groups = checks.TRAINED_ON
    elif verb == "smoothness" and not flags["images"]:
        key = data_set_flag.chosen(config, flags["data_set"])
        return {key: dict(data_sets(config))[key]}
    elif verb == "records" and not flags["images"] and not flags["verify"]:
        groups = checks.TRAINED_ON[:1]
    return {key: spec for key, spec in data_sets(config) if key.partition(".")[0] in groups}


def _model_beside(config: ConfigDict, command: Command) -> bool:
    """Whether `localize` takes a whole model from a file: one in the database's place, or that which `extract` left
    beside the database, whose clusters are the database's."""
    database = command.flags["database"] if command.verb == "localize" else None
    whole = Path(weight_source.MODEL_FILE).suffix
    if database is None or database.suffix == whole:
        return database is not None
    if command.flags["checkpoint"] != "best" or not checks.clusters_of_database(config):
        return False
    return database.with_suffix(whole).is_file()


def _weights(config: ConfigDict) -> Iterator[str]:
    try:
        checks.check_init(config)
    except UserError as error:
        yield str(error)
    teacher = config.objective.get("teacher", "")
    recipe = teacher.partition(",")[0].partition(":")[0].endswith(".py")
    if teacher and not recipe and not Path(teacher).is_dir() and not weight_source.parse(teacher).file.is_file():
        yield f"config.objective.teacher={teacher}: no such folder of a run or file of weights"


def _data(sets: Mapping[str, ConfigDict]) -> Iterator[str]:
    for key, spec in sets.items():
        if spec.reader not in READERS:
            yield f"config.{key}.reader: {unknown(f'reader {spec.reader!r}', spec.reader, READERS)}"
        elif _absent(spec):
            yield f"config.{key}.root={spec.root}: no such folder"


def _absent(spec: ConfigDict) -> bool:
    """Whether a data set is not there and cannot be drawn."""
    return spec.reader != "minicity" and not (spec.root and _exists(spec.root))


def _exists(path: str | Path) -> bool:
    """Whether there is such a file or folder; what lies in a bucket is not looked for here."""
    return is_url(str(path)) or Path(path).exists()


def _advice(config: ConfigDict, sets: Mapping[str, ConfigDict]) -> str:
    """How the sets that are not there are moved, or done without."""
    absent = {key: spec for key, spec in sets.items() if _absent(spec)}
    if not absent:
        return ""
    ways = [f"{next(iter(absent))}.root=FOLDER"]
    if any(Path(spec.root).is_relative_to(config.data) for spec in absent.values()):
        ways.append(f"data=FOLDER for all sets that lie in {config.data}")
    ways += [f"{key}={{}} to do without it" for key in absent if key not in DATA_SET][:1]
    return "\nGive behind the recipe, after a comma: " + ", or ".join(ways)
