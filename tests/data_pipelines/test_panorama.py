"""Views of a panorama whose columns are painted with the bearing they look at."""

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.panorama import SF_XL, cut


def painted(yaw, full=SF_XL):
    """Two colours hold each column's bearing in 65,536ths of the circle, worked out from the middle column."""
    away = (np.arange(full[1]) + 0.5 - full[1] / 2) / full[1] * 360
    code = np.floor((yaw + away) % 360 / 360 * 65536).astype(int)
    columns = np.stack([code // 256, code % 256, np.zeros_like(code)], 1).astype(np.uint8)
    return np.broadcast_to(columns, (full[0], *columns.shape)).copy()


def bearings(view):
    return (view[0, :, 0].astype(int) * 256 + view[0, :, 1]) / 65536 * 360


@pytest.mark.parametrize("yaw", [0, 37.5, 180, 359])
@pytest.mark.parametrize("heading", [0, 1, 90, 200.25, 359.9])
def test_a_view_looks_where_it_is_asked_to(yaw, heading):
    view = cut(painted(yaw), yaw, heading, 512)
    assert view.shape == (512, 512, 3)
    found = bearings(view)
    middle = (found[255] + (found[256] - found[255]) % 360 / 2) % 360
    column = 360 / SF_XL[1]
    assert abs((middle - heading + 180) % 360 - 180) <= column
    np.testing.assert_allclose(np.diff(found) % 360, column, atol=0.01, err_msg="no seam")
    assert (found[-1] - found[0]) % 360 == pytest.approx(511 * column, abs=0.01)


def test_the_whole_circle_is_the_panorama_turned():
    panorama = painted(0, (2, 36))
    np.testing.assert_array_equal(cut(panorama, 0, 0, 36, full=(2, 36)), panorama)
    np.testing.assert_array_equal(cut(panorama, 0, 100, 36, full=(2, 36)), np.roll(panorama, -10, axis=1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"full": (512, 4096)}, r"a\.jpg.*\b512x3328\b.*\b512x4096\b"),
        ({"heading": np.nan}, r"a\.jpg.*heading nan.*yaw 0"),
        ({"width": 4000}, r"a\.jpg.*\b4000\b.*\b3328\b"),
    ],
)
def test_bad_input_is_named(change, said):
    asked = {"yaw": 0, "heading": 0, "width": 512, "name": "a.jpg", **change}
    with pytest.raises(DataError, match=said):
        cut(np.zeros((512, 3328, 3), np.uint8), **asked)
