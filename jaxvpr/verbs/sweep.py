"""A sweep: the runs of a sweep file one after the other, and what they measured side by side.

Every run has its folder in that of the sweep. What the sweep knows it reads from those folders, so that the same
command goes on wherever it was stopped: a run with its `metrics.json` is not trained again, one with checkpoints is
resumed, and one that failed is tried again.
"""

from __future__ import annotations

import logging
import shutil
import traceback
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines.atomic import write_bytes
from data_pipelines.errors import DataError
from jaxvpr.cli.sweep_file import Run, Sweep
from jaxvpr.errors import AGAIN, HostLost, UserError
from jaxvpr.families import names
from jaxvpr.parallel import hosts
from jaxvpr.reports import terminal
from jaxvpr.reports.sweep_page import write_sweep
from jaxvpr.reports.training import domain_accuracy
from jaxvpr.retrieval import metrics
from jaxvpr.runs import lock, workdir
from jaxvpr.training import logs
from jaxvpr.verbs import preview, train

log = logging.getLogger(__name__)
FAILURE = "failure.txt"
ALIKE_SECONDS = 10.0  # within which all hosts meet a failure that is the run's own
CAUSE = "\n\nTraceback (most recent call last):"  # between what went wrong and where
# Of a finished run another test set or PCA would be another figure, and one more measure a missing one.
MEASURED = tuple(key for key in workdir.FREE if key not in ("test_data.", "pca.", "eval.localize"))


def run(sweep: Sweep, folder: Path, dry_run: bool = False) -> int:
    """Trains every run of a sweep that is not finished, and writes its tables and its page after each.

    With `dry_run` it shows in one table what each would do instead, and draws their first batches.

    A run that fails is written down and the next one begins; where one of several hosts fails alone, the sweep ends.
    SIGTERM and the first Ctrl-C stop the sweep.

    Returns:
      0 if every run is finished, 1 if some failed, `AGAIN` if the sweep was stopped.

    Raises:
      UserError: if the folder holds runs of another configuration, or another process works in it.
    """
    _check_names(sweep)
    if dry_run:
        families = logging.getLogger("jaxvpr.families")
        families.setLevel(logging.WARNING)  # what they say of each run is in its row
        _preview(sweep, folder)
        families.setLevel(logging.NOTSET)
        return 0
    with lock.held(folder):
        return _swept(sweep, folder)


def _swept(sweep: Sweep, folder: Path) -> int:
    for run in sweep.runs:
        _check(run, folder / run.folder)
    done = _finished_runs(sweep, folder)
    log.info("%d runs, %d of them finished already", len(done), int(done.sum()))
    _write(sweep, folder)
    with hosts.stop_on_sigterm() as leave:
        for number, run in enumerate(sweep.runs):
            if done[number]:
                continue
            log.info("run %d of %d: %s, seed %d", number + 1, len(done), run.name, run.seed)
            ended = _train(run, folder / run.folder)
            _write(sweep, folder)
            if not ended or leave(0):
                log.warning("stopped before the end; the same command resumes")
                return AGAIN
    return _summed_up(sweep, folder)


def _preview(sweep: Sweep, folder: Path) -> None:
    rows: list[terminal.Row] = []
    memo: dict[Any, Any] = {}
    for run in sweep.runs:
        seeds = sum(one.name == run.name for one in sweep.runs)
        if run.folder != run.name:
            continue  # another seed of a run that is shown
        here = folder / run.folder
        _check(run, here)
        config, _ = train.settled(run.config, memo)
        looked = preview.training(config, here, *train.prepared(config, memo))
        cells = (
            f"{seeds} seed{'s' * (seeds > 1)}",
            "has ended" if _finished(here) else looked.cells[0],
            *looked.cells[1:],
        )
        rows.append((run.name, cells))
    if hosts.is_first():
        note = f"pictures of the first batches: {folder / '*' / preview.PICTURE}"
        terminal.show(f"dry run: {sweep.name}, {len(sweep.runs)} runs", preview.COLUMNS, rows, [note])


def _check_names(sweep: Sweep) -> None:
    """Raises UserError for all that is wrong in any run and can be known without data."""
    wrong: dict[str, list[str]] = {}
    for run in {run.name: run for run in sweep.runs}.values():  # seeds change no name
        for line in names.mistakes(run.config):
            wrong.setdefault(line, []).append(run.name)
    if wrong:
        lines = [f"{', '.join(runs[:3])}{' and more' * (len(runs) > 3)}: {line}" for line, runs in wrong.items()]
        raise UserError(f"{len(lines)} mistakes in the runs of {sweep.name}:\n  " + "\n  ".join(lines))


