"""An exponential moving average of the weights, which is often the better model to evaluate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvpr.errors import UserError


def averaged(mean: Any, params: Any, step: jax.Array, *, decay: float, warmup: int = 0) -> Any:
    """The average after one more update: `d * mean + (1 - d) * params`, started from the first parameters.

    With a warm-up the decay is `min(decay, (1 + step) / (warmup + step))`: it begins at 1/warmup and lets go of the
    random start quickly. BatchNorm statistics are averages already and stay as they are.

    Args:
      mean, params: trees of one structure.
      step: averages made before this one, int32 [].
      decay: d, in [0, 1): about 1/(1 - d) updates are remembered.
      warmup: about how many updates before `decay` is in force, divided by 1/(1 - d); 0 or 1 for none.

    Raises:
      UserError: for a decay outside [0, 1), or a negative warm-up.
    """
    if not 0 <= decay < 1 or warmup < 0:
        raise UserError(f"a moving average of the weights takes 0 <= decay < 1 and warmup >= 0, got {decay}, {warmup}")
    part = jnp.asarray(1.0 - decay, jnp.float32)
    if warmup > 1:
        part = jnp.maximum(part, (warmup - 1.0) / (jnp.asarray(step, jnp.float32) + warmup))
    return jax.tree.map(lambda m, p: m + part.astype(m.dtype) * (p - m), mean, params)
