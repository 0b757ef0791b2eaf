"""The verb smoothness: how descriptors change along a street and with a turn."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.atomic import replacing, write_json
from data_pipelines.own_files import NAMES, read_json
from data_pipelines.places import Places
from jaxvpr import builders
from jaxvpr.cli import data_set_flag
from jaxvpr.cli.overrides import data_sets
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.errors import UserError
from jaxvpr.families import names
from jaxvpr.parallel import hosts
from jaxvpr.reports import smoothness_page
from jaxvpr.reports.pictures import data_uri
from jaxvpr.reports.smoothness_page import Photo
from jaxvpr.reports.terminal import Figure, Row, show
from jaxvpr.retrieval import smoothness, streets
from jaxvpr.retrieval.smoothness import Curve, Smoothness
from jaxvpr.retrieval.streets import Spots
from jaxvpr.runs import outputs, which
from jaxvpr.verbs import preview

log = logging.getLogger(__name__)
FILE, PAGE, TABLE, MATRIX = "smoothness.json", "smoothness.html", "smoothness.csv", "matrix.csv"
SIDE = 112  # pixels of the photos of the page
COLUMNS = Curve._fields[:9]
MOST = 10_000  # images described where nothing else is asked for


def run(
    config: ConfigDict,
    folder: Path,
    checkpoint: str,
    images: Sequence[str] = (),
    reader: Reader | None = None,
    data_set: str = "",
    span: float | None = None,
    most: int | None = None,
    compare: Sequence[Path] = (),
    out: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> dict[str, Any] | None:
    """Measures how similar descriptors are by metres along a street and by degrees turned at a spot; writes `FILE`,
    `TABLE`, `MATRIX` and `PAGE`.

    Args:
      checkpoint: as of `which.chosen`.
      images: folders, as `reader` finds them; none for a data set of the recipe.
      data_set: its key, such as "test_data.city"; "" for the first of `test_data`, else `train_data`.
      span: metres of the street whose images make the matrix; None for `smoothness.SPAN`. All distances follow it.
      most: images to describe at most, whole neighbourhoods of them; None for `MOST`.
      compare: results of other models on the same images, drawn beside this one's.
      out: folder to write to; None for `smoothness` in the run's folder.

    Returns:
      What `FILE` holds (docs/metrics.md); None with `dry_run`.

    Raises:
      UserError: for results that exist (not with `overwrite`), a model of clips, images without positions, no image
        that can be read, results to compare with that are of other images or of another span.
      DataError: for a result to compare with that cannot be read.
    """
    out, span, most = out or folder / "smoothness", span or smoothness.SPAN, MOST if most is None else most
    if most < 2:
        raise UserError(f"--most={most} must be at least 2: pairs of images are compared")
    if len(compare) >= len(smoothness_page.COLOURS):
        raise UserError(
            f"--compare was given {len(compare)} times; {len(smoothness_page.COLOURS) - 1} fit into a chart"
        )
    outputs.refuse_existing(out / FILE, overwrite=overwrite)
    others = [_other(file) for file in compare]
    names.check(config, training=False)
    if frames := builders.clip_length(config):
        raise UserError(f"{config.name} describes clips of {frames} frames; smoothness is measured of models of images")
    model = which.chosen(config, folder, checkpoint)
    if images:
        whole = builders.folders(tuple(images), reader or Reader())
    else:
        whole = builders.places(config, dict(data_sets(config))[data_set_flag.chosen(config, data_set)])
    places, told = _to_describe(whole, span, most, config.seed)
    for file, other in zip(compare, others, strict=True):
        _refuse_other(file, other, places, span)
    if dry_run:
        facts = preview.describing(model, places, builders.mesh(config), out, f"{FILE}, {TABLE}, {MATRIX} and {PAGE}")
        preview.show(config.name, facts)
        return None
    log.info("weights: %s; %s", model.what, told)
    found, kept = _measured(model.config, model.variables, places, span)
    result = {
        "name": config.name,
        "weights": model.what,
        "dataset": whole.name,
        "images": len(kept),
        "of": len(whole),
        "digest": places.digest(),
        "span": span,
        "seed": config.seed,
        **_as_json(found, kept),
    }
    if hosts.is_first():
        _write(out, result, found, kept, [told, _told(found, kept)], others)
    return result


def _to_describe(whole: Places, span: float, most: int, seed: int) -> tuple[Places, str]:
    """The images to describe, and which they are in words."""
    located = np.flatnonzero(whole.located)
    if len(located) < 2:
        raise UserError(f"{whole.name}: {len(located)} of {len(whole)} images have a position; smoothness needs them")
    whole.single_zone()
    places = whole.take(located)
    rows = streets.around(_spots(places), most, smoothness.STEPS[-1] * span / smoothness.SPAN, seed)
    lost = f", {len(whole) - len(located):,} without a position left out" * (len(located) < len(whole))
    if len(rows) == len(places):
        return places, f"All {len(places):,} images of {whole.name}{lost}."
    told = (
        f"{len(rows):,} of {len(places):,} images of {whole.name}, neighbourhoods drawn at random (seed {seed}){lost}."
    )
    return places.take(rows), told


def _spots(places: Places) -> Spots:
    return Spots(np.stack([places.east, places.north], 1), places.heading.astype(np.float64))


def _measured(config: ConfigDict, variables: Any, places: Places, span: float) -> tuple[Smoothness, Places]:
    """What is measured, and the images that could be read."""
    described = builders.describer(config, builders.mesh(config))(variables, places.path)
    read = np.setdiff1d(np.arange(len(places)), described.missing)
    if len(read) < 2:
        raise UserError(f"{len(read)} of the {len(places)} images of {places.name} can be read; pairs are compared")
    kept = places.take(read)
    return smoothness.measure(described.descriptors[read], _spots(kept), span, config.seed), kept


def _as_json(found: Smoothness, kept: Places) -> dict[str, Any]:
    row = [
        {
            "path": str(kept.path[image]),
            "metres": round(float(metres), 2),
            "heading": round(float(kept.heading[image]), 1) if np.isfinite(kept.heading[image]) else None,
            "time": "" if np.isnat(kept.time[image]) else str(kept.time[image]),
        }
        for image, metres in zip(found.row, found.along, strict=True)
    ]
    return {
        "dimension": found.dimension,
        "metres": smoothness.as_json(found.metres),
        "degrees": smoothness.as_json(found.degrees),
        "row": row,
        "matrix": [[round(value, 5) for value in line] for line in found.matrix.tolist()],
    }


def _told(found: Smoothness, kept: Places) -> str:
    if not len(found.row):
        return "No two images lie on one straight street and look the same way, so that there is no matrix."
    first = Path(str(kept.path[found.row[0]])).name
    facing = kept.heading[found.row[0]]
    words = f", which look towards {facing:.0f}°" * bool(np.isfinite(facing))
    return (
        f"The matrix is of the straight street with most of its span in pictures: {len(found.row)} images{words}; the "
        f"first is {first}."
    )


def _other(file: Path) -> dict[str, Any]:
    return read_json(file, "Give a smoothness.json that this verb wrote.")


def _refuse_other(file: Path, other: Mapping[str, Any], places: Places, span: float) -> None:
    known = ("name", "weights", "digest", "span", "dimension", "metres", "degrees", "row", "matrix")
    if lacking := [key for key in known if key not in other]:
        raise UserError(f"--compare={file} is no {FILE}: it lacks {', '.join(lacking)}")
    if other["digest"] != places.digest():
        raise UserError(f"--compare={file} was measured on other images than these {len(places):,}: measure it on them")
    if other["span"] != span:
        raise UserError(f"--compare={file} was measured with --span={other['span']:g}, this with --span={span:g}")


def _write(
    out: Path,
    result: Mapping[str, Any],
    found: Smoothness,
    kept: Places,
    notes: Sequence[str],
    others: Sequence[Mapping[str, Any]],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    _table(out / TABLE, ("by", *COLUMNS), [*_rows("metres", found.metres), *_rows("degrees", found.degrees)])
    names = [image["path"] for image in result["row"]]
    _table(out / MATRIX, ("path", "metres", *names), [
        (image["path"], image["metres"], *line) for image, line in zip(result["row"], result["matrix"], strict=True)
    ])  # fmt: skip
    photos = [
        Photo(data_uri(kept.path[row], SIDE), _caption(image), image["path"])
        for row, image in zip(found.row, result["row"], strict=True)
    ]
    title = f"Smoothness of {result['name']} on {result['dataset']}"
    smoothness_page.write(out / PAGE, title, [result, *others], photos, notes)
    write_json(out / FILE, result)
    rows: list[Row] = [
        (one["name"], tuple(Figure(text) for text in smoothness_page.summary(one))) for one in (result, *others)
    ]
    show(title, ("model", *smoothness_page.SUMMARY), rows)
    print(*notes, sep="\n")
    print(f"wrote {', '.join(str(out / name) for name in (FILE, TABLE, MATRIX, PAGE))}")


def _rows(by: str, curve: Curve) -> list[tuple[Any, ...]]:
    return [(by, *row) for row in zip(*(column.tolist() for column in curve[:9]), strict=True)]


def _table(file: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with replacing(file) as part, part.open("w", newline="", **NAMES) as stream:
        csv.writer(stream).writerows([header, *rows])


def _caption(image: Mapping[str, Any]) -> str:
    return " · ".join(filter(None, (f"{image['metres']:.1f} m", image["time"][:4])))
