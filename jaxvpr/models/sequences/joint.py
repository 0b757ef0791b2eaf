"""All frames of a clip as one image, which the aggregator describes."""

import flax.linen as nn
import jax.numpy as jnp

from jaxvpr.models.features import Features


class Joint(nn.Module):
    """The features of all frames, frame below frame, as one map for the aggregator: with netvlad this is SeqVLAD.

    Mereu et al., "Learning Sequential Descriptors for Sequence-Based Visual Place Recognition", RA-L 2022. It is for
    aggregators that take cells as a set: netvlad, supervlad, vlad, salad, gem, spoc, mac, seqpool, encoder. Their
    descriptors do not depend on the order of the frames, and are as long for clips of any length, images included.
    """

    of_features = True

    def __call__(self, features: Features) -> Features:
        """A map `[B, F, h, w, C]` as `[B, F h, w, C]`; tokens `[B, F, C]` as their mean, float32 `[B, C]`."""
        batch, frames, rows, *rest = features.map.shape
        token = features.token
        if token is not None and token.ndim == 3:
            token = jnp.mean(token, 1, jnp.float32)
        return Features(features.map.reshape(batch, frames * rows, *rest), token)
