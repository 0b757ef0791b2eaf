"""A model as one StableHLO program, without our code: uint8 images or clips in, descriptors out, weights inside.

images = np.zeros((7, 512, 512, 3), np.uint8)                      # any number of images
describe = jax.export.deserialize(bytearray(Path("model.stablehlo").read_bytes())).call
descriptors = describe(images)                                     # float32 [7, D]
descriptors, answers = describe(images)                            # of a model that answers positions: float32 [7, 4]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxvpr.errors import UserError
from jaxvpr.models.platforms import plain

PLATFORMS = ("cpu", "cuda", "tpu")
# A serialised program is one flatbuffer, whose offsets are signed 32-bit numbers; the rest is for the program itself.
MOST_BYTES = 2**31 - 2**26


def program(apply: Callable[[Any, Any], Any], variables: Any, *sides: int) -> bytes:
    """The serialised program of `apply(variables, images)`, the batch size free, for `PLATFORMS`.

    Of a model that answers positions it gives two arrays, descriptors and answers float32 [B, 4].

    Args:
      apply: `(variables, images uint8 [B, *sides, 3]) -> float32 [B, D]`, normalisation inside.
      sides: (height, width), or (frames, height, width) of clips.

    Raises:
      UserError: where the weights are larger than the format holds.
    """
    size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(variables))
    if size > MOST_BYTES:
        raise UserError(
            f"the weights are {size / 2**20:,.0f} MiB, but a StableHLO file holds less than 2 GiB; write .safetensors"
        )
    batch = jax.export.symbolic_shape("batch")[0]
    images = jax.ShapeDtypeStruct((batch, *sides, 3), np.uint8)

    def describe(images: Any) -> Any:
        return apply(variables, images)

    return bytes(jax.export.export(jax.jit(plain(describe)), platforms=PLATFORMS)(images).serialize())


def parity(serialised: bytes, apply: Callable[[Any, Any], Any], variables: Any, *sides: int) -> dict[str, Any]:
    """How far a program's descriptors are from the model's, on random and constant images in batches of 1 and 3.

    Arguments are those of `program`, and what it gave.

    Returns:
      platform, and for each batch size the largest absolute difference and the smallest cosine; of answers the largest
      difference of their numbers, where both say something.
    """
    exported, ours = jax.export.deserialize(bytearray(serialised)).call, jax.jit(apply)
    differences: dict[str, Any] = {"platform": jax.default_backend()}
    for batch in (1, 3):
        images = np.random.default_rng(batch).integers(0, 256, (batch, *sides, 3), np.uint8)
        images[batch // 2, ..., : sides[-2] // 2, :, :] = 128
        given, expected = (_arrays(found) for found in (exported(images), ours(variables, images)))
        theirs, wanted = given[0], expected[0]
        lengths = np.linalg.norm(theirs, axis=1) * np.linalg.norm(wanted, axis=1)
        differences[f"batch of {batch}"] = {
            "largest difference": float(np.abs(theirs - wanted).max()),
            "smallest cosine": float(((theirs * wanted).sum(1) / np.maximum(lengths, 1e-24)).min()),
        }
        for answers, right in zip(given[1:], expected[1:], strict=True):
            apart = np.nan_to_num(np.abs(answers - right))
            differences[f"batch of {batch}"]["largest difference of answers"] = float(apart.max())
    return differences


def _arrays(found: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found)]
