"""3x3 convolutions of stride 1: lax's and, for XLA's CPU, Winograd's F(2x2, 3x3) with its gradients.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: 2 x 2 outputs, a tile, take 16 products
instead of 36. These are 16 matrix products over all tiles; what is before and after them is written as sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxvpr.models.platforms import by_platform

Matrix = Sequence[Sequence[float]]
Grid = Sequence[Sequence[jax.Array]]
# What is taken of a tile's four rows (or columns) of inputs, of the kernel's three, and of four products.
OF_INPUTS: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
OF_KERNEL: Matrix = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
OF_PRODUCTS: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))
# Bytes held at a time beside inputs and outputs, about; larger maps are computed in bands of rows.
MOST_BYTES = 2**26
# Channels on either side, and pixels of a batch: with fewer, the sums around the products take what those save.
FEWEST, FEWEST_PIXELS = 128, 128
# Rows and columns of a map: what is gained at fewer (4 % of a step of the embedded city's network) is not worth other
# roundings than those of its published runs.
SMALLEST = 7


def pays(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> bool:
    """Whether `conv3x3` computes this convolution, and faster on a CPU than lax's: a rule of shapes and types alone."""
    shaped = kernel.shape[:2] == (3, 3) and stride == padding == 1 and x.dtype == kernel.dtype == jnp.float32
    # Of a batch of unknown size (`jax.export`) no bands can be made.
    if not shaped or not isinstance(x.size, int):
        return False
    large = min(x.shape[1:3]) >= SMALLEST and x.size // x.shape[-1] >= FEWEST_PIXELS
    return large and min(kernel.shape[2:]) >= FEWEST


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`[B, H, W, C]` to `[B, H, W, K]` by a kernel `[3, 3, C, K]`, padded by 1; both float32.

    Lax's convolution has the precision of `jax.default_matmul_precision`, and so have its gradients, which are traced
    when that is over; the sums on a CPU have all digits of float32.
    """
    return _conv(x, kernel, jax.config.jax_default_matmul_precision)  # type: ignore[attr-defined]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    return by_platform(_winograd, partial(_lax, precision=precision), x, kernel)


def _forward(x: jax.Array, kernel: jax.Array, precision: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(x, kernel, precision), (x, kernel)


def _backward(precision: Any, saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    conv = partial(_lax, precision=precision)

    def by_inputs(dy: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: conv(x, kernel), x)(dy)[0]

    def by_kernel(x: jax.Array, dy: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda kernel: conv(x, kernel), kernel)(dy)[0]

    dx = by_platform(partial(_winograd, turned=True), by_inputs, dy, kernel)
    return dx, by_platform(_by_kernel, by_kernel, x, dy)


_conv.defvjp(_forward, _backward)


def _lax(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=axes, precision=precision)


@partial(jax.jit, static_argnames="turned", inline=True)
def _winograd(x: jax.Array, kernel: jax.Array, turned: bool = False) -> jax.Array:
    """The convolution; `turned` is the one from outputs to inputs, by the kernel turned round: the gradient by `x`."""
    (batch, height, width, _), features = x.shape, kernel.shape[2 if turned else 3]
    bands, rows = _bands(x, features)
    planes, weights = _planes(x, bands * rows, 1), _mixed(OF_KERNEL, kernel[::-1, ::-1] if turned else kernel)

    def put(band: Any, y: jax.Array) -> jax.Array:
        tiles = _mixed(OF_INPUTS, _tiles(planes, band * rows, rows))
        outputs = _mixed(OF_PRODUCTS, _products(tiles, weights, (3, 1 if turned else 0)))
        pixels = jnp.stack([jnp.stack(line, 3) for line in outputs], 2).reshape(batch, 2 * rows, -1, features)
        return pixels if bands == 1 else lax.dynamic_update_slice_in_dim(y, pixels, 2 * rows * band, 1)

    y = jnp.zeros((batch, 2 * rows * bands, width + width % 2, features), x.dtype)
    return _in_turn(bands, put, y)[:, :height, :width]


@partial(jax.jit, inline=True)
def _by_kernel(x: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient by the kernel: the transpose of what is done to it, tile by tile."""
    channels, features = x.shape[-1], dy.shape[-1]
    bands, rows = _bands(x, features)
    planes, given = _planes(x, bands * rows, 1), _planes(dy, bands * rows, 0)

    def add(band: Any, total: list[list[jax.Array]]) -> list[list[jax.Array]]:
        tiles = _mixed(OF_INPUTS, _tiles(planes, band * rows, rows))
        outputs = [[lax.dynamic_slice_in_dim(plane, band * rows, rows, 1) for plane in line] for line in given]
        found = _products(_rows(tiles), _rows(_mixed(list(zip(*OF_PRODUCTS, strict=True)), outputs)), (0, 0))
        return [[a + b for a, b in zip(*lines, strict=True)] for lines in zip(total, found, strict=True)]

    nothing = [[jnp.zeros((channels, features), x.dtype)] * 4] * 4
    weights = _mixed(list(zip(*OF_KERNEL, strict=True)), _in_turn(bands, add, nothing))
    return jnp.stack([jnp.stack(line) for line in weights])


