"""Names as trainers leave them: within the wrappers of a model, or below the attribute that holds it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

Tensors = Mapping[str, np.ndarray]
# What DataParallel, torch.compile, FSDP and checkpoints of activations put before the names of what they wrap.
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
DEEPEST = 3  # modules in one another that are not the model
COUNTER = "n_averaged"  # that torch.optim.swa_utils.AveragedModel keeps beside the model


def of(tensors: Tensors) -> Iterator[Tensors]:
    """The tensors as they are named; without wrappers; then without prefixes, one by one, that most of them share."""
    yield tensors
    names = {name: WRAPPERS.sub("", name) for name in tensors if name != COUNTER}
    if set(names.values()) != set(tensors):
        yield from _renamed(tensors, names)
    for _ in range(DEEPEST):
        ((prefix, count),) = Counter(name.partition(".")[0] + "." for name in names.values()).most_common(1) or [
            ("", 0)
        ]
        if 2 * count <= len(names):
            return
        names = {name: short.removeprefix(prefix) for name, short in names.items()}
        yield from _renamed(tensors, names)


def _renamed(tensors: Tensors, names: Mapping[str, str]) -> Iterator[Tensors]:
    """Nothing, where two names would become one."""
    if len(set(names.values())) == len(names):
        yield {new: tensors[old] for old, new in names.items()}
