"""Tables of R. Mereu's thesis ("A Study on Deep Learning Approaches for Visual Geo-localization", 2021, chapter 6) on
drives through the embedded city; what was found is in docs/results.md.

    python -m jaxvpr.main sweep --config=configs/sweeps/sequences.py               # 6.1: aggregators and lengths
    python -m jaxvpr.main sweep --config=configs/sweeps/sequences.py:non_local     # 6.5
    python -m jaxvpr.main sweep --config=configs/sweeps/sequences.py:images        # 6.9: trained on images
    python -m jaxvpr.main sweep --config=configs/sweeps/sequences.py:negatives     # 6.10
    python -m jaxvpr.main sweep --config=configs/sweeps/sequences.py:order         # 6.11

Every preset begins with the recipe `seqvlad.py`, and so with the network that `cosplace.py` left in `runs/`. Clips of
several lengths and orders are test sets of one run: nothing is trained again for them.
"""

from collections.abc import Iterable
from typing import Any

from configs import common

Changes = dict[str, Any]
# Half as many steps as the recipe, and three negatives instead of five: a minute a run.
RECIPE = "configs/seqvlad.py:city,eval.baselines=false,epochs=2,objective.negatives=3"
LENGTHS = (1, 3, 5, 9, 15)
GEM = {"model.aggregator": "gem", "model.aggregator_options": {}, "clusters.images": 0}


def trained_on(length: int) -> Changes:
    """Trains and validates on clips of so many frames; 0: on images, validated on clips of five."""
    return {"train_data.clips.length": length, "val_data.drives_val.clips.length": length or 5}


def measured_on(lengths: Iterable[int], order: str = "normal") -> Changes:
    """Test sets of clips of these lengths; every fourth one, since neighbours share all frames but one."""
    suffix = "" if order == "normal" else f"_{order}"
    return {
        f"test_data.clips_{length:02d}{suffix}.{key}": value
        for length in lengths
        for key, value in {
            "reader": "minicity",
            "root": "data/minicity",
            "split": "test",
            "thresholds": ("10m", "25m"),  # at 25 m most models find nearly all
            "options": {"drives": True},
            "clips.length": length,
            "clips.stride": 4,
            "clips.order": order,
        }.items()
    }


def sweep(name: str, runs: dict[str, Changes], seeds: dict[str, int], axes: tuple[str, str] | None = None) -> Changes:
    """A sweep of the recipe, whose own test set is dropped."""
    made = {"name": name, "recipe": f"{RECIPE},test_data.drives={{}}", "runs": runs, "seeds": seeds}
    return made | ({"rows": axes[0], "columns": axes[1]} if axes else {})


def aggregators() -> Changes:
    """Frames by GeM or NetVLAD, then concatenated, concatenated and projected to 128 numbers, or all in one; three
    seeds of the two that the thesis compares."""
    frames: dict[str, Changes] = {"gem": GEM, "netvlad": {}}
    runs = {
        f"{frame}_{head}+{length}_frames": {
            **frames[frame],
            "model.sequence": head,
            **({"model.sequence_options": {"frames": length, "dim": 128}} if head == "fc" else {}),
            **trained_on(length),
            **measured_on([length]),
        }
        for frame in frames
        for head in ("cat", "fc", "joint")
        for length in (3, 5)
    }
    return sweep("sequence-aggregators", runs, {"netvlad_cat+5_frames": 3, "netvlad_joint+5_frames": 3},
                 ("aggregators", "trained and tested on"))  # fmt: skip


def non_local() -> Changes:
    """SeqVLAD of three frames with non-local blocks before it: none, in each frame, over time too, in both at once."""
    blocks: dict[str, Changes] = {"none": {}}
    blocks |= {kind: {"model.non_local": {"kind": kind, "bottleneck": 32}} for kind in ("2d", "2d+t", "3d")}
    runs = {name: {**block, **trained_on(3), **measured_on((3, 5))} for name, block in blocks.items()}
    return sweep("sequence-non-local", runs, dict.fromkeys(runs, 3))


def images() -> Changes:
    """Trained on images and tested on clips, beside SeqVLAD trained on clips of three."""
    runs = {
        "gem_cat-images": {**GEM, "model.sequence": "cat", **trained_on(0)},
        "seqvlad-images": trained_on(0),
        "seqvlad-3_frames": trained_on(3),
    }
    runs = {name: {**run, **measured_on(LENGTHS)} for name, run in runs.items()}
    return sweep("sequence-images", runs, dict.fromkeys(runs, 3))


def negatives() -> Changes:
    """SeqVLAD with 10, 5 and 2 negatives of each query, trained on images and on clips of three."""
    runs = {
        f"{length or 1}_frames+{count}_negatives": {
            **trained_on(length), "objective.negatives": count, **measured_on((1, 5)),
        }
        for length in (0, 3)
        for count in (10, 5, 2)
    }  # fmt: skip
    return sweep("sequence-negatives", runs, dict.fromkeys(runs, 3), ("trained on", "negatives"))


def order() -> Changes:
    """Models of clips of five, and the database's clips in their order, reversed and shuffled."""
    models: dict[str, Changes] = {
        "gem_cat": {**GEM, "model.sequence": "cat"},
        "netvlad_cat": {"model.sequence": "cat"},
        "seqvlad": {},
        "gem_fc": {**GEM, "model.sequence": "fc", "model.sequence_options": {"frames": 5, "dim": 128}},
    }
    tests = {
        key: value for name in ("normal", "reversed", "shuffled") for key, value in measured_on((5,), name).items()
    }
    runs = {name: {**model, **trained_on(5), **tests} for name, model in models.items()}
    runs["timesformer"] = {"recipe": "configs/timesformer.py:city,eval.baselines=false,test_data.drives={}", **tests}
    return sweep("sequence-order", runs, {})


PRESETS = {
    "aggregators": aggregators,
    "non_local": non_local,
    "images": images,
    "negatives": negatives,
    "order": order,
}


def get_sweep(preset: str = "") -> Changes:
    """The sweep of a preset."""
    return common.chosen(preset, PRESETS)()
