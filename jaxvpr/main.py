"""The command `python -m jaxvpr.main [VERB] --config=FILE[:PRESET][,KEY=VALUE ...]`, or `jaxvpr` where it is
installed."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from data_pipelines import progress
from data_pipelines.errors import DataError
from jaxvpr.cli import arguments as command_line
from jaxvpr.cli import missing
from jaxvpr.errors import AGAIN, HostLost, UserError
from jaxvpr.parallel import environment, memory

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
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.EISDIR: "A folder lies where a file is needed; give another path.",
    errno.EEXIST: "A file lies where a folder is needed; give another path.",
}


def main(arguments: Sequence[str]) -> int:
    """Runs one command.

    Returns:
      0; 1 for a sweep in which runs failed; 2 for a mistake of the user, which is explained without a traceback; 75
      where another host of the run is gone, or the run was stopped before its end; 130 after Ctrl-C.
    """
    progress.to_console(*LOGGERS)
    if not arguments:
        print(command_line.help_text())
        return 0
    try:
        command = command_line.parse(arguments)
        missing.check(command)
        return _run(command)
    except SystemExit:  # the help was printed
        return 0
    except (UserError, DataError) as error:
        return _failed(2, str(error))
    except HostLost as error:
        return _failed(AGAIN, str(error))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in SURROUNDINGS:
            raise
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _failed(2, f"{what}. {SURROUNDINGS[error.errno]}")


def _failed(status: int, why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    _tell(status, why)
    return status


def _tell(status: int, why: str) -> None:
    """Tells the other hosts, where there are some, that this one ends; they would wait for it."""
    if connection := _connection():
        connection.tell(status, why)


def _connection() -> Any:
    """What joins the hosts of a run; None where JAX was not needed so far, and is not imported for it."""
    return sys.modules.get("jaxvpr.parallel.connection")


def _run(command: command_line.Command) -> int:
    memory.keep_freed()
    configs: list[Any] = [run.config for run in getattr(command.config, "runs", ())] or [command.config]
    if any(config.deterministic for config in configs):
        environment.add_up_in_order(os.environ)
    # JAX is imported once the command is known to make sense: a typing error is answered at once.
    from jaxvpr.parallel import hosts, joining, mesh, program_cache
    from jaxvpr.runs import agreement, which, workdir

    verb = runs()[command.verb]
    joining.start(*command.hosts, command.wait)
    hosts.agree("the command", partial(agreement.facts, command.verb, command.config, command.flags))
    program_cache.keep_programs()
    if not hosts.is_first():
        for logger in LOGGERS:
            logging.getLogger(logger).setLevel(logging.WARNING)
    folder = command.workdir or workdir.default(command.config.name)
    log.info("%s %s on %s, workdir %s", command.verb, command.config.name, mesh.devices(), folder)
    config = command.config if command.verb in ("train", "sweep") else which.with_choices(command.config, folder)
    result = verb(config, folder, **command.flags)
    hosts.finish()
    return result if isinstance(result, int) else 0


def runs() -> dict[str, Callable[..., Any]]:
    """What each verb runs, with the configuration, the folder of the run and the verb's flags by name."""
    from jaxvpr.verbs import (
        compress,
        evaluate,
        export,
        extract,
        import_weights,
        localize,
        records,
        smoothness,
        sweep,
        train,
    )

    return {
        "train": train.run,
        "evaluate": evaluate.run,
        "extract": extract.run,
        "localize": localize.run,
        "compress": compress.run,
        "records": records.run,
        "import": import_weights.run,
        "export": export.run,
        "smoothness": smoothness.run,
        "sweep": sweep.run,
    }


def console() -> None:
    """The `jaxvpr` command.

    A host that fails alone leaves at once: an ordinary exit waits for the other hosts, which wait for this one.
    """
    progress.keep_printing()
    try:
        status = main(sys.argv[1:])
    except Exception as error:
        if connection := _connection():
            connection.look_for_lost(error)
        traceback.print_exc()
        status = 1
        _tell(status, "".join(traceback.format_exception_only(error)).strip())
    sys.stdout.flush()
    sys.stderr.flush()
    if status and (connection := _connection()):
        connection.leave_run(status)
    sys.exit(status)


if __name__ == "__main__":
    console()
