"""Tables of names, and the rules that give a name from them."""

import re
from collections.abc import Iterable
from typing import NamedTuple

Rows = tuple[tuple[str, str], ...]

# our leaf -> the original's; any other leaf keeps its name
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


class Family(NamedTuple):
    """How an original names its parameters.

    Attributes:
      rows: (pattern, name) pairs, read from top to bottom; the first pattern that matches counts. One that matches the
        full path of a parameter of ours (`backbone/cls_token`) gives its full name; one that matches the path of a
        module (`backbone/bn1`) gives the original's module, and the last part of the name follows by `LEAVES`.
      covers: prefix, or prefixes, of the paths of ours that such a file holds; the others keep their values.
      keeps: pattern of paths within it that such a file does not hold either: they keep their values too. Only models
        that have such parameters are read as this family.
      extras: patterns of names that a file may hold and we do not need.
      unused: names and shapes of tensors that the original's model has without using them, so that its strict loading
        wants them: left out in reading, written as zeros unless a row gives one.
      stages: pattern of a stage that a file may hold where our model is cut before it.
      convolved: patterns of linear layers of ours that are 1x1 convolutions there.
      counters: whether each BatchNorm has its `num_batches_tracked`, which nothing of ours needs.
      same_layout: the file holds our own layout, so that nothing is transposed, and our own names where no row gives
        another.
    """

    rows: Rows = ()
    covers: str | tuple[str, ...] = ""
    keeps: str | None = None
    extras: tuple[str, ...] = ()
    unused: tuple[tuple[str, tuple[int, ...]], ...] = ()
    stages: str | None = None
    convolved: tuple[str, ...] = ()
    counters: bool = False
    same_layout: bool = False


def covered(family: Family, path: str) -> bool:
    """Whether a file of the family holds our parameter `path`."""
    return path.startswith(family.covers) and not (family.keeps and re.fullmatch(family.keeps, path))


def under(prefix: str, rows: Iterable[tuple[str, str]]) -> Rows:
    """Rows whose original names stand under a further module: `under("backbone.", ...)`."""
    return tuple((pattern, prefix + name) for pattern, name in rows)


def name_of(family: Family, path: str) -> str | None:
    """The original's name of our parameter `path` (`backbone/bn1/scale`), or None where it has none."""
    module, _, leaf = path.rpartition("/")
    for pattern, theirs in family.rows:
        if match := re.fullmatch(pattern, path):
            return match.expand(theirs)
        if match := re.fullmatch(pattern, module):
            return f"{match.expand(theirs)}.{LEAVES.get(leaf, leaf)}"
    return path.replace("/", ".") if family.same_layout else None
