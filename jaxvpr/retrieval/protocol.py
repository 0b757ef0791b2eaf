"""The protocol of a recall: the facts without which two recalls cannot be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.clips import Cutting
from jaxvpr.retrieval.positives import Positives

EXACT = "flat L2 (exact)"


def protocol(
    *,
    dataset: str,
    split: str,
    queries: int,
    database: int,
    positives: Mapping[str, Positives],
    image_size: Sequence[int],
    resize: str,
    dimension: int,
    multiple: int = 1,
    cropped_from: Sequence[int] | None = None,
    missing: int = 0,
    computed_in: str = "float32",
    batch_norm_images: int = 0,
    cutting: Cutting | None = None,
    index: str = EXACT,
) -> dict[str, Any]:
    """The `protocol` of an entry of `metrics.json`.

    Args:
      dataset, split: which images.
      queries, database: numbers of images, or of clips.
      positives: threshold (`25m`, `1m_5deg`, `1frame`, `label`, `list`) -> positives of these queries.
      image_size: (height, width) in pixels that the network saw; empty where it saw each image at its own size.
      resize: rule that brought the images to that size.
      multiple: own sizes were rounded by that rule to the nearest multiple of this; with 1 they were left as they are.
      cropped_from: (height, width) that the images were resized to before the middle was cut out, multiples of
        `multiple`; empty where they were cropped at their own size, None where they were not.
      dimension: of the descriptors.
      batch_norm_images: of how many images BatchNorm took its statistics at a time in training; 0: of all of a batch.
      missing: images that could not be read; they count as queries that fail, or were never found.
      computed_in: type and precision of the network, as `models.computed_in` has it.
      cutting: how both were cut into clips; None for images.
      index: what ranked the database.
    """
    for threshold, truth in positives.items():
        if len(truth) != queries:
            raise ValueError(f"threshold {threshold} has positives of {len(truth)} queries, not of {queries}")
    return {
        "dataset": dataset,
        "split": split,
        "queries": int(queries),
        "database": int(database),
        "without_positive": {threshold: int((truth.counts == 0).sum()) for threshold, truth in positives.items()},
        "image_size": [int(side) for side in image_size],
        "resize": resize if image_size or (multiple > 1 and cropped_from is None) else "none",
        "multiple": int(multiple),
        "cropped_from": "none" if cropped_from is None else "x".join(map(str, cropped_from)) or "own size",
        "dimension": int(dimension),
        "index": index,
        "missing": int(missing),
        "computed_in": computed_in,
        **({"batch_norm_images": int(batch_norm_images)} if batch_norm_images else {}),
        **({"clips": dataclasses.asdict(cutting)} if cutting else {}),
    }


def line(facts: Mapping[str, Any], threshold: str) -> str:
    """The protocol in one line, printed beside every recall.

    For example `minicity test | 600 queries (3 without positive) | 2,232 database images | 25m | 64x64 pil_bilinear |
    256-D | flat L2 (exact)`.
    """
    parts = [
        f"{facts['dataset']} {facts['split']}",
        f"{facts['queries']:,} queries ({facts['without_positive'][threshold]:,} without positive)",
        f"{facts['database']:,} database {'clips' if 'clips' in facts else 'images'}",
        *_clips(facts),
        threshold,
        _images(facts),
        f"{facts['dimension']}-D",
        facts["index"],
        *_less_than_float32(facts),
    ]
    what = "clips or frames that could not be read" if "clips" in facts else "unreadable images"
    parts += [f"{facts['missing']:,} {what}"] * bool(facts["missing"])
    return " | ".join(parts + _trained(facts))


def line_of_classes(facts: Mapping[str, Any], classes: int, without: int, threshold: str) -> str:
    """The protocol of a localisation by classification in one line, printed beside every LR@N.

    For example `minicity test | 600 queries (3 without a class in reach) | 412 classes | 25m | 64x64 area | 256-D |
    cosine with prototypes (exact)`.
    """
    parts = [
        f"{facts['dataset']} {facts['split']}",
        f"{facts['queries']:,} queries ({without:,} without a class in reach)",
        f"{classes:,} classes",
        threshold,
        _images(facts),
        f"{facts['dimension']}-D",
        "cosine with prototypes (exact)",
        *_less_than_float32(facts),
    ]
    return " | ".join(parts + _trained(facts))


def _clips(facts: Mapping[str, Any]) -> list[str]:
    """`clips of 5 frames`, and what else of them is not as usual."""
    if not (cut := facts.get("clips")):
        return []
    usual = dataclasses.asdict(Cutting(cut["length"]))
    others = ", ".join(f"{key}={value}" for key, value in cut.items() if value != usual[key])
    return [f"clips of {cut['length']} frames{f' ({others})' * bool(others)}"]


def _trained(facts: Mapping[str, Any]) -> list[str]:
    images = facts.get("batch_norm_images", 0)
    return [f"BatchNorm over {images} images in training"] * bool(images)


def _less_than_float32(facts: Mapping[str, Any]) -> list[str]:
    """What the network computed in, unless that is full float32, or was so before it was written down."""
    computed_in = facts.get("computed_in", "float32")
    return [computed_in] if computed_in != "float32" else []


def _images(facts: Mapping[str, Any]) -> str:
    """`322x322 tensor_bicubic_antialias`, `476x630 of 480x640 tensor_linear`, `own size`, `own size to multiples of 14
    tensor_linear_antialias`, `own size cropped to multiples of 14`."""
    cropped = facts["cropped_from"] != "none"
    if facts["image_size"]:
        cut = f" of {facts['cropped_from']}" * cropped
        return f"{facts['image_size'][0]}x{facts['image_size'][1]}{cut} {facts['resize']}"
    if cropped:
        return f"own size cropped to multiples of {facts['multiple']}"
    rounded = f" to multiples of {facts['multiple']} {facts['resize']}"
    return "own size" + rounded * (facts["multiple"] > 1)