def _in_turn(bands: int, function: Any, value: Any) -> Any:
    """`function(band, value)`, band by band."""
    return function(0, value) if bands == 1 else lax.fori_loop(0, bands, function, value)


def _bands(x: jax.Array, features: int) -> tuple[int, int]:
    """How many bands, and rows of tiles in each, so that what a band's tiles are made of and give stays small."""
    batch, height, width, channels = x.shape
    high, wide = -(-height // 2), -(-width // 2)
    whole = 16 * batch * high * wide * (channels + features) * x.dtype.itemsize
    rows = -(-high // -(-whole // MOST_BYTES))
    return -(-high // rows), rows


def _planes(x: jax.Array, high: int, padding: int) -> Grid:
    """Rows and columns of the padded `x` in turn, 2 x 2 arrays of at least `high` rows, for slices without steps."""
    _, height, width, _ = x.shape
    lower, right = 2 * high - height + padding, width % 2 + padding
    x = jnp.pad(x, ((0, 0), (padding, lower), (padding, right), (0, 0)))
    return [[x[:, i::2, j::2] for j in range(2)] for i in range(2)]


def _tiles(planes: Grid, first: Any, rows: int) -> Grid:
    """The 4 x 4 inputs of every tile in `rows` rows of tiles from `first` on, `[B, rows, W / 2, C]` each."""
    high = [[lax.dynamic_slice_in_dim(plane, first, rows + 1, 1) for plane in line] for line in planes]
    wide = high[0][0].shape[2] - 1

    def of(i: int, j: int) -> jax.Array:
        return high[i % 2][j % 2][:, i // 2 : i // 2 + rows, j // 2 : j // 2 + wide]

    return [[of(i, j) for j in range(4)] for i in range(4)]


def _products(left: Grid, right: Grid, axes: tuple[int, int]) -> Grid:
    """Matrix products of what is at the same place, summed over one axis of each."""
    over = (axes[:1], axes[1:]), ((), ())
    return [[lax.dot_general(a, b, over) for a, b in zip(*line, strict=True)] for line in zip(left, right, strict=True)]


def _rows(grid: Grid) -> Grid:
    """Arrays `[..., C]` as `[n, C]`."""
    return [[x.reshape(-1, x.shape[-1]) for x in line] for line in grid]


def _mixed(matrix: Matrix, grid: Any) -> list[list[jax.Array]]:
    """`matrix grid matrix^T` of a grid of arrays."""
    wide = range(len(grid[0]))
    half = [[_mix(row, [line[j] for line in grid]) for j in wide] for row in matrix]
    return [[_mix(row, line) for row in matrix] for line in half]


def _mix(row: Sequence[float], values: Sequence[jax.Array]) -> jax.Array:
    """The sum of `values`, each times its factor in `row`."""
    terms = [value if factor == 1 else factor * value for factor, value in zip(row, values, strict=True) if factor]
    return sum(terms[1:], terms[0])
