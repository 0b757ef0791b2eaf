"""Parameters that are one tensor here and several in an original: query, key and value, for instance.

A table of names writes them as one name with braces, `attention.{query,key,value}.weight`; they are concatenated along
the first of PyTorch's axes.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

BRACES = re.compile(r"\{([^}]+)\}")


def parts(name: str) -> list[str]:
    """The names that `name` stands for; itself, if it has no braces."""
    match = BRACES.search(name)
    return [name.replace(match[0], part) for part in match[1].split(",")] if match else [name]


def join(tensors: Mapping[str, np.ndarray], names: Iterable[str | None]) -> Mapping[str, np.ndarray]:
    """`tensors` with those that are parts of one of `names` joined under it; incomplete ones stay as they are."""
    joined = dict(tensors)
    for name in names:
        several = parts(name) if name else []
        if len(several) > 1 and all(part in tensors for part in several):
            joined[str(name)] = np.concatenate([joined.pop(part) for part in several])
    return joined


def split(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `join`: no name has braces afterwards."""
    separate: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        several = parts(name)
        pieces = np.split(tensor, len(several)) if len(several) > 1 else [tensor]
        separate |= dict(zip(several, pieces, strict=True))
    return separate
