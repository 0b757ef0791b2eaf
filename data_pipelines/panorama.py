"""Views cut out of 360-degree panoramas, as SF-XL's are (Berton et al., ICCV 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.images import Array, Encoded, ImageError, Size, pixels

SF_XL: Size = (512, 3328)  # height and width of its panoramas, of which a view has 512 columns: 55 degrees


@dataclass(frozen=True, eq=False)
class Panorama:
    """How views are cut out of the panoramas of a table of images; picklable, so that it travels to workers.

    Attributes:
      size: (height, width) in pixels of all of them; the width is 360 degrees, bearings growing to the right.
      yaw: float32 [rows], degrees clockwise from north of each one's middle column; NaN where unknown.
      width: columns of a view, which sees 360 width / size[1] degrees.

    Raises:
      DataError: where a view is wider than the circle.
    """

    size: Size
    yaw: Array
    width: int

    def __post_init__(self):
        _fits(self.width, self.size, "panorama")

    def check(self, encoded: Encoded) -> None:
        """Raises ImageError, which names the file, unless its size is that of these panoramas."""
        _of_size(encoded.path, (encoded.height, encoded.width), self.size)

    def view(self, encoded: Encoded, row: int, heading: float, at_least: Size | None = None) -> Array:
        """The view of `row` under a heading, out of its checked file.

        A JPEG may be decoded at 1/2, 1/4 or 1/8, and the view is then cut out of the smaller strip: its heading is
        right to half a column of that.

        Args:
          heading: degrees clockwise from north of the view's middle column.
          at_least: (height, width) in pixels that the view must keep; None decodes every pixel.

        Returns:
          uint8 [h, w, 3], at full size [size[0], width, 3].

        Raises:
          ImageError: for a damaged file. DataError: where the panorama's yaw is unknown.
        """
        if at_least is not None:
            at_least = at_least[0], -(-at_least[1] * self.size[1] // self.width)
        strip = pixels(encoded, at_least)
        width = -(-self.width * strip.shape[1] // self.size[1])
        return cut(strip, float(self.yaw[row]), heading, width, full=strip.shape[:2], name=encoded.path)


def cut(
    panorama: Array, yaw: float, heading: float, width: int, *, full: Size = SF_XL, name: str = "panorama"
) -> Array:
    """The view under a heading; where it crosses the edge of the image it goes on at the other one.

    Args:
      panorama: uint8 [H, W, 3], 360 degrees wide, bearings growing to the right.
      yaw: degrees clockwise from north of its middle column. heading: of the view's middle column.
      width: columns of the view; it sees 360 width / W degrees.
      full: (height, width) that the panorama must have. name: for errors.

    Returns:
      uint8 [H, width, 3].

    Raises:
      DataError: for an image of another size, a heading or yaw that is not finite, or a view wider than the circle.
    """
    _of_size(name, panorama.shape[:2], full)
    if not (np.isfinite(yaw) and np.isfinite(heading)):
        raise DataError(
            f"{name}: a view of heading {heading} in a panorama of yaw {yaw}: both must be degrees. The yaw is the "
            "heading of the image in its data set"
        )
    _fits(width, full, name)
    middle = round((heading - yaw + 180) % 360 / 360 * full[1])
    return panorama[:, (middle - width // 2 + np.arange(width)) % full[1]]


def _of_size(name: str, found: Size, expected: Size) -> None:
    if tuple(found) != tuple(expected):
        raise ImageError(
            f"{name}: {found[0]}x{found[1]} pixels, but a panorama of {expected[0]}x{expected[1]} was expected, whose "
            "width is 360 degrees. Set panorama.size to the (height, width) of these panoramas, or to () for "
            "ordinary images"
        )


def _fits(width: int, full: Size, name: str) -> None:
    if not 0 < width <= full[1]:
        raise DataError(
            f"{name}: a view of {width} columns does not fit into the {full[1]} of the circle; see panorama.view"
        )
