"""Position without a database, head beside head, and against the number of images that they learn, as F. Gaza's thesis
has its figures of capacity and generalisation (2025, figure 4.6 and section 4.5.1).

    python -m jaxvpr.main --config=configs/cosplace.py                              # the network that all share
    python -m jaxvpr.main sweep --config=configs/sweeps/implicit.py                 # heads by numbers of images
    python -m jaxvpr.main sweep --config=configs/sweeps/implicit.py:heads           # all presets of implicit.py
    python -m jaxvpr.main sweep --config=configs/sweeps/implicit.py:sparse          # one survey of four
    python -m jaxvpr.main sweep --config=configs/sweeps/implicit.py:squeezenet,init=squeezenet1_0.pth   # section 4.4
    python -m jaxvpr.main sweep --config=configs/sweeps/implicit.py:headings        # section 4.3.1
    python -m jaxvpr.main sweep --config=configs/sweeps/implicit.py:areas           # against the size of the area

The page of the sweep draws the share of training images that are answered within 25 m (capacity) and that of images of
another year, beside the streets' middle (generalisation). Descriptors are kept in `runs/features`: only the first run
looks at images.
"""

from typing import Any

from configs import common, implicit

Runs = dict[str, dict[str, Any]]
STEPS = 30  # of an epoch: a pass over all images of the city
HEADS = ("cells", "direct_linear", "mixture")
# The city's south-west corner, in metres of its zone; all of its images lie within 150 m of it.
EAST, NORTH = 415_055.0, 5_815_051.0


def _recipe(head: str) -> str:
    return f"configs/implicit.py:{head}"


def capacity() -> dict[str, Any]:
    """Three heads on 500 to 7,488 images of the same area, drawn at random; a smaller draw is part of a larger one.

    All take the same number of steps, so that small sets are seen more often, not less.
    """
    counts = (500, 1000, 2000, 4000, 7488)
    return {
        "name": "implicit-capacity",
        "recipe": f"{_recipe('cells')},eval.baselines=false",
        "rows": "head",
        "columns": "images",
        "runs": {
            f"{head}+{count}": {
                "recipe": _recipe(head),
                "train_data.options.most": count,
                "steps_per_epoch": STEPS,
                "eval.baselines": False,
            }
            for head in HEADS
            for count in counts
        },
        "seeds": 3,
    }


def areas() -> dict[str, Any]:
    """Three heads on squares of 40 to 150 m from one corner of the city, with 672 to 7,488 images and 18 to 200 queries
    to validate on; cells stay 10 m wide."""
    runs: Runs = {}
    for head in HEADS:
        for side in (40, 80, 120, 150):
            box = (EAST, NORTH, EAST + side, NORTH + side)
            cells = {"model.position_options.cells": side // 10} if head == "cells" else {}
            runs[f"{head}+{side}"] = {
                "recipe": _recipe(head),
                "train_data.options.within": box,
                "val_data.minicity_val.options.within": box,
                "test_data.minicity.options.within": box,
                "steps_per_epoch": STEPS,
                "eval.baselines": False,
                **cells,
            }
    return {
        "name": "implicit-areas",
        "recipe": f"{_recipe('cells')},eval.baselines=false",
        "rows": "head",
        "columns": "metres",
        "runs": runs,
        "seeds": 3,
    }


def heads() -> dict[str, Any]:
    """All heads and losses of implicit.py in the city, three seeds each."""
    return {
        "name": "implicit-heads",
        "recipe": f"{_recipe('cells')},eval.baselines=false",
        "runs": {head: {"recipe": _recipe(head), "eval.baselines": False} for head in implicit.CITY},
        "seeds": 3,
    }


FEW = ("cells", "soft_cells", "direct", "direct_sigmoid", "hypersphere_spread", "mixture", "mixture_fourier")
SETS = ("train_data", "val_data.minicity_val", "test_data.minicity")
EQUAL = {"steps_per_epoch": 30}  # as many steps as on all images


def sparse() -> dict[str, Any]:
    """The same area with one survey instead of four, as many steps."""
    data = {**{f"{key}.root": "data/minicity-sparse" for key in SETS}, "city.train_years": (2014,), **EQUAL}
    return _few("implicit-sparse", data)


def squeezenet() -> dict[str, Any]:
    """Descriptors that know pictures, and no place: SqueezeNet with GeM. Wants `init=` with torchvision's weights."""
    model = {"backbone": "squeezenet", "aggregator": "gem", "aggregator_options": {}}
    changes = {"init": "", "image.resize": "linear", **{f"model.{key}": value for key, value in model.items()}}
    return _few("implicit-squeezenet", changes)


def headings() -> dict[str, Any]:
    """Regression of photos that look in one direction, and of all, as many steps."""
    east = {f"{key}.options.{name}": value for key in SETS for name, value in (("heading", 90.0), ("turn", 15.0))}
    kinds: Runs = {"one_heading": east, "all": {}}
    runs: Runs = {
        f"{head}+{kind}": {"recipe": _recipe(head), "eval.baselines": False, **EQUAL, **changes}
        for kind, changes in kinds.items()
        for head in ("direct", "direct_sigmoid")
    }
    return {**_few("implicit-headings", {}), "rows": "head", "columns": "photos", "runs": runs}


def _few(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The heads of `FEW` with the same changes, three seeds each."""
    runs: Runs = {head: {"recipe": _recipe(head), "eval.baselines": False, **changes} for head in FEW}
    return {"name": name, "recipe": f"{_recipe('cells')},eval.baselines=false", "runs": runs, "seeds": 3}


PRESETS = {
    "capacity": capacity,
    "areas": areas,
    "heads": heads,
    "sparse": sparse,
    "squeezenet": squeezenet,
    "headings": headings,
}


def get_sweep(preset: str = "") -> dict[str, Any]:
    """The sweep of a preset."""
    return common.chosen(preset, PRESETS)()