def _check(run: Run, here: Path) -> None:
    if _finished(here):
        workdir.refuse_other(here, run.config, MEASURED)
    elif workdir.has_checkpoints(here):
        workdir.refuse_other(here, run.config)


def _finished(here: Path) -> bool:
    return (here / metrics.FILE).is_file()


def _finished_runs(sweep: Sweep, folder: Path) -> np.ndarray:
    """Which runs are finished, as the first host finds: it writes their files, which another may not see yet."""
    return hosts.of_first(
        lambda: np.array([_finished(folder / run.folder) for run in sweep.runs], np.int32), (len(sweep.runs),)
    )


def _train(run: Run, here: Path) -> bool:
    """Trains or resumes one run; False where it was stopped before its end.

    Raises what one of several hosts met alone: the others wait for it within the run.
    """
    if hosts.is_first():
        (here / FAILURE).unlink(missing_ok=True)
    try:
        if train.run(run.config, here) in (None, AGAIN):
            return False
    except Exception as error:
        _write_down(error, here)
        if isinstance(error, HostLost) or not hosts.all_come(f"the failure of {run.folder}", ALIKE_SECONDS):
            raise
        log.error("%s failed: %s", run.folder, _message(error))
        return True
    finally:
        jax.clear_caches()  # else the programs of all runs stay in memory
    if hosts.is_first():
        shutil.rmtree(here / "checkpoints", ignore_errors=True)  # large, and the best one is model.safetensors
    return True


def _write_down(error: Exception, here: Path) -> None:
    if hosts.is_first():
        here.mkdir(parents=True, exist_ok=True)
        where = "".join(traceback.format_exception(error))
        write_bytes(here / FAILURE, f"{_message(error)}\n\n{where}".encode(errors="backslashreplace"))


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, UserError | DataError) else f"{type(error).__name__}: {error}"


def _write(sweep: Sweep, folder: Path) -> None:
    if hosts.is_first():
        write_sweep(folder, _document(sweep, folder))


def _document(sweep: Sweep, folder: Path) -> dict[str, Any]:
    """The content of `sweep.json`."""
    return sweep._asdict() | {"runs": [record(run, folder, sweep) for run in sweep.runs]}


def record(run: Run, folder: Path, sweep: Sweep) -> dict[str, Any]:
    """What a run has come to, from the files in its folder: an entry of `runs` in `sweep.json`."""
    here = folder / run.folder
    row, _, column = run.name.partition("+") if sweep.rows else ("", "", "")
    document = metrics.read_metrics(here / metrics.FILE) if _finished(here) else {"results": [], "costs": {}}
    failure = (here / FAILURE).read_text("utf-8", "replace") if (here / FAILURE).is_file() else ""
    state = "failed" if failure else "waiting"
    if _finished(here):
        state = "finished"
    elif not failure and workdir.has_checkpoints(here):
        state = "begun"
    lines = logs.read(here)
    return {
        "name": run.name,
        "folder": run.folder,
        "row": row,
        "column": column,
        "seed": run.seed,
        "changes": run.changes,
        "state": state,
        "validation": [line for line in lines if "epoch" in line],
        "domain_accuracy": domain_accuracy(lines),
        "test": [
            {
                "dataset": entry["dataset"],
                "threshold": threshold,
                "queries": entry["protocol"]["queries"],
                "recall": recall,
                "interval95": entry["interval95"][threshold],
            }
            for entry in document["results"]
            for threshold, recall in entry["recall"].items()
        ],
        "seconds": document["costs"].get("training_seconds"),
        "planning_seconds": document["costs"].get("planning_seconds"),
        "failure": failure.partition(CAUSE)[0] or None,
    }


def _summed_up(sweep: Sweep, folder: Path) -> int:
    failed = [run.folder for run, done in zip(sweep.runs, _finished_runs(sweep, folder), strict=True) if not done]
    if hosts.is_first():
        terminal.sweep(_document(sweep, folder))
        print(f"wrote {folder / 'sweep.html'}, sweep.md, sweep.csv and sweep.json")
    for name in failed:
        log.error("failed: %s (%s)", name, folder / name / FAILURE)
    if failed:
        log.error("%d of %d runs failed; the same command tries them again", len(failed), len(sweep.runs))
    return int(bool(failed))
