"""What localize does with a drive: the track of a video or of a folder of frames."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import drive
from data_pipelines.atomic import replacing, write_bytes
from data_pipelines.clips import Cutting, cut
from data_pipelines.drive import Frames
from data_pipelines.image_files import ImageError
from data_pipelines.image_source import why_unreadable
from data_pipelines.own_files import NAMES
from data_pipelines.places import Paths, Places
from data_pipelines.video import Every, is_video
from jaxvpr import builders
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.reports import geojson, track_page
from jaxvpr.reports.gallery import distance
from jaxvpr.reports.pictures import Picture, data_uri, small
from jaxvpr.reports.track_page import Shown, Tile, when
from jaxvpr.retrieval.extract import Described
from jaxvpr.retrieval.track import Candidates, Track
from jaxvpr.runs.database_file import COLUMNS, in_words

Array = np.ndarray
Rows = Sequence[Mapping[str, str]]
TABLE, LINE, PAGE = "track.csv", "track.geojson", "track.html"
CANDIDATES = 50  # places that the path is chosen from, for each frame
SPEED = 40.0  # metres a second
VIDEO, FOLDER = Every(seconds=1.0), Every(frames=1)  # which frames are taken where nothing is asked for
SHOWN, SIDE = 24, 176  # frames of the page, fewer than twice as many; pixels of their pictures
FIRST = ("frame", "seconds", "query", "rank", "distance")  # columns before those of the place on the path
NEAREST = ("path", "distance", "east", "north", "lat", "lon")  # of the nearest place: `nearest_path`, ...


def run(
    source: str,
    reader: Reader,
    every: Every | None,
    speed: float,
    known: Rows,
    cutting: Cutting | None,
    describe: Callable[[Any], Described],
    search: Callable[[Array], tuple[Array, Array]],
    out: Path,
) -> list[dict[str, Any]]:
    """Answers the frames of a drive, chooses their path and writes `TABLE`, `LINE` and `PAGE` into `out`.

    Args:
      source: a video, or a folder of frames.
      every: which frames; None: `VIDEO` or `FOLDER`.
      speed: as of `Track`.
      known: the rows of the database.
      cutting: of its clips, None where it is of images. A frame is answered by the clip of as many frames around it, or
        that ends at it where clips match by their last; the first and last frames by the first and last clip.
      describe: images -> descriptors. search: descriptors -> distances and rows of the database, both [T, k].

    Returns:
      The rows of the table, one a frame.

    Raises:
      UserError: no frame can be read, or there are fewer than a clip has.
      DataError: as `drive.of_video` and `drive.of_images`.
    """
    length = cutting.length if cutting else 1
    before = length - 1 if cutting and cutting.match == "last" else length // 2
    found = _described(source, _parts(source, reader, every, length - 1), describe, length, before)
    answered = np.flatnonzero([not error for error in found.errors])
    if not len(answered):
        raise UserError(f"no frame of {source} can be read; the first: {found.errors[0]}")
    frames = found.frames
    of_frames = frames.number[answered], frames.seconds[answered]
    track = Track(Candidates(*of_frames, *search(found.descriptors[answered])), _positions(known), speed)
    table = [_named(frames, row) | {"error": error} for row, error in enumerate(found.errors)]
    for number, row in enumerate(answered):
        table[row] |= _answer(track, number, known)
    if hosts.is_first():
        out.mkdir(parents=True, exist_ok=True)
        _write_table(out / TABLE, table)
        line = _write_line(out / LINE, [table[row] for row in answered])
        shown = [
            _shown(track, number, found.pictures[row], known)
            for number, row in enumerate(answered.tolist())
            if row in found.pictures
        ]
        track_page.write(out / PAGE, f"Track of {Path(source).name}", track, shown, [f"{_facts(track)}."])
        _tell(source, out, track, line, len(table))
    return table


class _Found(NamedTuple):
    """All frames of a drive: descriptors [T, D], why each cannot be read ("" where it can), and small pictures of
    evenly spaced ones, by row."""

    frames: Frames
    descriptors: Array
    errors: list[str]
    pictures: Mapping[int, Array]


def _parts(source: str, reader: Reader, every: Every | None, overlap: int) -> Iterator[Frames]:
    if not is_video(source):
        yield drive.of_images(builders.folders([source], reader), every or FOLDER)
        return
    if reader != Reader():
        raise UserError(f"{source} is a video, which --reader={reader.name} does not read: leave --reader out")
    yield from drive.of_video(source, every or VIDEO, overlap)


def _described(
    source: str, parts: Iterator[Frames], describe: Callable[[Any], Described], length: int, before: int
) -> _Found:
    """Describes all frames by clips of `length`, of which so many frames lie `before` the one that is answered."""
    frames: list[Frames] = []
    clips: list[Array] = []
    errors: list[str] = []
    pictures = _Pictures()
    for part in parts:
        if len(part.paths) < length:
            raise UserError(
                f"{source} gives {len(part.paths)} frames, but the database is of clips of {length}: take more frames "
                "(--every), or write a database of shorter clips (jaxvpr extract --clips)"
            )
        rows = np.arange(len(part.paths))
        places = Places.create(source, part.paths, frame=rows)
        found = describe(part.paths if length == 1 else cut(places, length))
        clips.append(found.descriptors)
        errors += ["" for _ in found.descriptors]
        for row in found.missing:
            errors[row - len(found.descriptors)] = _why(part.paths, row, length)
        fresh = rows[length - 1 :] if frames else rows  # those before came with the last part
        for row in fresh:
            pictures.offer(part.paths[row])
        own = Paths.of([source] * len(fresh)) if is_video(source) else part.paths.take(fresh)
        frames.append(Frames(own, part.number[fresh], part.seconds[fresh]))
    paths, numbers, seconds = zip(*frames, strict=True)
    whole = Frames(Paths.concat(paths), np.concatenate(numbers), np.concatenate(seconds))
    clip = np.clip(np.arange(len(whole.number)) - before, 0, len(whole.number) - length)
    return _Found(whole, np.concatenate(clips)[clip], [errors[row] for row in clip], pictures.kept)


def _why(paths: Paths, row: int, length: int) -> str:
    """Why a clip cannot be read: the first of its frames that cannot."""
    return next(filter(None, map(why_unreadable, (paths[frame] for frame in range(row, row + length)))), "")


@dataclass
class _Pictures:
    """Small pictures of evenly spaced frames of a drive whose end is not known yet."""

    seen: int = 0
    step: int = 1
    kept: dict[int, Array] = field(default_factory=dict)

    def offer(self, picture: Picture) -> None:
        """Keeps the picture of the next frame where it is its turn, and it can be read."""
        row, self.seen = self.seen, self.seen + 1
        if row % self.step:
            return
        with suppress(ImageError):
            self.kept[row] = np.asarray(small(picture, SIDE))
        if len(self.kept) >= 2 * SHOWN:
            self.step *= 2
            self.kept = {one: image for one, image in self.kept.items() if one % self.step == 0}


def _positions(known: Rows) -> Array:
    """float64 [N, 2]: metres of all places, in the zone of most of them; NaN where unknown or in another zone."""
    at = np.array([[float(row["east"] or "nan"), float(row["north"] or "nan")] for row in known])
    zones = np.array([row["zone"] for row in known])
    there, counts = np.unique(zones[np.isfinite(at).all(axis=1)], return_counts=True)
    if len(there) > 1:
        at[zones != there[counts.argmax()]] = np.nan
    return at


def _named(frames: Frames, row: int) -> dict[str, Any]:
    seconds = float(frames.seconds[row])
    known = "" if math.isnan(seconds) else round(seconds, 3)
    return {"frame": int(frames.number[row]), "seconds": known, "query": frames.paths[row]}


def _answer(track: Track, number: int, known: Rows) -> dict[str, Any]:
    """Columns of a frame: its place on the path, and the nearest."""
    near = {**known[track.nearest[number]], "distance": float(track.candidates.distances[number, 0])}
    chosen = {"rank": int(track.rank[number]) + 1, "distance": float(track.distances[number])}
    return {**chosen, **known[track.rows[number]], **{f"nearest_{name}": near[name] for name in NEAREST}}


def _write_table(file: Path, table: Sequence[Mapping[str, Any]]) -> None:
    with replacing(file) as part, part.open("w", newline="", **NAMES) as stream:
        writer = csv.DictWriter(stream, (*FIRST, *COLUMNS, *(f"nearest_{name}" for name in NEAREST), "error"))
        writer.writeheader()
        writer.writerows(table)


def _write_line(file: Path, table: Sequence[Mapping[str, Any]]) -> bool:
    """Whether anything has a place on Earth; then it is written, else one of before goes away."""
    lat, lon = ([float(row[name] or "nan") for row in table] for name in ("lat", "lon"))
    if not any(map(math.isfinite, lat)):
        file.unlink(missing_ok=True)
        return False
    named = [{name: row[name] for name in (*FIRST, "path") if row[name] != ""} for row in table]
    write_bytes(file, geojson.track(named, lat, lon).encode())
    return True


def _facts(track: Track) -> str:
    if not np.isfinite(track.places[track.rows]).any():
        return f"{len(track):,} frames, each with its nearest place: without coordinates there is no path"
    length = distance(np.where(track.jumps, 0, track.metres).sum())
    return (
        f"{len(track):,} frames, a path of {length}; {int((track.rank > 0).sum()):,} of them are on the path with "
        f"another place than the nearest, {int(track.jumps.sum()):,} steps are longer than the speed allows"
    )


def _shown(track: Track, number: int, picture: Array, known: Rows) -> Shown:
    """A frame of the page: itself, its place on the path and, where that is another, the nearest."""
    frames, rank = track.candidates, int(track.rank[number])
    tiles = [Tile("query", data_uri(picture, SIDE), "frame", f"frame {frames.number[number]}")]
    for at, kind, caption in ((rank, "right", "on the path"), (0, "wrong", "nearest"))[: 2 if rank else 1]:
        path = known[frames.rows[number, at]]["path"]
        tiles.append(Tile(kind, data_uri(path, SIDE), f"{caption} · d² {frames.distances[number, at]:.3f}", path))
    words = when(float(frames.seconds[number])), in_words(known[track.rows[number]])
    return Shown(number, int(frames.number[number]), words, tiles)


def _tell(source: str, out: Path, track: Track, line: bool, frames: int) -> None:
    print(f"{source}: {_facts(track)}")
    print(f"wrote {', '.join(str(out / name) for name in (TABLE, *[LINE] * line, PAGE))}")
    if not line:
        print(
            f"no {LINE}: no place of the database has latitude and longitude. Where its metres are those of a UTM "
            "zone, extract it with that: --reader=folder,zone=33north, or csv,zone=33north of a table"
        )
    if len(track) < frames:
        print(f"{frames - len(track)} of {frames} frames could not be read; their rows say why")
