"""Max pooling: one operation of lax and, as XLA is slow at that and its gradient on CPUs, slices with the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial, reduce
from operator import and_, invert
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxvpr.models.platforms import by_platform


class Window(NamedTuple):
    """Side, step, and the padding before and after rows and columns."""

    size: int
    stride: int
    sides: tuple[tuple[int, int], ...]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, window: Window) -> jax.Array:
    """The largest of every window of `[B, H, W, C]`; of equal ones, the first gets the gradient."""
    if min(_counts(x, window)) < 1:  # there is no window, and nothing to be fast at
        return _lax(x, window)
    return by_platform(partial(_sliced, window=window), partial(_lax, window=window), x)


def _forward(x: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
    return max_pool(x, window), x


def _backward(window: Window, x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    return (by_platform(partial(_sliced_gradient, window=window), partial(_lax_gradient, window=window), x, dy),)


max_pool.defvjp(_forward, _backward)


def _lax(x: jax.Array, window: Window) -> jax.Array:
    return nn.max_pool(x, (window.size,) * 2, (window.stride,) * 2, window.sides)


def _lax_gradient(x: jax.Array, dy: jax.Array, window: Window) -> jax.Array:
    return jax.vjp(partial(_lax, window=window), x)[1](dy)[0]


@partial(jax.jit, static_argnames="window", inline=True)
def _sliced(x: jax.Array, window: Window) -> jax.Array:
    padded, (rows, columns) = _padded(x, window.sides), _counts(x, window)
    lines = reduce(jnp.maximum, _views(padded, 2, window, columns))
    return reduce(jnp.maximum, _views(lines, 1, window, rows))


@partial(jax.jit, static_argnames="window", inline=True)
def _sliced_gradient(x: jax.Array, dy: jax.Array, window: Window) -> jax.Array:
    """The gradient by `x`. Windows are added in lax's order, and of NaN the one that lax chooses is chosen."""
    (size, stride, ((top, _), (left, _))), (_, height, width, _) = window, x.shape
    # In cells of stride x stride pixels, a window lies in `reach` x `reach` of them, from their first pixel on.
    reach, (rows, columns) = -(-size // stride), _counts(x, window)
    high = max(rows + reach - 1, -(-(top + height) // stride))
    wide = max(columns + reach - 1, -(-(left + width) // stride))
    sides = ((top, high * stride - top - height), (left, wide * stride - left - width))
    views = _views(_padded(x, sides), 2, window, columns)
    line, in_line = _choices(views, views)
    largest = reduce(jnp.maximum, views)
    _, in_column = _choices(_views(line, 1, window, rows), _views(largest, 1, window, rows))
    zero = jnp.zeros((), dy.dtype)

    def of_pixel(row: int, column: int) -> Iterator[jax.Array]:
        """What every cell gets at one of its pixels: of each window that reaches it, the first ones first."""
        for i, j in ((i, j) for i in reversed(range(reach)) for j in reversed(range(reach))):
            p, q = stride * i + row, stride * j + column
            if p < size and q < size:
                chosen = in_column[p] & _views(in_line[q], 1, window, rows)[p]
                around = ((i, high - rows - i, 0), (j, wide - columns - j, 0))
                yield lax.pad(jnp.where(chosen, dy, zero), zero, ((0, 0, 0), *around, (0, 0, 0)))

    nothing = jnp.zeros((x.shape[0], high, wide, x.shape[3]), dy.dtype)
    cells = [[reduce(jnp.add, of_pixel(row, column), nothing) for column in range(stride)] for row in range(stride)]
    pixels = jnp.stack([jnp.stack(line, 3) for line in cells], 2).reshape(-1, high * stride, wide * stride, x.shape[3])
    return pixels[:, top : top + height, left : left + width]


def _choices(values: Sequence[jax.Array], largest: Sequence[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
    """What is held after `values` in turn, where one stays unless it is less than the next, and a mask of each.

    Nothing is less than NaN, but nothing that is held against it stays either: the next is taken, as lax does.

    Args:
      largest: of the values that each of `values` stands for; NaN if any of these is.
    """
    held, stays = values[0], []
    for value, most in zip(values[1:], largest[1:], strict=True):
        stays.append(held >= most)
        held = jnp.where(stays[-1], held, value)
    taken = [jnp.ones_like(held, bool), *map(invert, stays)]
    return held, [reduce(and_, stays[i:], mask) for i, mask in enumerate(taken)]


def _views(x: jax.Array, axis: int, window: Window, count: int) -> list[jax.Array]:
    """The elements of `count` windows along an axis: all first ones, all second ones, ..."""
    last = window.stride * (count - 1) + 1
    return [lax.slice_in_dim(x, i, i + last, window.stride, axis) for i in range(window.size)]


def _padded(x: jax.Array, sides: Sequence[tuple[int, int]]) -> jax.Array:
    return lax.pad(x, jnp.array(-jnp.inf, x.dtype), ((0, 0, 0), *((*side, 0) for side in sides), (0, 0, 0)))


def _counts(x: jax.Array, window: Window) -> tuple[int, int]:
    """Windows in a column and in a row."""
    lengths = (length + sum(side) for length, side in zip(x.shape[1:3], window.sides, strict=True))
    rows, columns = ((length - window.size) // window.stride + 1 for length in lengths)
    return rows, columns
