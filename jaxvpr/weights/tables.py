"""The names that PyTorch's originals give their parameters: one table a family.

A row pairs a pattern of our module paths with the original's module name; `Family.modules` is read from top to bottom
and the first pattern that matches the whole path counts. The last part of a name follows from ours by `LEAVES`.
"""

import re
from typing import NamedTuple

# our leaf -> the original's
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "p": "p",
}


class Family(NamedTuple):
    """How an original names its parameters.

    Attributes:
      modules: rows of (pattern of our module path, name of the original's module).
      covers: prefix of the paths of ours that such a file holds; the others keep their values.
      extras: patterns of names that a file may hold and we do not need.
      stages: pattern of a stage that a file may hold where our model is cut before it.
      counters: whether each BatchNorm has its `num_batches_tracked`, which nothing of ours needs.
      same_layout: the file holds our own names and layout, so that nothing is turned.
    """

    modules: tuple[tuple[str, str], ...]
    covers: str = ""
    extras: tuple[str, ...] = ()
    stages: str | None = None
    counters: bool = False
    same_layout: bool = False


FAMILIES = {
    "torchvision_resnet": Family(
        modules=(
            (r"backbone/layer(\d)_(\d+)/downsample_(\d)", r"layer\1.\2.downsample.\3"),
            (r"backbone/layer(\d)_(\d+)/(\w+)", r"layer\1.\2.\3"),
            (r"backbone/(conv1|bn1)", r"\1"),
        ),
        covers="backbone/",
        extras=(r"fc\.(weight|bias)",),
        stages=r"layer\d\.",
        counters=True,
    ),
    "torchvision_squeezenet": Family(
        modules=(
            (r"backbone/features_(\d+)", r"features.\1"),
            (r"backbone/features_(\d+)/(\w+)", r"features.\1.\2"),
        ),
        covers="backbone/",
        extras=(r"classifier\.1\.(weight|bias)",),
        stages=r"features\.\d+\.",
    ),
    "cosplace": Family(
        modules=(
            (r"backbone/conv1", "backbone.0"),
            (r"backbone/bn1", "backbone.1"),
            *(
                row
                for ours, theirs in (("layer1", 4), ("layer2", 5), ("layer3", 6), ("layer4", 7))
                for row in (
                    (rf"backbone/{ours}_(\d+)/downsample_(\d)", rf"backbone.{theirs}.\1.downsample.\2"),
                    (rf"backbone/{ours}_(\d+)/(\w+)", rf"backbone.{theirs}.\1.\2"),
                )
            ),
            (r"aggregator/gem", "aggregation.1"),
            (r"aggregator/fc", "aggregation.3"),
        ),
        counters=True,
    ),
    # Any model of ours, for what has no original: our path with dots, our layout.
    "jaxvpr": Family(modules=(), same_layout=True),
}


def name_of(family: Family, path: str) -> str | None:
    """The original's name of our parameter `path` (`backbone/bn1/scale`), or None where it has no such thing."""
    if family.same_layout:
        return path.replace("/", ".")
    module, _, leaf = path.rpartition("/")
    for pattern, theirs in family.modules:
        match = re.fullmatch(pattern, module)
        if match and leaf in LEAVES:
            return f"{match.expand(theirs)}.{LEAVES[leaf]}"
    return None
