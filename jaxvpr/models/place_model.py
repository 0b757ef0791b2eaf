"""The model that every objective trains and every evaluation runs: images or clips in, descriptors out."""

from contextlib import AbstractContextManager

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.layers import frozen_in, l2_normalise, normalised_in_groups
from jaxvpr.models.sequences.joint import Joint

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# What products (convolutions too) of float32 numbers are computed in, by JAX's names. A CPU computes float32 in any
# case. NVIDIA GPUs: float32; TF32, whose mantissa of 10 bits is that of float16; TF32. TPUs: six, three, or one pass in
# bfloat16. The last rounds the factors of matrix products to bfloat16 on both and adds up in float32; convolutions are
# at "default" then.
PRECISIONS = ("highest", "high", "default", "BF16_BF16_F32")


class PlaceModel(nn.Module):
    """A backbone and an aggregator, with the normalisation of images before and of descriptors after them.

    Clips `[B, F, H, W, 3]` need a `sequence` head, or a backbone that takes clips (it says `takes_clips`). Images go
    without the head, and are then described as the frames of a clip are.

    Attributes:
      backbone: module, `(images [B, H, W, 3], train) -> Features`.
      aggregator: module, `(Features, train) -> [B, D]`.
      mean, std: of the three colours of images in [0, 1], as the backbone's weights expect them.
      l2_after: descriptors are of unit length. Without, they are as the aggregator makes them: some originals rank
        those.
      precision, head_precision: of the products of float32 numbers in backbone and aggregator, one of `PRECISIONS`;
        those of bfloat16 numbers are what they are.
      train_precision: of both in training, where that is another; empty for the same.
      batch_norm_images: in training, BatchNorm takes the batch in groups of so many images or frames; 0: whole.
      sequence: a head of `models.SEQUENCES`, `(descriptors of frames [B, F, D], train) -> [B, D']`; where it is
        `of_features` it stands before the aggregator and takes and gives `Features`.
      non_local: module between backbone and aggregator, `map [B, F, h, w, C] -> the same shape`.
      position: a head of `models.POSITIONS`, `(descriptors [B, D], train) -> raw [B, numbers]`, whose `coding` says
        what the numbers mean. A call describes and does without it; `located` and `of_descriptors` answer.
    """

    backbone: nn.Module
    aggregator: nn.Module
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    l2_after: bool = True
    precision: str = "highest"
    head_precision: str = "highest"
    train_precision: str = ""
    batch_norm_images: int = 0
    sequence: nn.Module | None = None
    non_local: nn.Module | None = None
    position: nn.Module | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Describes images or clips.

        Args:
          images: [B, H, W, 3], or clips [B, F, H, W, 3], RGB in [0, 255], uint8 or floating point.
          train: normalise by the batch and update `batch_stats` (a mutable collection then).

        Returns:
          float32 [B, D], of unit length with `l2_after`.

        Raises:
          ValueError: for images of another shape, or too small for the backbone; for clips of another length than
            the head's, or where the model describes images alone.
        """
        features = self.features(images, train)
        with self._products(self.head_precision, train), normalised_in_groups(self.batch_norm_images):
            describe = self._of_images if images.ndim == 4 else self._of_clips
            descriptors = self._finished(describe(features, train))
        if self.position is not None and self.is_initializing():
            self.of_descriptors(descriptors, train)
        return descriptors

    def located(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Where images or clips were taken, as the head `position` says it: raw, float32 [B, numbers].

        Arguments and errors are those of a call, and of `of_descriptors`.
        """
        return self.of_descriptors(self(images, train), train)

    def of_descriptors(self, descriptors: jax.Array, train: bool = False) -> jax.Array:
        """What the head `position` says of descriptors [B, D], raw: float32 [B, numbers]. Nothing else runs.

        Raises:
          ValueError: for a model without such a head.
        """
        if self.position is None:
            raise ValueError("this model describes images and answers no position: give it a head, model.position")
        with self._products(self.head_precision, train):
            return self.position(descriptors, train)

    def pooled(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Features of the backbone alone, for classifiers: its token, else the mean of its map; of a clip their mean.

        Arguments and errors are those of a call. Returns float32 [B, C], of any length.
        """
        features = self.features(images, train)
        found = features.map if features.token is None else features.token
        axes = tuple(range(1, found.ndim - 1))
        return jnp.mean(found, axes, jnp.float32) if axes else found.astype(jnp.float32)

    def regions(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Describes images and parts of them: the full image, halves and quarters, as `aggregators.vlad.REGIONS`.

        Arguments and errors are those of a call. Returns float32 [B, 9, D]; the first is that of a call.

        Raises:
          ValueError: for an aggregator that has no regions (`netvlad` has), or clips.
        """
        if images.ndim != 4:
            raise ValueError(f"regions are those of images [B, H, W, 3], not of clips of shape {images.shape}")
        if not hasattr(self.aggregator, "regions"):
            raise ValueError(f"the aggregator {type(self.aggregator).__name__} has no regions; use netvlad")
        features = self.features(images, train)
        with self._products(self.head_precision, train), normalised_in_groups(self.batch_norm_images):
            return self._finished(self.aggregator.regions(features, train))

    def features(self, images: jax.Array, train: bool = False) -> Features:
        """What the backbone gives to the aggregator. Arguments and errors are those of a call.

        Of clips it is a map `[B, F, h, w, C]` and a token of each frame `[B, F, C]`, or of the clip `[B, C]` where the
        backbone takes clips.
        """
        if images.ndim not in (4, 5) or images.shape[-1] != 3:
            raise ValueError(f"images of shape {images.shape}, expected [B, H, W, 3], or clips [B, F, H, W, 3]")
        lead, whole = images.shape[:-3], bool(getattr(self.backbone, "takes_clips", False))
        self._check_clips(lead, whole)
        fold = images.ndim == 5 and not whole
        with self._products(self.precision, train), normalised_in_groups(self.batch_norm_images):
            shown = images.reshape(-1, *images.shape[2:]) if fold else images
            features = self.backbone(normalise(shown, self.mean, self.std), train)
            if 0 in features.map.shape:
                height, width = images.shape[-3:-1]
                raise ValueError(f"images of {height}x{width} pixels are too small for this backbone")
            features = features.unfolded(*lead) if fold else features
            return features if self.non_local is None else self._attended(self.non_local, features)

    def of_features(self, features: Features, train: bool = False) -> jax.Array:
        """Describes images by what `features` gave of them, in any floating type; the backbone does not run.

        Returns float32 [B, D], as a call does.
        """
        shown = jax.tree.map(lambda x: x.astype(self.backbone.dtype), features)
        with self._products(self.head_precision, train), normalised_in_groups(self.batch_norm_images):
            return self._finished(self._of_images(shown, train))

    def frozen_paths(self) -> tuple[str, ...]:
        """Regular expressions of the parameter paths that do not train under the options of the two parts.

        They name frozen parameters and those that nothing reads. No gradient is stopped for them: an
        optimiser must leave them out altogether, or its weight decay would shrink them.
        """
        parts = ("backbone", "aggregator", "sequence", "non_local", "position")
        return tuple(f"^{path}" for part in parts for path in frozen_in(getattr(self, part), part))

    @staticmethod
    def _attended(block: nn.Module, features: Features) -> Features:
        """Features after a non-local block, for which an image is a clip of one frame."""
        found = features.map
        clips = found if found.ndim == 5 else found[:, None]
        return features._replace(map=block(clips).reshape(found.shape))

    def _of_images(self, features: Features, train: bool) -> jax.Array:
        """Descriptors `[B, D]` of images, or of the frames of clips."""
        found = self.aggregator(features, train)
        return l2_normalise(found) if getattr(self.sequence, "l2_frames", False) else found

    def _of_clips(self, features: Features, train: bool) -> jax.Array:
        """Descriptors `[B, D]` of clips from their features."""
        head = self.sequence or Joint()  # a backbone that takes clips needs none
        if getattr(head, "of_features", False):
            return self.aggregator(head(features), train)
        frames = self._of_images(features.folded(), train)
        return head(frames.reshape(*features.map.shape[:2], -1), train)

    def _check_clips(self, lead: tuple[int, ...], whole: bool) -> None:
        """Raises ValueError where the model does not take clips of `lead` = (B, F); (B,) are images."""
        head = type(self.sequence).__name__
        if whole and self.sequence is not None and not getattr(self.sequence, "of_features", False):
            raise ValueError(
                f"the backbone {type(self.backbone).__name__} describes a clip as a whole and its frames not at all: "
                f"model.sequence takes 'joint' or '' with it, not {head}"
            )
        if len(lead) == 1:
            return
        if self.sequence is None and not whole:
            raise ValueError(
                f"a clip of {lead[1]} frames, but this model describes images [B, H, W, 3]: give it a head for clips, "
                "such as model.sequence=joint"
            )
        wanted = getattr(self.sequence, "frames", 0)
        if wanted and lead[1] != wanted:
            raise ValueError(
                f"a clip of {lead[1]} frames, but {head} takes {wanted} frames and no other number "
                "(model.sequence_options.frames)"
            )

    def _finished(self, descriptors: jax.Array) -> jax.Array:
        return l2_normalise(descriptors) if self.l2_after else descriptors

    def _products(self, own: str, train: bool) -> AbstractContextManager[None]:
        """Within it, what is traced multiplies at a precision, forward and backward, unless it names one itself."""
        return jax.default_matmul_precision((train and self.train_precision) or own)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Images [B, H, W, 3] or clips in [0, 255] as float32 `(images / 255 - mean) / std`."""
    x, row = images.astype(jnp.float32) / 255, (1,) * (images.ndim - 1) + (-1,)
    centre = jnp.asarray(mean, jnp.float32).reshape(row)
    spread = jnp.asarray(std, jnp.float32).reshape(row)
    return (x - centre) / spread
