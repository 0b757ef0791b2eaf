"""The command line: a verb, a recipe, and changes to it. Every mistake is answered with what exists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import common
from jaxvpr.cli.checks import check, check_training
from jaxvpr.cli.overrides import did_you_mean, override_all
from jaxvpr.cli.recipes import load_config, shipped
from jaxvpr.errors import UserError

VERBS = ("train", "evaluate", "extract", "localize", "compress", "import", "export", "sweep")
FLAGS = {
    "config": "recipe, or file of a sweep: FILE[:preset][,key=value ...]",
    "workdir": "folder of the run: checkpoints, logs, metrics.json, report.html (default: runs/<name of the recipe>)",
    "checkpoint": "weights to use: best, last, or a step of the workdir, or a FILE of weights",
    "images": "folder of photos to describe, to localise, or to fit a PCA on (compress)",
    "database": "folder of database images (evaluate), or descriptors from extract, or a run's classes.npy (localize)",
    "queries": "folder of query images (evaluate)",
    "out": "file (extract: .npy; compress: .safetensors; export: that, .pth, .stablehlo) or folder (localize) to write",
    "family": "names of the weights to write (export; default: those of the recipe's method)",
    "top": "how many places to name (localize)",
    "coordinator": "several hosts: HOST:PORT of process 0, or auto",
    "processes": "several hosts: how many processes",
    "process": "several hosts: the number of this one",
}
DEFAULTS = {"checkpoint": "best", "top": "5"}


class Command(NamedTuple):
    """What was asked for.

    Attributes:
      verb: one of `VERBS`.
      flags: values of `FLAGS` that were given or have a default.
      config: the recipe with its changes, locked; the defaults for `sweep`, whose file names its own recipe.
      changes: the (key, text) of each `--config.KEY`.
    """

    verb: str
    flags: dict[str, str]
    config: ConfigDict
    changes: tuple[tuple[str, str], ...] = ()


def usage() -> str:
    """The help text."""
    lines = [f"  --{name:<12} {text}" for name, text in FLAGS.items()]
    return "\n".join(
        [
            f"jaxvpr [{'|'.join(VERBS)}] --config=FILE[:preset][,key=value ...] [--config.key=value ...] [flags]",
            *lines,
            f"Recipes that come along: {', '.join(shipped())}. Keys and defaults: configs/common.py.",
            f"Sweeps that come along: {', '.join(shipped('sweeps/'))}.",
        ]
    )


def parse(arguments: Sequence[str]) -> Command:
    """Reads the arguments of a command.

    Raises:
      UserError: for an unknown verb, flag, recipe, preset or key, or a value of another type; says what exists.
    """
    verbs, flags, changes = [], dict(DEFAULTS), []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if not argument.startswith("--"):
            verbs.append(argument)
            continue
        name, given, value = argument[2:].partition("=")
        if name not in FLAGS and not name.startswith("config."):
            raise UserError(
                f"no flag --{name}{did_you_mean(name, FLAGS)}; there are {listed(FLAGS, '--')} and --config.KEY"
            )
        if not given:
            if not queue or queue[0].startswith("--"):
                raise UserError(f"--{name} needs a value: --{name}=VALUE")
            value = queue.pop(0)
        if name.startswith("config."):
            changes.append((name.removeprefix("config."), value))
        else:
            flags[name] = value
    if len(verbs) > 1 or any(verb not in VERBS for verb in verbs):
        raise UserError(f"no verb {' '.join(verbs)!r}{did_you_mean(verbs[0], VERBS)}; there are {list(VERBS)}")
    if "config" not in flags:
        raise UserError(f"--config=FILE is needed; recipes that come along: {', '.join(shipped())}")
    verb = verbs[0] if verbs else VERBS[0]
    if verb == "sweep":
        return Command(verb, flags, common.base(), tuple(changes))
    config = load_config(flags["config"])
    override_all(config, changes)
    check(config)
    if verb == "train":
        check_training(config)
    return Command(verb, flags, config.lock(), tuple(changes))


def listed(names: Any, prefix: str) -> str:
    return ", ".join(prefix + name for name in names)
