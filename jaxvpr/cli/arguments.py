"""The command line: a verb, a recipe, and changes to it. Every mistake is answered with what exists."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ml_collections import ConfigDict

from jaxvpr.cli import sweep_file
from jaxvpr.cli.checks import check, check_training
from jaxvpr.cli.overrides import override_all, unknown
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.cli.recipes import load_config, shipped
from jaxvpr.cli.sweep_file import Sweep
from jaxvpr.cli.verbs import HOSTS, VERBS, Flag, flags_of, verbs_with
from jaxvpr.errors import UserError

ADDRESS = re.compile(r"\S+:[0-9]{1,5}")
CHANGE = "--config."
ABOUT_CHANGES = """\
Keys are changed behind a comma or in flags of their own, which are read last. A shell wants quotes around brackets:
  '--config=configs/cosplace.py:city,image.size=(48,48),seed=1' --config.batch=32
configs/common.py and configs/objectives.py have every key and its default; `weights` stands for the key `init`."""


class Command(NamedTuple):
    """A command that makes sense as far as that is known without JAX.

    Attributes:
      verb: one of `VERBS`.
      config: the recipe with its changes, locked; for the verb `sweep` the `Sweep` of its file.
      workdir: folder of the run; None for the default.
      hosts: coordinator, number of processes, and number of this one, as `joining.start` takes them.
      flags: values of the verb's own flags by name: what its `run` takes beside configuration and folder.
    """

    verb: str
    config: ConfigDict | Sweep
    workdir: Path | None
    hosts: tuple[str, int, int]
    flags: dict[str, Any]

    @property
    def wait(self) -> float:
        """Seconds that the hosts of this command wait for a late one."""
        recipe = self.config.runs[0].config if isinstance(self.config, Sweep) else self.config
        return recipe.hosts.wait


def parse(arguments: Sequence[str]) -> Command:
    """Reads the arguments of a command; no verb is `train`.

    Raises:
      UserError: for an unknown verb, flag, recipe, preset or key, or a value of another type; says what exists.
      SystemExit: after printing the help, where that is what the arguments ask for.
    """
    for argument in arguments:
        if "\0" in argument:
            raise UserError(f"{argument!r} holds a NUL, which no name or path may")
    own, changes = _split_off_changes(arguments)
    if not own or (own[0].startswith("-") and not {"-h", "--help"} & set(own)):
        own = ["train", *own]
    if not own[0].startswith("-") and own[0] not in VERBS:
        raise UserError(unknown(f"verb {own[0]!r}", own[0], VERBS))
    try:
        found, extra = _parser().parse_known_args(own)
    except argparse.ArgumentError as error:
        reason = "needs a value" if "expected one argument" in error.message else error.message
        raise UserError(f"{error.argument_name}: {reason}") from None
    if extra:
        _refuse(found.verb, extra[0])
    return _command(vars(found), changes)


def help_text() -> str:
    """The help of the command as a whole, which lists the verbs."""
    return _parser().format_help()


def _split_off_changes(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The arguments without each `--config.KEY=VALUE` or `--config.KEY VALUE`, and those as (key, text)."""
    own, changes, queue = [], [], list(arguments)
    while queue:
        argument = queue.pop(0)
        if not argument.startswith(CHANGE):
            own.append(argument)
            continue
        name, given, value = argument.partition("=")
        if not given:
            if not queue or queue[0].startswith("--"):
                raise UserError(f"{name}: needs a value: {name}=VALUE")
            value = queue.pop(0)
        changes.append((name.removeprefix(CHANGE), value))
    return own, changes


