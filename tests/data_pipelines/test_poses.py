"""Poses in space on the ground: quaternions, which way is up, east, north and heading, in every frame of the world."""

import cv2
import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.poses import FRAMES, on_the_ground, rotations, upward

AXES = {sign + name: (-1 if sign else 1) * np.eye(3)["xyz".index(name)] for name in "xyz" for sign in ("", "-")}


def looking(heading, up="z", pitch=0.0):
    """Camera axes in the world, as columns: x right, y down, z forward; clockwise `heading`, `pitch` above level."""
    heading, pitch = np.radians(heading), np.radians(pitch)
    (east, north), top = (AXES[axis] for axis in FRAMES[up]), AXES[up]
    level = np.sin(heading) * east + np.cos(heading) * north
    forward = np.cos(pitch) * level + np.sin(pitch) * top
    right = np.cos(heading) * east - np.sin(heading) * north
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def test_quaternions_turn_as_opencvs_rotation_vectors_do():
    vectors = np.random.default_rng(0).normal(size=(50, 3))
    angle = np.linalg.norm(vectors, axis=1, keepdims=True)
    quaternions = np.concatenate([np.cos(angle / 2), np.sin(angle / 2) * vectors / angle], axis=1)
    wanted = np.stack([cv2.Rodrigues(vector)[0] for vector in vectors])
    assert np.allclose(rotations(quaternions), wanted) and np.allclose(rotations(-3 * quaternions), wanted)


@pytest.mark.parametrize("up", FRAMES)
def test_a_frame_is_right_handed_so_that_no_map_is_mirrored(up):
    east, north = (AXES[axis] for axis in FRAMES[up])
    assert np.array_equal(np.cross(east, north), AXES[up])
    assert np.linalg.det(looking(40, up, 10)) == pytest.approx(1)


@pytest.mark.parametrize("up", FRAMES)
def test_cameras_that_look_around_agree_on_what_is_up(up):
    around = np.stack([looking(heading, up, -10) for heading in range(0, 360, 36)])
    assert upward(around, "mall") == up
    assert upward(np.stack([looking(0, up, 25)]), "mall") == up


def test_cameras_on_their_side_need_to_be_told():
    rolled = np.stack([looking(heading)[:, [1, 0, 2]] * [1, -1, 1] for heading in range(0, 360, 36)])
    with pytest.raises(DataError, match=r"mall.*\bup\b.*\['z', '-z'"):
        upward(rolled, "mall")
    with pytest.raises(DataError, match=r"mall.*no image.*pose"):
        upward(rolled[:0], "mall")


@pytest.mark.parametrize("up", FRAMES)
def test_the_same_scene_in_every_frame(up):
    """Cameras at known metres east, north and above, written in the frame's axes, come back as they were."""
    stand = np.array([[3.0, -7.0, 1.5], [0.0, 2.0, 1.4], [10.0, 0.5, -2.0]])
    headings = [0.0, 90.0, 350.0]
    (east, north), top = (AXES[axis] for axis in FRAMES[up]), AXES[up]
    columns = on_the_ground(
        np.stack([looking(heading, up, 20) for heading in headings]), stand @ np.stack([east, north, top]), up
    )
    assert columns["east"].tolist() == stand[:, 0].tolist() and columns["north"].tolist() == stand[:, 1].tolist()
    assert columns["heading"] == pytest.approx(headings, abs=1e-4) and columns["heading"].dtype == np.float32
    assert (columns["heading"] < 360).all()


def test_what_looks_straight_up_has_no_heading():
    views = np.stack([looking(30, pitch=89), looking(30, pitch=90), looking(30, pitch=-90), looking(-1e-9)])
    heading = on_the_ground(views, np.zeros((4, 3)), "z")["heading"]
    assert heading[0] == pytest.approx(30, abs=1e-3) and np.isnan(heading[1:3]).all() and heading[3] == 0
    with pytest.raises(DataError, match=r"up='w'.*\['z', '-z', 'y'"):
        on_the_ground(views, np.zeros((4, 3)), "w")
