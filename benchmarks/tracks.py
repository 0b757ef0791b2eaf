"""How near `localize` comes to where the frames of a drive were taken: each frame's nearest place, and the path.

The drives of the embedded city's test split: a database of four by day, and six others, later and in other conditions,
a frame a second. Frames and candidates are those of `localize --track`. The run is one of the city, such as

  python -m jaxvpr.main --config=configs/cosplace.py
  python -m benchmarks.tracks --run runs/cosplace-city
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import jaxvpr
from benchmarks import side_by_side
from data_pipelines import drive, readers
from data_pipelines.places import Places
from data_pipelines.video import Every
from jaxvpr.model import Model
from jaxvpr.retrieval.search import exact
from jaxvpr.retrieval.track import Candidates, Track

METRES = (10, 25)


def drives(root: Path) -> tuple[Places, list[Places]]:
    """Frames of the database, and those of each other drive in order; drawn where they are missing."""
    frames = readers.read("minicity", root, split="test", drives=True)
    database, queries = frames.select(role="database"), frames.select(role="query")
    rows = [np.flatnonzero(queries.sequence == one) for one in np.unique(queries.sequence)]
    return database, [queries.take(one[np.argsort(queries.frame[one])]) for one in rows]


def candidates(model: Model, frames: Places, descriptors: np.ndarray, top: int) -> Candidates:
    """The candidates of a drive's frames."""
    seen = drive.of_images(frames, Every(frames=1))
    return Candidates(seen.number, seen.seconds, *exact(descriptors, model.describe(seen.paths), top))


def within(rows: np.ndarray, database: Places, frames: Places) -> np.ndarray:
    """bool [T, `METRES`]: whether the places of these rows are so near to where the frames were taken."""
    away = np.hypot(database.east[rows] - frames.east, database.north[rows] - frames.north)
    return away[:, None] <= METRES


def main() -> None:
    """Prints the share of frames that are answered within 10 and 25 m, in all drives and in each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run of the embedded city")
    parser.add_argument("--city", type=Path, default=Path("data/minicity"), help="folder of the city")
    parser.add_argument("--speeds", type=float, nargs="*", default=[8.0, 40.0], help="metres a second")
    parser.add_argument("--tops", type=int, nargs="*", default=[5, 20, 50], help="candidates of a frame")
    parser.add_argument("--out", type=Path, help="JSON file to write; it is printed either way")
    given = parser.parse_args()
    model = jaxvpr.load(given.run)
    database, others = drives(given.city)
    descriptors = model.describe(database.path)
    places = np.stack([database.east, database.north], 1)
    results: dict[str, dict] = {}
    for frames in others:
        found = candidates(model, frames, descriptors, max(given.tops))
        answers = {"nearest": found.rows[:, 0]}
        for speed in given.speeds:
            for top in given.tops:
                some = found._replace(distances=found.distances[:, :top], rows=found.rows[:, :top])
                answers[f"path, {speed:g} m/s, {top} candidates"] = Track(some, places, speed).rows
        name = " ".join((*frames.conditions_of(0), str(frames.time[0])[:4]))
        for way, rows in answers.items():
            results.setdefault(way, {})[name] = within(rows, database, frames)
    shares = {
        way: {"all": _percent(np.concatenate(list(by.values()))), **{name: _percent(near) for name, near in by.items()}}
        for way, by in results.items()
    }
    facts = {"frames": sum(map(len, others)), "database": len(database), "metres": METRES, "run": given.run.name}
    side_by_side.finish(side_by_side.report(shares, ("jax", "faiss-cpu"), **facts), given.out)


def _percent(near: np.ndarray) -> list[float]:
    return (100 * near.mean(axis=0)).round(1).tolist()


if __name__ == "__main__":
    main()
