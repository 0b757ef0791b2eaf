"""Views cut out of panoramas that show the whole circle, as SF-XL's do (Berton et al., ICCV 2023)."""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.images import Array, Size

SF_XL: Size = (512, 3328)  # height and width of its panoramas, of which a view has 512 columns: 55 degrees


def cut(
    panorama: Array, yaw: float, heading: float, width: int, *, full: Size = SF_XL, name: str = "panorama"
) -> Array:
    """The view under a heading; where it crosses the edge of the image it goes on at the other one.

    Args:
      panorama: uint8 [H, W, 3], 360 degrees wide, bearings growing to the right.
      yaw: degrees clockwise from north of its middle column. heading: of the view's middle column.
      width: columns of the view; it sees 360 width / W degrees.
      full: (height, width) that the panorama must have. name: what an error calls it.

    Returns:
      uint8 [H, width, 3].

    Raises:
      DataError: for an image of another size, a heading or yaw that is no number, or a view wider than the circle.
    """
    if panorama.shape[:2] != tuple(full):
        raise DataError(
            f"{name}: {panorama.shape[0]}x{panorama.shape[1]} pixels, but a panorama of {full[0]}x{full[1]} was "
            "expected, whose width is the whole circle. Give the size of these panoramas, or read whole images"
        )
    if not (np.isfinite(yaw) and np.isfinite(heading)):
        raise DataError(f"{name}: a view of heading {heading} in a panorama of yaw {yaw}: both must be degrees")
    if not 0 < width <= full[1]:
        raise DataError(f"{name}: a view of {width} columns does not fit into the {full[1]} of the circle")
    middle = round((heading - yaw + 180) % 360 / 360 * full[1])
    return panorama[:, (middle - width // 2 + np.arange(width)) % full[1]]
