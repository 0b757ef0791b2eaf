"""Image files as the images of a batch: decoded, resized, augmented.

What an element looks like depends on the seed, the step, the stream and its position in the global batch, never on
threads, workers or hosts; so a run may stop at any step and go on with other numbers of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_pipelines.augment import Augment, crop_resize
from data_pipelines.draws import EVERYTHING, Batch, Draw, generator
from data_pipelines.errors import DataError
from data_pipelines.images import RULES, Array, Encoded, ImageError, Size, fit, pixels, read
from data_pipelines.panorama import Panorama
from data_pipelines.places import Paths


@dataclass(frozen=True)
class ImageSource:
    """Decodes image files.

    Attributes:
      paths: the file of every row.
      size: (height, width) of the images in a batch; images of other sizes are squashed to it.
      rule: one of `images.RULES`.
      augment: crop, flip and colours of a training image; None for none.
      on_error: what an unreadable image does: "raise" stops with its ImageError, "skip" gives zeros, mask False and
        bad True.
      reduce: decode JPEGs at 1/2, 1/4 or 1/8 where that is no smaller than the result. Faster and nearly the same, but
        not bit for bit what a published preprocessing gives. None: only while augmenting all images of an element.
      frames: so many images of an element, one after the other, are a clip: they get the same random numbers.
      queries_only: augment the first image (or clip) of every element, the query of a triplet, and read the others as
        without augmentation. Flip alone is the element's: all its images are mirrored, or none.
      crop_from: (height, width) that images are squashed to first; the middle `size` of that is cut out. Empty keeps
        each image's own size. Without augmentation only.
      panorama: the files are panoramas. Where a draw has a heading its view is cut out first, and everything above is
        about that view; where it has NaN the full panorama is shown.
    """

    paths: Paths
    size: Size
    rule: str = "pil_bilinear"
    augment: Augment | None = None
    on_error: str = "raise"
    reduce: bool | None = None
    frames: int = 1
    crop_from: Sequence[int] | None = None
    queries_only: bool = False
    panorama: Panorama | None = None

    def __post_init__(self):
        if self.rule not in RULES:
            raise DataError(f"no resize rule {self.rule!r}; there are {', '.join(RULES)}")
        if self.on_error not in ("raise", "skip"):
            raise DataError(f"on_error={self.on_error!r}: expected 'raise' or 'skip'")
        if self.augment is not None and self.crop_from is not None:
            raise DataError("crop_from cuts the middle out; the crops of augment are random: give one of them")
        if self.queries_only and self.augment is None:
            raise DataError("queries_only augments one image of each element: give augment")
        if self.panorama is not None and len(self.panorama.yaw) != len(self.paths):
            raise DataError(f"{len(self.panorama.yaw)} yaws of {len(self.paths)} panoramas: give each its own")

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """Decodes the elements `part` of the global batch.

        Returns:
          image: uint8 [b, H, W, 3] or [b, T, H, W, 3], zeros where the row is -1 or the file is bad.
          label: int32 [b]. row: int64, the rows.
          mask: bool [b], the draw's, and False where a file is bad.
          bad: bool [b], elements with an unreadable file (only with on_error="skip").

        Raises:
          ImageError: names the unreadable file (only with on_error="raise").
          DataError: names a panorama whose yaw is unknown.
          ValueError: where the draw has headings, but the images are not panoramas.
        """
        start, stop, _ = part.indices(len(draw.rows))
        rows = draw.rows[start:stop]
        images, unreadable = self._decoded(draw, seed, step, stream, start * draw.each, stop * draw.each)
        bad = np.logical_or.reduce(unreadable.reshape(len(rows), draw.each), axis=1)
        return {
            "image": images.reshape(*rows.shape, *images.shape[1:]),
            "label": draw.label[start:stop],
            "row": rows,
            "mask": np.logical_and(draw.mask[start:stop], ~bad),
            "bad": bad,
        }

    def read_images(self, draw: Draw, seed: int, step: int, stream: str, part: slice = EVERYTHING) -> Batch:
        """As `read`, with images in place of elements: `part` is of all images of the batch, one after the other.

        So a host may read a part of an element. Arrays are [images, ...]; label and mask are those of the element.
        """
        start, stop, _ = part.indices(draw.rows.size)
        images, bad = self._decoded(draw, seed, step, stream, start, stop)
        single = draw.by_row()
        return {
            "image": images,
            "label": single.label[start:stop],
            "row": single.rows[start:stop],
            "mask": single.mask[start:stop] & ~bad,
            "bad": bad,
        }

    def _decoded(self, draw: Draw, seed: int, step: int, stream: str, start: int, stop: int) -> tuple[Array, Array]:
        """The images from `start` to `stop` of a batch, uint8 [n, H, W, 3], and which could not be read, bool [n]."""
        rows = draw.rows.ravel()[start:stop]
        of, number = np.divmod(np.arange(start, stop), draw.each)
        view = draw.view[of]
        if self.panorama is None and not np.isnan(view).all():
            raise ValueError("this source has no panoramas: the draw's view must be NaN, not a heading")
        images = np.zeros((len(rows), *self.size, 3), np.uint8)
        unreadable = np.zeros(len(rows), bool)
        for index in np.flatnonzero(rows >= 0):
            clip = int(number[index]) // self.frames
            rng = generator(seed, step, stream, int(of[index]) * draw.each + clip * self.frames)
            try:
                images[index] = self.image(rows[index], rng, clip, float(view[index]))
            except ImageError as error:
                if self.on_error == "raise":
                    how = "To leave out what cannot be read: --config.loader.on_error=skip"
                    raise ImageError(f"{error}. {how}") from error
                unreadable[index] = True
        if self.queries_only and self.augment is not None:
            # In a stream of its own, since how many numbers the query draws depends on its file.
            for element in np.unique(of):
                if generator(seed, step, f"{stream}/flip", int(element)).random() < self.augment.flip:
                    images[of == element] = images[of == element][..., ::-1, :]
        return images, unreadable

    def image(self, row: int, rng: np.random.Generator, number: int = 0, heading: float = np.nan) -> Array:
        """uint8 [*size, 3] of one row, the `number`-th image of its element, seen under a heading of its panorama."""
        encoded = read(self.paths[row])
        full = self._full(encoded, heading)
        reduce = (self.augment is not None and not self.queries_only) if self.reduce is None else self.reduce
        augment = self._augment(number)
        if augment is None:
            image = self._pixels(encoded, row, heading, self.size if reduce and self.crop_from is None else None)
            return fit(image, self.size, self.rule, self.crop_from)
        box = augment.box(rng, full)
        # The box must keep as many pixels as the result has, so the full image needs more by full / box.
        at_least = _enlarged(self.size, full, box[2:]) if reduce else None
        decoded = augment.begin(self._pixels(encoded, row, heading, at_least), rng)
        cut = crop_resize(decoded, _scaled(box, full, decoded.shape[:2]), self.size, self.rule)
        return augment.finish(cut, rng)

    def _full(self, encoded: Encoded, heading: float) -> Size:
        """(height, width) of the image, or of the view under `heading`, with all its pixels."""
        if self.panorama is None or np.isnan(heading):
            return encoded.height, encoded.width
        self.panorama.check(encoded)
        return self.panorama.size[0], self.panorama.width

    def _pixels(self, encoded: Encoded, row: int, heading: float, at_least: Size | None) -> Array:
        if self.panorama is None or np.isnan(heading):
            return pixels(encoded, at_least)
        return self.panorama.view(encoded, row, heading, at_least)

    def _augment(self, number: int) -> Augment | None:
        if self.augment is None or not self.queries_only:
            return self.augment
        return None if number else dataclasses.replace(self.augment, flip=0.0)

    def take(self, rows: Array) -> ImageSource:
        """The source of some of the images alone."""
        panorama = self.panorama and dataclasses.replace(self.panorama, yaw=self.panorama.yaw[rows])
        return dataclasses.replace(self, paths=self.paths.take(rows), panorama=panorama)

    def names(self, rows: Array) -> list[str]:
        """The files of some rows."""
        return [self.paths[row] for row in rows]

    def read_errors(self, batch: Batch) -> list[str]:
        """Why the bad elements of a batch are bad, one line a file; a panorama may have another size than it should."""
        rows = np.unique(batch["row"][batch["bad"]])
        reasons = [why_unreadable(self.paths[row], self.panorama) for row in rows if row >= 0]
        return [reason for reason in reasons if reason]


def why_unreadable(path: str, panorama: Panorama | None = None) -> str:
    """What decoding an image file complains about; "" where it can be read."""
    try:
        encoded = read(path)
        pixels(encoded)
        if panorama is not None:
            panorama.check(encoded)
    except ImageError as error:
        return str(error)
    return ""


def _enlarged(size: Size, full: Size, box: Size) -> Size:
    return -(-size[0] * full[0] // box[0]), -(-size[1] * full[1] // box[1])


def _scaled(box: tuple[int, int, int, int], full: Size, reduced: Size) -> tuple[int, int, int, int]:
    """A box of the full image in the pixels of the reduced one, rounded outwards to integers inside it."""
    if full == reduced:
        return box
    top, left = box[0] * reduced[0] // full[0], box[1] * reduced[1] // full[1]
    bottom, right = -(-(box[0] + box[2]) * reduced[0] // full[0]), -(-(box[1] + box[3]) * reduced[1] // full[1])
    return top, left, bottom - top, right - left
