"""Attention by cuDNN in place of our own products, to see what it would give."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal
from unittest.mock import patch

import jax
import jax.numpy as jnp

NAME = "attend"


@contextmanager
def fused() -> Iterator[None]:
    """Within it, models traced in bfloat16 attend by `jax.nn.dot_product_attention`: cuDNN's on a GPU, XLA's elsewhere.

    There is no switch for this, so the function is replaced by its name wherever the models hold it. Attention that
    drops shares stays as it is.

    Raises:
      LookupError: where no module of the models holds a function of this name any more.
    """
    from jaxvpr import models

    holders = [
        module
        for name, module in sys.modules.items()
        if name.startswith(f"{models.__name__}.") and callable(getattr(module, NAME, None))
    ]
    if not holders:
        raise LookupError(f"no module of {models.__name__} has a function {NAME!r}: what computes attention now?")
    with ExitStack() as stack:
        for module in holders:
            stack.enter_context(patch.object(module, NAME, _instead_of(getattr(module, NAME))))
        yield


def _instead_of(plain: Any) -> Any:
    def attend(query: Any, key: Any, value: Any, drop: Any = None) -> jax.Array:
        drops = drop is not None and drop.rate > 0 and not drop.deterministic
        if query.dtype != jnp.bfloat16 or drops:
            return plain(query, key, value, drop)
        kind: Literal["cudnn", "xla"] = "cudnn" if jax.default_backend() == "gpu" else "xla"
        return jax.nn.dot_product_attention(query, key, value, implementation=kind)

    return attend
