"""Winograd's convolution against sums in float64, and where it is used."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvpr.models import winograd
from jaxvpr.models.layers import Conv
from jaxvpr.parallel.mesh import make_mesh

RNG = np.random.default_rng(0)
MANY = winograd.FEWEST


def normal(*shape, scale=1.0):
    return (scale * RNG.normal(size=shape)).astype(np.float32)


def work(x, kernel, dy):
    """The convolution and its gradients by both."""
    y, pull = jax.vjp(winograd.conv3x3, x, kernel)
    return y, *pull(dy)


def summed(x, kernel, dy):
    """The same in float64, tap by tap."""
    x, kernel, dy = (array.astype(np.float64) for array in (x, kernel, dy))
    (_, height, width, _), around = x.shape, ((0, 0), (1, 1), (1, 1), (0, 0))
    padded, given = np.pad(x, around), np.pad(dy, around)
    y, dx, dw = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(kernel)
    for i in range(3):
        for j in range(3):
            seen = padded[:, i : i + height, j : j + width]
            y += seen @ kernel[i, j]
            dw[i, j] = np.einsum("bhwc,bhwk->ck", seen, dy)
            dx += given[:, 2 - i : 2 - i + height, 2 - j : 2 - j + width] @ kernel[i, j].T
    return y, dx, dw


@pytest.mark.parametrize(("shape", "bands"), [((2, 7, 10), 1), ((1, 8, 5), 1), ((2, 13, 6), 3)])
def test_values_and_gradients_are_the_sums_whole_and_in_bands(shape, bands, monkeypatch):
    monkeypatch.setattr(winograd, "MOST_BYTES", 2**26 if bands == 1 else 2**16)
    channels, features = 24, 40
    x, dy = normal(*shape, channels), normal(*shape, features)
    kernel = normal(3, 3, channels, features, scale=0.1)
    assert winograd._bands(x, features)[0] == bands
    for found, wanted in zip(jax.jit(work)(x, kernel, dy), summed(x, kernel, dy), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=8e-7 * np.abs(wanted).max())


@pytest.mark.parametrize(("function", "arrays"), [(winograd._winograd, 1), (winograd._by_kernel, 2)])
def test_bands_bound_what_is_held(function, arrays, monkeypatch):
    monkeypatch.setattr(winograd, "MOST_BYTES", 2**20)
    x, kernel = (jax.ShapeDtypeStruct(shape, np.float32) for shape in ((2, 128, 96, 16), (3, 3, 16, 16)))
    given = (x, kernel) if arrays == 1 else (x, x)
    held = jax.jit(function).lower(*given).compile().memory_analysis().temp_size_in_bytes
    mib = x.size * 4 / 2**20
    # Beside what MOST_BYTES says, the arrays once more as planes. The tiles of all are 16 x (1.5 + 1.5) / 4 = 12 MiB.
    assert mib == 1.5 and held / 2**20 < 1 + (arrays + 1) * mib < 12


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_only_a_program_for_a_cpu_has_it(platform):
    layer = Conv(MANY, 3, padding=1)
    x, kernel = jnp.ones((2, 8, 8, MANY)), jnp.ones((3, 3, MANY, MANY))

    def gradients(kernel, x):
        with jax.default_matmul_precision("highest"):
            y, pull = jax.vjp(lambda kernel, x: layer.apply({"params": {"kernel": kernel}}, x), kernel, x)
        return y, *pull(x)

    program = jax.jit(gradients).trace(kernel, x).lower(lowering_platforms=(platform,)).as_text()
    of_lax = [line for line in program.splitlines() if "stablehlo.convolution" in line]
    assert len(of_lax) == (0 if platform == "cpu" else 3) and ("dot_general" in program) == (platform == "cpu")
    assert all("HIGHEST" in line for line in of_lax)


def layer_of(size=3, stride=1, padding=1, channels=MANY, features=MANY, dtype=np.float32, maps=(3, 7, 8)):
    return np.zeros((*maps, channels), dtype), np.zeros((size, size, channels, features), dtype), stride, padding


@pytest.mark.parametrize(
    "other", [{"size": 5}, {"stride": 2}, {"padding": 0}, {"channels": 64}, {"features": 64}, {"dtype": jnp.bfloat16},
              {"dtype": np.float64}, {"maps": (9, 6, 8)}, {"maps": (2, 7, 7)}],
)  # fmt: skip
def test_it_is_for_many_channels_and_pixels_in_float32_alone(other):
    assert winograd.pays(*layer_of())
    assert not winograd.pays(*layer_of(**other))


def test_a_batch_stays_on_its_devices():
    split, everywhere = (NamedSharding(make_mesh(), spec) for spec in (P("data"), P()))
    x, kernel = normal(8, 5, 4, 8), normal(3, 3, 8, 8)
    given = {"in_shardings": (split, everywhere, split), "out_shardings": (split, split, everywhere)}
    compiled = jax.jit(work, **given).lower(x, kernel, x).compile()
    program = compiled.as_text()
    assert "all-reduce" in program and not any(f"{kind}(" in program for kind in ("all-gather", "all-to-all"))
    arguments = jax.device_put((x, kernel, x), given["in_shardings"])
    for found, wanted in zip(compiled(*arguments), summed(x, kernel, x), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_it_maps_over_examples():
    x, kernel = normal(3, 1, 4, 6, 8), normal(3, 3, 8, 8)
    mapped = jax.vmap(partial(winograd.conv3x3, kernel=kernel))(x)
    np.testing.assert_allclose(mapped[:, 0], winograd.conv3x3(x[:, 0], kernel), atol=1e-5)