class _Parser(argparse.ArgumentParser):
    """Mistakes are raised, not printed; no flag may be abbreviated, since a new flag would change what it means."""

    def __init__(self, **options: Any):
        style = argparse.RawDescriptionHelpFormatter
        super().__init__(**options, formatter_class=style, allow_abbrev=False, exit_on_error=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _parser() -> _Parser:
    parser = _Parser(
        prog="jaxvpr",
        usage="jaxvpr [VERB] --config=FILE[:PRESET][,KEY=VALUE ...] [--config.KEY=VALUE ...] [FLAGS]",
        description="Visual place recognition. Without a verb a recipe is trained. `jaxvpr VERB --help` lists flags.",
        epilog=f"{ABOUT_CHANGES}\n\nrecipes: {', '.join(shipped())}\nsweeps: {', '.join(shipped('sweeps/'))}",
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        flags = flags_of(name)
        short = " ".join(f"--{flag.name}={flag.value}" for flag in flags if flag.required)
        one = verbs.add_parser(
            name,
            help=verb.summary,
            usage=" ".join(f"jaxvpr {name} --config=FILE[:PRESET] {short} [FLAGS]".split()),
            description=verb.summary,
            epilog=f"example:\n  {verb.example}\n\n{ABOUT_CHANGES}",
        )
        for flag in flags:
            if not flag.value:
                one.add_argument(f"--{flag.name}", help=flag.help, action="store_true")
                continue
            one.add_argument(
                f"--{flag.name}", metavar=flag.value, help=flag.help, type=_kind(flag),
                action="append" if flag.repeated else "store",
            )  # fmt: skip
    return parser


def _kind(flag: Flag) -> Any:
    """The flag's kind, for values that are not empty: `--out=$UNSET` is a mistake."""

    def make(text: str) -> Any:
        if not text:
            raise argparse.ArgumentTypeError("needs a value")
        return flag.kind(text)

    return make


def _refuse(verb: str, argument: str) -> NoReturn:
    """Answers an argument that the verb does not take."""
    if not argument.startswith("-"):
        raise UserError(
            f"{argument!r} is not expected here: one verb comes first, and a value belongs to a flag, --FLAG=VALUE"
        )
    name = argument.lstrip("-").partition("=")[0]
    if others := verbs_with(name):
        raise UserError(f"{verb} has no flag --{name}; {', '.join(others)} {'has' if len(others) == 1 else 'have'} it")
    names = [f"--{flag.name}" for flag in flags_of(verb)]
    raise UserError(unknown(f"flag --{name}", f"--{name}", [*names, "--config.KEY"]))


def _command(found: dict[str, Any], changes: list[tuple[str, str]]) -> Command:
    verb = found.pop("verb")
    for flag in flags_of(verb):
        if found[flag.key] is None:
            found[flag.key] = flag.default
    text, workdir = found.pop("config"), found.pop("workdir")
    hosts = _hosts(*(found.pop(flag.key, flag.default) for flag in HOSTS))
    if text is None:
        raise UserError(f"{verb} needs --config=FILE; recipes that come along: {', '.join(shipped())}")
    for flag in VERBS[verb].flags:
        if flag.required and found[flag.key] is None:
            raise UserError(f"{verb} needs --{flag.name}={flag.value}: {flag.help}")
    if verb == "evaluate":
        _check_folders(found)
    if verb == "sweep":
        return Command(verb, sweep_file.load(text, changes), workdir, hosts, found)
    config = load_config(text)
    override_all(config, changes)
    check(config)
    if verb == "train":
        check_training(config)
    return Command(verb, config.lock(), workdir, hosts, found)


def _hosts(coordinator: str, processes: int, process: int) -> tuple[str, int, int]:
    if coordinator == "auto" and (processes, process) != (0, -1):
        raise UserError("--coordinator=auto finds --processes and --process itself: leave them out")
    if not coordinator and (processes, process) != (0, -1):
        raise UserError(
            f"--processes={processes} --process={process} need --coordinator=HOST:PORT, the address of process 0; "
            "without it each process would train alone"
        )
    if coordinator not in ("", "auto") and not ADDRESS.fullmatch(coordinator):
        raise UserError(f"--coordinator={coordinator} must be HOST:PORT, the address of process 0, or auto")
    if coordinator not in ("", "auto") and not 0 <= process < processes:
        raise UserError(
            f"--coordinator={coordinator} needs --processes=N and --process=0 to N-1, another number in each process; "
            f"got --processes={processes} --process={process}"
        )
    return coordinator, processes, process


def _check_folders(flags: dict[str, Any]) -> None:
    if bool(flags["database"]) != bool(flags["queries"]):
        raise UserError("--database and --queries go together: two folders of images")
    if flags["reader"] != Reader() and not flags["database"]:
        raise UserError(
            "--reader goes with --database and --queries; a data set of a recipe has a reader of its own: "
            "--config.test_data.NAME.reader=csv"
        )
    if flags["threshold"] and not flags["database"]:
        raise UserError(
            "--threshold goes with --database and --queries; the test sets of a recipe have thresholds of their own: "
            "--config.test_data.NAME.thresholds=10m"
        )
