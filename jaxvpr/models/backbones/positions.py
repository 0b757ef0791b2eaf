"""Position embeddings of square grids, interpolated to other grids as PyTorch's bicubic interpolation does it."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.models.resizing import cubic, weights


def grid_of(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches in an image.

    Raises:
      ValueError: for sides that are not multiples of `patch`; names the nearest that are.
    """
    if height % patch or width % patch or not height or not width:
        near = " or ".join(f"{h}x{w}" for h in _nearest(height, patch) for w in _nearest(width, patch))
        raise ValueError(f"images of {height}x{width} pixels: both sides must be multiples of {patch}, such as {near}")
    return height // patch, width // patch


def _nearest(side: int, patch: int) -> list[int]:
    below = max(side // patch, 1) * patch
    return [below] if side <= below else [below, below + patch]


def interpolate(embedding: jax.Array, grid: tuple[int, int], offset: float = 0.0, antialias: bool = False) -> jax.Array:
    """A class token's embedding and those of a square grid, for the grid of another image.

    Args:
      embedding: [1, 1 + side², C].
      grid: (rows, columns).
      offset: 0, or 0.1 where the original interpolates by the factor (rows + 0.1) / side instead of to a size, which
        moves the points it reads: DINO's guard against rounding, kept since weights were trained with it.
      antialias: widen the filter where the grid shrinks, and no offset; PyTorch takes another cubic filter then.

    Returns:
      float32 [1, 1 + rows columns, C]; the same numbers where the grid has the embedding's own shape.
    """
    embedding = embedding.astype(jnp.float32)
    side, channels = square_side(embedding.shape[1] - 1), embedding.shape[-1]
    if grid == (side, side):
        return embedding
    cells = embedding[0, 1:].reshape(side, side, channels)
    if antialias:
        rows, columns = (weights(side, n, "tensor_bicubic_antialias") for n in grid)
    else:
        rows, columns = (bicubic(side, n, side / (n + offset)) for n in grid)
    cells = jnp.einsum("hi,ijc->hjc", rows, cells, precision=jax.lax.Precision.HIGHEST)
    cells = jnp.einsum("wj,hjc->hwc", columns, cells, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([embedding[:, :1], cells.reshape(1, -1, channels)], 1)


def square_side(cells: int) -> int:
    """The side of a square of `cells`.

    Raises:
      ValueError: where they do not form one.
    """
    side = round(cells**0.5)
    if side * side != cells:
        raise ValueError(f"{cells} position embeddings do not form a square grid; the nearest is {side}x{side}")
    return side


@lru_cache(maxsize=256)
def bicubic(inside: int, outside: int, step: float) -> np.ndarray:
    """float32 [outside, inside]: PyTorch's bicubic interpolation of one axis without antialiasing.

    Args:
      step: distance of two points that are read, in cells of the input: inside / outside, or 1 / scale_factor.
    """
    centres = step * (np.arange(outside) + 0.5) - 0.5
    first = np.floor(centres).astype(int) - 1
    matrix = np.zeros((outside, inside))
    for tap in range(4):
        # Points beyond the border repeat it, and so their weights add up there.
        cells = np.clip(first + tap, 0, inside - 1)
        np.add.at(matrix, (np.arange(outside), cells), cubic(first + tap - centres, -0.75))
    matrix = matrix.astype(np.float32)
    matrix.flags.writeable = False  # one array for all callers
    return matrix
