"""The data sets of a recipe: images to train on, and benchmarks to measure on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines import readers
from data_pipelines.clips import Cutting
from data_pipelines.errors import DataError
from data_pipelines.holdout import HeldOut, hold_out
from data_pipelines.minicity import CityConfig, DriveConfig
from data_pipelines.places import ROLES, Paths, Places
from data_pipelines.records import shards
from data_pipelines.samplers import Owners
from jaxvpr.cli.checks import held_out_sets
from jaxvpr.cli.overrides import data_sets
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.retrieval.evaluator import Benchmark, benchmark

log = logging.getLogger(__name__)
Listing = TypeVar("Listing", Places, Paths)


def places(config: ConfigDict, spec: ConfigDict) -> Places:
    """The images of a data set, of its `conditions` and `role` only; the embedded city is written first where it is not
    there yet.

    A data set of the reader "minicity" may have a `city` of its own among its options, instead of `config.city`.
    """
    shared = spec.reader != "records" or not own_shards(config)
    own = {} if shared else {"host": jax.process_index(), "hosts": jax.process_count()}
    images, conditions, role = _all_places(config, spec, **own), _conditions(spec), spec.get("role", "")
    return images.only(conditions=conditions, role=role) if conditions or role else images


def parts(config: ConfigDict, spec: ConfigDict) -> HeldOut | None:
    """A data set to train on and what is held out of it; None where nothing is.

    Recipes that were saved before `hold_out` came to be lack it.
    """
    share = spec.get("hold_out", 0.0)
    return hold_out(places(config, spec), share, gap=spec.gap) if share else None


def validation(config: ConfigDict) -> list[Benchmark]:
    """The data sets to validate on: those of `val_data`, or what is held out of the training sets.

    Raises:
      UserError: for clips of single images, whose neighbours are the other role's.
    """
    held = held_out_sets(config)
    return [_held_out(config, name, key) for name, key in held.items()] or benchmarks(config, config.val_data)


def tests(config: ConfigDict) -> list[Benchmark]:
    """The data sets to measure on: those of `test_data`, or what is held out where there are none."""
    if config.test_data or not held_out_sets(config):
        return benchmarks(config, config.test_data)
    return validation(config)


def _held_out(config: ConfigDict, name: str, key: str) -> Benchmark:
    spec = dict(data_sets(config))[key]
    found = parts(config, spec)
    assert found is not None, f"{key} holds nothing out"
    log.info(
        "%s.hold_out=%g: %d images to train on, %d to validate on (queries by %s), %d in neither part",
        key, spec.hold_out, len(found.train), len(found.apart), found.by, found.between,
    )  # fmt: skip
    if found.by == "image":
        log.warning(
            "%s.hold_out: the images name neither drives nor days, or no two of one spot, so that every second image "
            "is a query: its neighbours are almost the same picture, and recalls are higher than those of another day",
            key,
        )
        if cutting(spec, f"config.{key}"):
            raise UserError(
                f"{key}.hold_out={spec.hold_out:g} finds no two drives to tell queries from the database by, and clips "
                "cannot be cut from every second image. Give val_data, or set it to 0"
            )
    how = f"gap {spec.gap:g} m" if found.apart.located.any() else "whole places"
    split = f"{spec.split or 'all'} ({spec.hold_out:g} held out, {how}, queries by {found.by})"
    return benchmark(name, found.apart, split, spec.thresholds, cutting(spec, f"config.{key}"))


def _conditions(spec: ConfigDict) -> tuple[str, ...]:
    # Recipes that were saved before this key came to be lack it, and `role`.
    return tuple(spec.get("conditions", ()))


def cutting(spec: ConfigDict, key: str) -> Cutting | None:
    """How a data set is cut into clips; None for images, and for recipes that were saved before this key came to be.

    Raises:
      UserError: for a value that there is not; names its key, which follows `key`, that of the data set.
    """
    try:
        return Cutting.of(spec.get("clips", {}))
    except DataError as error:
        raise UserError(f"{key}.{error}") from error


def own_shards(config: ConfigDict) -> bool:
    """Whether each host has some of the shards to train on; recipes that were saved before this key came to be lack
    it."""
    return config.loader.get("own_shards", False)


def owners(config: ConfigDict, images: Places) -> Owners | None:
    """Which host holds each image, where they hold different ones."""
    if not own_shards(config):
        return None
    return Owners(shards.numbers(images.path) % jax.process_count(), jax.process_count())


def _all_places(config: ConfigDict, spec: ConfigDict, **own: int) -> Places:
    options = {**spec.options.to_dict(), **own}
    if spec.reader == "minicity":
        options.setdefault("city", config.city.to_dict())
    read = partial(readers.read, spec.reader, spec.root, split=spec.split or None, **options)
    return _agreed(f"the data set {spec.root}", hosts.first_then_others(f"read {spec.root}", read))


def _agreed(what: str, images: Listing) -> Listing:
    """The images, where all hosts found the same ones; else UserError."""
    hosts.agree(what, lambda: {"images": len(images), "listing": images.digest()})
    return images


def benchmarks(config: ConfigDict, specs: ConfigDict) -> list[Benchmark]:
    """The data sets to measure on, in the order of their names."""
    return [_benchmark(config, name, spec) for name, spec in sorted(specs.items())]


def _benchmark(config: ConfigDict, name: str, spec: ConfigDict) -> Benchmark:
    images, split, conditions = _all_places(config, spec), spec.split or "all", _conditions(spec)
    if spec.get("role", ""):
        raise UserError(
            f"the data set {name} has role={spec.role!r}: what is measured on needs database and queries. Leave role "
            "empty; it is for data to train on"
        )
    if spec.get("partition", {}).get("by"):
        raise UserError(
            f"the data set {name} has partition.by={spec.partition.by!r}, which is for data to train on: what is "
            f"measured on is cut by its thresholds, {tuple(spec.thresholds)}. Leave it empty"
        )
    # Which of a data set's protocols it is, is told with every recall.
    told = [str(spec.options[key]) for key in ("protocol", "subtask") if key in spec.options]
    if told or conditions:
        split = f"{split} ({', '.join([*told, *conditions])})"
    return benchmark(name, images, split, spec.thresholds, cutting(spec, name), conditions)


def folders(roots: Sequence[str], reader: Reader) -> Places:
    """The images of folders that a command names, one folder after the other, as its reader finds them."""
    found = Places.concat([readers.read(reader.name, root, **reader.options) for root in roots])
    return _agreed(f"the images of {', '.join(roots)}", found)


def photos(roots: Sequence[str], reader: Reader) -> Paths:
    """As `folders`, where the images are all that is asked for: positions in names and EXIF are not looked at."""
    if reader != Reader():
        return folders(roots, reader).path
    return _agreed(f"the images of {', '.join(roots)}", Paths.concat([readers.folder.paths(root) for root in roots]))


def two_folders(
    database: Sequence[str],
    queries: Sequence[str],
    thresholds: tuple[str, ...],
    reader: Reader | None = None,
    clips: Cutting | None = None,
) -> Benchmark:
    """A benchmark of folders of database images and of queries, read by `reader`, by default as anybody's own folder.

    Of a data set that has images of several roles, those of the one that is asked for are taken; where both flags name
    one such data set, its published answers are kept. `thresholds` and `clips` as of `evaluator.benchmark`.
    """
    reader = reader or Reader()
    images = folders(database, reader)
    if list(database) != list(queries) or not _has_roles(images):
        asked = folders(queries, reader)
        images = Places.concat([_in_role(images, "database"), _in_role(asked, "query")])
    return benchmark(Path(queries[-1]).resolve().parent.name, images, "test", thresholds, clips)


def _has_roles(images: Places) -> bool:
    return len(np.unique(images.role[images.role >= 0])) > 1


def _in_role(images: Places, role: str) -> Places:
    """The images of one role of a data set that has several, else all of them, in that role."""
    chosen = images.select(role=role) if _has_roles(images) else images
    return dataclasses.replace(chosen, role=np.full(len(chosen), ROLES.index(role), np.int8), answers=None)


def recall_ns(config: ConfigDict, bench: Benchmark) -> tuple[int, ...]:
    """The N of recall@N that the database is large enough for."""
    ns = tuple(n for n in config.eval.recalls if n <= len(bench.database))
    if not ns:
        raise UserError(
            f"{bench.name}: the database has {len(bench.database)} images, too few for any of "
            f"eval.recalls={tuple(config.eval.recalls)}"
        )
    return ns


def identity(config: ConfigDict) -> dict[str, str]:
    """Digests that say which embedded city, and which difficulty of its test, a figure belongs to; also which drives,
    where one is measured on."""
    specs = [spec.options.to_dict() for spec in config.test_data.values() if spec.reader == "minicity"]
    if not specs:
        return {}
    shared = config.city.to_dict()
    city = CityConfig.of(shared)
    found = {"city_digest": city.digest(), "city_test_digest": city.test_digest()}
    driven = {
        DriveConfig.of(options.get("drive") or {}).digest(CityConfig.of(options.get("city", shared)))
        for options in specs
        if options.get("drives")
    }
    return found | ({"drives_digest": ", ".join(sorted(driven))} if driven else {})
