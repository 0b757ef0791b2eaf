"""The moving average of weights against torch's, and its warm-up by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvpr.errors import UserError
from jaxvpr.training.ema import averaged

WEIGHTS = np.random.default_rng(0).normal(size=(31, 4, 3)).astype(np.float32)


def run(decay, warmup=0):
    update = jax.jit(lambda mean, w, step: averaged(mean, {"w": w}, step, decay=decay, warmup=warmup))
    mean, path = {"w": jnp.asarray(WEIGHTS[0])}, []
    for step, weight in enumerate(WEIGHTS[1:]):
        mean = update(mean, weight, jnp.int32(step))
        path.append(np.asarray(mean["w"]))
    return path


@pytest.mark.torch
@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_it_is_torchs(decay):
    import torch

    layer = torch.nn.Linear(3, 4, bias=False)
    layer.weight.data = torch.from_numpy(WEIGHTS[0].copy())
    peer = torch.optim.swa_utils.AveragedModel(layer, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay))
    peer.update_parameters(layer)  # the first one copies
    for weight, mean in zip(WEIGHTS[1:], run(decay), strict=True):
        layer.weight.data = torch.from_numpy(weight.copy())
        peer.update_parameters(layer)
        np.testing.assert_allclose(mean, peer.module.weight.detach().numpy(), atol=1e-6)


def test_the_decay_warms_up():
    mean = WEIGHTS[0].astype(np.float64)
    for step, found in enumerate(run(0.8, warmup=10)):
        decay = min(0.8, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * WEIGHTS[1 + step]
        np.testing.assert_allclose(found, mean, atol=1e-6)


@pytest.mark.parametrize(("decay", "warmup"), [(1.0, 0), (-0.1, 0), (0.9, -1)])
def test_mistakes_are_told(decay, warmup):
    with pytest.raises(UserError, match=rf"decay.*warmup.*{decay}.*{warmup}"):
        averaged({}, {}, 0, decay=decay, warmup=warmup)
