"""Tables and curves of F. Gaza's thesis ("Implicit Neural Representation in Visual Place Recognition", 2025, chapter 4)
on the embedded city; what was found is in docs/results.md.

    python -m jaxvpr.main sweep --config=configs/sweeps/implicit.py               # 4.3, 4.5: all heads, three seeds
    python -m jaxvpr.main sweep --config=configs/sweeps/implicit.py:sparse        # one survey of four
    python -m jaxvpr.main sweep --config=configs/sweeps/implicit.py:squeezenet,init=squeezenet1_0.pth   # 4.4
    python -m jaxvpr.main sweep --config=configs/sweeps/implicit.py:headings      # 4.3.1: one heading, and all of them
    python -m jaxvpr.main sweep --config=configs/sweeps/implicit.py:areas         # Fig 4.6, 4.7: capacity, generalisation

Every preset begins with the recipe `implicit.py`, and so with the network that `cosplace.py` left in `runs/`. The first
run describes the images, the others find what is kept. Validation (the curves) has the queries of the set to validate
on, and the images that train.
"""

from typing import Any

from configs import common, implicit

Changes = dict[str, Any]
RECIPE = "configs/implicit.py,eval.baselines=false"
FEW = ("cells", "soft_cells", "direct", "direct_sigmoid", "hypersphere_spread", "mixture", "mixture_fourier")
SQUEEZENET = {
    "init": "",
    "model.backbone": "squeezenet",
    "model.aggregator": "gem",
    "model.aggregator_options": {},
    "image.resize": "linear",
}
EQUAL = {"steps_per_epoch": 30}  # as many steps as on all images
# The box of all images.
SOUTH, WEST, NORTH, EAST = 52.4790146, 13.7492186, 52.4803413, 13.751275


def heads(names: tuple[str, ...] | list[str], changes: Changes) -> dict[str, Changes]:
    """Runs of these presets of `implicit.py`."""
    return {name: {"recipe": f"configs/implicit.py:{name},eval.baselines=false", **changes} for name in names}


def variants() -> Changes:
    """All heads of the city, by CosPlace's descriptors, three seeds."""
    return {"name": "implicit", "recipe": RECIPE, "runs": heads(list(implicit.CITY), {}), "seeds": 3}


def sparse() -> Changes:
    """The same area with one survey instead of four."""
    data = {f"{key}.root": "data/minicity-sparse" for key in _SETS} | {"city.train_years": (2014,), **EQUAL}
    return {"name": "implicit-sparse", "recipe": RECIPE, "runs": heads(FEW, data), "seeds": 3}


def squeezenet() -> Changes:
    """Descriptors that know pictures, and no place: SqueezeNet with GeM. Wants `init=` with torchvision's weights."""
    return {"name": "implicit-squeezenet", "recipe": RECIPE, "runs": heads(FEW, SQUEEZENET), "seeds": 3}


def headings() -> Changes:
    """Regression of photos that look in one direction, and of all."""
    one = {f"{key}.options.{name}": value for key in _SETS for name, value in (("heading", 90.0), ("turn", 15.0))}
    names = ("direct", "direct_sigmoid")
    runs = {f"{name}+{kind}": {**keys, **changes, **EQUAL} for kind, changes in (("one_heading", one), ("all", {}))
            for name, keys in heads(names, {}).items()}  # fmt: skip
    return {
        "name": "implicit-headings",
        "recipe": RECIPE,
        "runs": runs,
        "seeds": 3,
        "rows": "head",
        "columns": "photos",
    }


def areas() -> Changes:
    """A growing part of the city, in cells of the same size: what is learned of it, and what of queries there."""
    runs = {}
    for share in (0.25, 0.5, 1.0):  # of each side
        box = (SOUTH, WEST, SOUTH + share * (NORTH - SOUTH), WEST + share * (EAST - WEST))
        for name, keys in heads(("cells", "direct_sigmoid", "mixture_fourier"), {}).items():
            of_cells = {"model.position_options.cells": round(16 * share)} if name == "cells" else {}
            runs[f"{name}+{share:g}"] = {**keys, **{f"{key}.options.box": box for key in _SETS}, **of_cells, **EQUAL}
    return {"name": "implicit-areas", "recipe": RECIPE, "runs": runs, "seeds": 3, "rows": "head", "columns": "side"}


_SETS = ("train_data", "val_data.minicity_val", "test_data.minicity")
PRESETS = {"variants": variants, "sparse": sparse, "squeezenet": squeezenet, "headings": headings, "areas": areas}


def get_sweep(preset: str = "") -> Changes:
    """The sweep of a preset."""
    return common.chosen(preset, PRESETS)()
