"""The door: `python -m jaxvpr.main [VERB] --config=FILE[:preset][,key=value ...]`, or `jaxvpr` where it is
installed."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from data_pipelines import progress
from data_pipelines.errors import DataError
from jaxvpr.cli import arguments as command_line
from jaxvpr.cli import sweep_file
from jaxvpr.errors import UserError
from jaxvpr.parallel import memory

log = logging.getLogger("jaxvpr")
LOGGERS = ("jaxvpr", "data_pipelines")
# Errors of the system that the user can mend, and how; any other is ours and shows where it came from.
SURROUNDINGS = {
    errno.ENOSPC: "Free space and start again: the run goes on from its last checkpoint.",
    errno.EDQUOT: "Free space and start again: the run goes on from its last checkpoint.",
    errno.EACCES: "Look at its permissions, or give another path.",
    errno.EPERM: "Look at its permissions, or give another path.",
    errno.EROFS: "Give a path that can be written.",
    errno.ENOENT: "There is no such folder; make it, or give another path.",
    errno.ENOTDIR: "A file lies where a folder is needed; give another path.",
    errno.EEXIST: "A file lies where a folder is needed; give another path.",
}


def main(arguments: Sequence[str]) -> int:
    """Runs one command.

    Returns:
      0; 1 for a sweep in which runs failed; 2 for a mistake of the user, which is explained without a traceback; 130
      after Ctrl-C.
    """
    progress.to_console(*LOGGERS)
    if not arguments or {"-h", "--help"} & set(arguments):
        print(command_line.usage())
        return 0
    try:
        return _run(command_line.parse(arguments))
    except (UserError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in SURROUNDINGS:
            raise
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {what}. {SURROUNDINGS[error.errno]}", file=sys.stderr)
        return 2


def _run(command: command_line.Command) -> int:
    memory.keep_freed()
    asked = sweep_file.load(command.flags["config"], command.changes) if command.verb == "sweep" else None
    # JAX is imported once the command is known to make sense: a typing error is answered at once.
    from jaxvpr.parallel import hosts, mesh, program_cache
    from jaxvpr.runs import workdir
    from jaxvpr.verbs import compress, evaluate, export, extract, import_weights, localize, sweep, train

    flags, config = command.flags, command.config
    coordinator, processes, process = flags.get("coordinator", ""), *_processes(flags)
    hosts.start(coordinator, processes, process)
    program_cache.keep_programs()
    if not hosts.is_first():
        for logger in LOGGERS:
            logging.getLogger(logger).setLevel(logging.WARNING)
    name = asked.name if asked else config.name
    folder = Path(flags.get("workdir") or workdir.default(name))
    log.info("%s %s on %s, workdir %s", command.verb, name, mesh.devices(), folder)
    checkpoint = flags["checkpoint"]
    if asked:
        return sweep.run(asked, folder)
    if command.verb == "train":
        train.run(config, folder)
    elif command.verb == "evaluate":
        evaluate.run(config, folder, checkpoint, flags.get("database", ""), flags.get("queries", ""))
    elif command.verb == "extract":
        extract.run(config, folder, checkpoint, _needed("images", flags), Path(_needed("out", flags)))
    elif command.verb == "compress":
        compress.run(config, folder, checkpoint, flags.get("images", ""), Path(_needed("out", flags)))
    elif command.verb == "import":
        import_weights.run(config, folder, "" if checkpoint == command_line.DEFAULTS["checkpoint"] else checkpoint)
    elif command.verb == "export":
        export.run(config, folder, checkpoint, Path(_needed("out", flags)), flags.get("family", ""))
    else:
        localize.run(
            config, folder, checkpoint, _needed("images", flags), Path(_needed("database", flags)),
            Path(flags.get("out") or folder / "localize"), _whole("top", flags, int(command_line.DEFAULTS["top"])),
        )  # fmt: skip
    return 0


def _processes(flags: dict[str, str]) -> tuple[int, int]:
    """How many processes there are and which this is."""
    processes, process = _whole("processes", flags, 0), _whole("process", flags, -1)
    named = flags.get("coordinator", "") not in ("", "auto")
    if named and not 0 <= process < processes:
        raise UserError(
            f"--coordinator={flags['coordinator']} needs --processes=N and --process=0 to N-1, a number of its own for "
            f"each process; got --processes={processes} --process={process}"
        )
    return processes, process


def _needed(flag: str, flags: dict[str, str]) -> str:
    if not flags.get(flag):
        raise UserError(f"this verb needs --{flag}: {command_line.FLAGS[flag]}")
    return flags[flag]


def _whole(flag: str, flags: dict[str, str], default: int) -> int:
    text = flags.get(flag, str(default))
    try:
        return int(text)
    except ValueError:
        raise UserError(f"--{flag}={text!r} is no whole number") from None


def console() -> None:
    """The `jaxvpr` command.

    A host that fails alone leaves at once: the ordinary way out waits for the other hosts, which wait for this one.
    """
    try:
        status = main(sys.argv[1:])
    except Exception:
        traceback.print_exc()
        status = 1
    if status and "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    console()
