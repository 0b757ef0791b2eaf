"""NAVER LABS' floors and Baidu Mall: trees written here in their formats, poses worked out by hand, every error."""

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.readers import kapture, read
from jaxvpr.retrieval.thresholds import parse_threshold

HALF = np.sqrt(0.5)


def quaternion(heading):
    """World (z up) to a level camera: a turn about z by the heading, then 90 degrees about x, multiplied out."""
    half = np.radians(heading) / 2
    return HALF * np.array([np.cos(half), np.cos(half), -np.sin(half), np.sin(half)])


def axes(heading):
    """World (z up) to such a camera, as a matrix: its rows are right, down and forward in the world."""
    s, c = np.sin(np.radians(heading)), np.cos(np.radians(heading))
    return np.array([[c, -s, 0], [0, 0, -1], [s, c, 0]])


def pose(heading, *centre):
    """The seven numbers of a kapture row for a camera at `centre`."""
    numbers = [*quaternion(heading), *(-axes(heading) @ centre)]
    return ", ".join(f"{number:.12f}" for number in numbers)


def write(root, files):
    for file, text in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


STAMP = 1575338079000000  # 2019-12-03T01:54:39
CAMERAS = "# kapture format: 1.1\n# timestamp, device_id, image_path\n"
MAPPING = {
    "sensors.txt": "# kapture format: 1.1\ncam0, basler, camera, PINHOLE, 640, 480, 500, 500, 320, 240\n",
    "records_camera.txt": (
        f"{CAMERAS}\n{STAMP + 1}, cam0, run/b.jpg\n{STAMP}, cam0, run/a.jpg\n{STAMP}, side, run/c.jpg\n"
    ),
    # The camera `side` has no pose of its own: it is 2 m to the right of the rig and looks to the rig's right.
    "rigs.txt": "# rig_id, sensor_id\nrobot, side, 0.70710678118655, 0, -0.70710678118655, 0, 0, 0, -2\n",
    "trajectories.txt": (
        f"# kapture format: 1.1\n{STAMP}, cam0, {pose(0, 10, 20, 1)}\n{STAMP + 1},cam0,{pose(90, 30, -5, 1)}\n"
        f"{STAMP}, robot, {pose(90, 100, 200, 0)}\n"
    ),
}
VALIDATION = {
    "sensors.txt": "",
    "records_camera.txt": f"{CAMERAS}7, phone, q.jpg\n",
    "trajectories.txt": f"0007, phone, {pose(4, 10.5, 20, 1)}\n",
}


def floor(root, mapping=(), validation=()):
    """A floor as published; entries of `mapping` and `validation` replace or (None) remove a file."""
    for folder, files in (
        ("mapping", {**MAPPING, **dict(mapping)}),
        ("validation", {**VALIDATION, **dict(validation)}),
    ):
        write(root / "release" / folder / "sensors", {name: text for name, text in files.items() if text is not None})
    data = {f"mapping/sensors/records_data/run/{name}.jpg": "" for name in "abc"}
    write(root / "release", {**data, "validation/sensors/records_data/q.jpg": ""})
    return root


def test_a_floor_by_hand(tmp_path):
    root = floor(tmp_path / "GangnamStation" / "B1")
    places = read("naver_labs", root)
    assert places.name == "GangnamStation B1" and places.role.tolist() == [0, 0, 0, 1] and set(places.zone) == {-1}
    images = [places.path.relative(i).split("records_data/") for i in range(4)]
    assert [image for _, image in images] == ["run/a.jpg", "run/b.jpg", "run/c.jpg", "q.jpg"]  # in sorted order
    assert all((root / "release" / places.path.relative(i)).is_file() for i in range(4))
    # The rig looks east (90 degrees), so that its right is south: 2 m south of it, and looking south.
    assert places.east == pytest.approx([10, 30, 100, 10.5], abs=1e-6)
    assert places.north == pytest.approx([20, -5, 198, 20], abs=1e-6)
    assert places.heading == pytest.approx([0, 90, 180, 4], abs=1e-3)
    assert places.time[0] == np.datetime64("2019-12-03T01:54:39") and np.isnat(places.time[3])  # 7 is no moment
    assert set(places.split) == {-1} and set(read("naver_labs", root, split="train").split) == {0}
    assert list(read("naver_labs", root / "release").path) == list(places.path)
    database, queries = places.select(role="database"), places.select(role="query")
    found = {text: parse_threshold(text)(database, queries)[0].tolist() for text in ("1m_5deg", "1m_3deg", "0.4m")}
    assert found == {"1m_5deg": [0], "1m_3deg": [], "0.4m": []}


def test_a_rig_on_a_rig_and_a_rig_that_holds_itself(tmp_path):
    """The arm is 1 m ahead of the robot, the camera 2 m to the right of the arm."""
    ahead, right = "1, 0, 0, 0, 0, 0, -1", "1, 0, 0, 0, -2, 0, 0"
    rigs = f"robot, arm, {ahead}\narm, side, {right}\nloop, loop, {ahead}\n"
    places = read("naver_labs", floor(tmp_path, {"rigs.txt": rigs}))
    # Looking east: 1 m ahead is east, 2 m to the right is south.
    assert (places.east[2], places.north[2]) == pytest.approx((101, 198)) and places.heading[2] == pytest.approx(90)
    records = f"{CAMERAS}{STAMP}, cam0, run/a.jpg\n{STAMP}, loop, run/b.jpg\n"
    known = kapture.read(floor(tmp_path, {"rigs.txt": rigs, "records_camera.txt": records}) / "release/mapping").known
    assert known.tolist() == [True, False]


def test_a_world_whose_y_axis_points_down(tmp_path):
    """A camera level with the axes of such a world has no rotation at all; the ground is x (east) and z (north)."""
    level = {"trajectories.txt": f"{STAMP}, cam0, 1, 0, 0, 0, -5, 1, -6\n", "rigs.txt": None}
    level["records_camera.txt"] = f"{CAMERAS}{STAMP}, cam0, run/a.jpg\n"
    places = read("naver_labs", floor(tmp_path, level, {"trajectories.txt": "7, phone, 2, 0, 0, 0, 0, 0, 0\n"}))
    assert (places.east.tolist(), places.north.tolist(), places.heading.tolist()) == ([5, 0], [6, 0], [0, 0])
    upside_down = read("naver_labs", tmp_path, up="y")
    assert (upside_down.east.tolist(), upside_down.north.tolist()) == ([5, 0], [-6, 0])


def test_the_hidden_poses_of_the_test_queries_stay_unknown(tmp_path):
    write(floor(tmp_path) / "release/test/sensors", {"records_camera.txt": "1, x, t.jpg\n", "records_data/t.jpg": ""})
    places = read("naver_labs", tmp_path, split="test")
    queries = places.select(role="query")
    assert queries.path.relative(0).endswith("test/sensors/records_data/t.jpg") and set(places.split) == {2}
    assert np.isnan(queries.east).all() and np.isnan(queries.heading).all() and len(places) == 4
    assert np.isfinite(places.select(role="database").east).all()


def test_images_without_a_pose_are_refused_left_out_or_kept(tmp_path):
    root = floor(tmp_path, {"rigs.txt": None})
    with pytest.raises(
        DataError, match=r"mapping/sensors/trajectories\.txt.*run/c\.jpg.*\b0\b.*\b3 images.*without_position=drop"
    ):
        read("naver_labs", root)
    assert len(read("naver_labs", root, without_position="drop")) == 3
    kept = read("naver_labs", root, without_position="keep")
    assert np.isnan(kept.east).tolist() == [False, False, True, False]
    with pytest.raises(DataError, match=r"without_position='ignore'.*error, drop, keep"):
        read("naver_labs", root, without_position="ignore")
    with pytest.raises(DataError, match=r"no image.*pose"):
        read("naver_labs", floor(tmp_path / "none", {"trajectories.txt": None}), without_position="keep")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("records_camera.txt", None, r"\bread\b.*records_camera\.txt.*timestamp, device, image"),
        ("records_camera.txt", "# nothing\n", r"records_camera\.txt.*no rows.*timestamp, device"),
        ("records_camera.txt", "1, cam0, a.jpg\n2, cam0\n", r"records_camera\.txt.*line 2.*\b2 fields.*\b3\b"),
        ("records_camera.txt", "# x\n\n1.5, cam0, a.jpg\n", r"line 3.*timestamp.*'1\.5'.*an integer"),
        ("records_camera.txt", f"{2**63}, cam0, a.jpg\n", "line 1.*timestamp.*'9223372036854775808'.*an integer"),
        ("records_camera.txt", "1, cam0, gone.jpg\n", r"records_camera\.txt.*gone\.jpg"),
        ("trajectories.txt", None, r"trajectories\.txt.*run/a\.jpg.*\b2\b.*\b3 images"),
        ("trajectories.txt", "1, cam0, 1, 0, 0\n", r"line 1.*\b5 fields.*\b9\b.*timestamp, device, qw, qx"),
        ("trajectories.txt", "1, cam0, 1, 0, 0, x, 1, 2, 3\n", r"line 1.*\bqz\b.*'x'"),
        (
            "trajectories.txt",
            "1, cam0, 0, 0, 0, 0, 1, 2, 3\n",
            "line 1.*0, 0, 0, 0, 1, 2, 3.*pose.*zero rotation",
        ),
        ("trajectories.txt", "1, cam0, 1, 0, 0, 0, nan, 2, 3\n", "line 1.*1, 0, 0, 0, nan, 2, 3.*pose"),
        (
            "rigs.txt",
            "r, side, 1, 0, 0, 0, 0, 0, 0\ns, side, 1, 0, 0, 0, 0, 0, 0\n",
            r"line 2.*\bside\b.*\brig r\b",
        ),
    ],
)
def test_a_broken_floor_is_named(tmp_path, file, text, message):
    with pytest.raises(DataError, match=message):
        read("naver_labs", floor(tmp_path, {file: text}))


def test_folders_that_are_no_floor(tmp_path):
    with pytest.raises(DataError, match=r"NAVER LABS.*\bmapping\b.*\bvalidation\b"):
        read("naver_labs", write(tmp_path, {"a.txt": ""}))
    with pytest.raises(DataError, match=r"split.*'tset'"):
        read("naver_labs", tmp_path, split="tset")
    with pytest.raises(DataError, match=r"\bread\b.*validation/sensors/records_camera\.txt"):
        read("naver_labs", write(tmp_path / "half", {f"mapping/sensors/{k}": v for k, v in MAPPING.items()}))


@pytest.mark.parametrize("reader", ["naver_labs", "baidu_mall"])
def test_the_prepared_form_with_at_names(tmp_path, reader):
    names = {f"images/test/{f}/@{e}.5@-3.25@@@@@@@45@@@@@@.jpg": "" for e, f in ((1, "database"), (2, "queries"))}
    places = read(reader, write(tmp_path, names), split="test")
    assert places.east.tolist() == [1.5, 2.5] and places.north.tolist() == [-3.25] * 2 and set(places.zone) == {-1}
    assert places.heading.tolist() == [45, 45] and places.role.tolist() == [0, 1] and set(places.split) == {2}


def camera(heading, *centre):
    """A camera file: rows of the rotation to the world, whose columns are right, down and forward."""
    lines = ["1000.5 0 640", "0 1000.5 480", "0 0 1", "0 0 0"]
    lines += [" ".join(f"{number:.6f}" for number in row) for row in axes(heading).T]
    return "\n".join([*lines, " ".join(map(str, centre)), "1280 960", ""])


MALL = {
    "training_gt/IMG_2.camera": camera(300, 12.5, -40, 1.6),
    "training_gt/IMG_1.camera": camera(90, 0, 7.25, 1.6),
    "query_gt/cdm_9.camera": camera(301, 12, -40.5, 1.2),
    "training_images_undistort/IMG_1.jpg": "",
    "training_images_undistort/IMG_2.jpg": "",
    "query_images_undistort/cdm_9.jpg": "",
}


def test_the_mall_by_hand(tmp_path):
    places = read("baidu_mall", write(tmp_path, MALL), split="test")
    wanted = [
        "training_images_undistort/IMG_1.jpg",
        "training_images_undistort/IMG_2.jpg",
        "query_images_undistort/cdm_9.jpg",
    ]
    assert [places.path.relative(i) for i in range(3)] == wanted
    assert places.east.tolist() == [0, 12.5, 12] and places.north.tolist() == [7.25, -40, -40.5]
    assert places.heading == pytest.approx([90, 300, 301], abs=1e-3) and set(places.zone) == {-1}
    assert places.role.tolist() == [0, 0, 1] and set(places.split) == {2}
    database, queries = places.select(role="database"), places.select(role="query")
    assert parse_threshold("1m_5deg")(database, queries)[0].tolist() == [1]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("training_gt/IMG_2.camera", None, r"\bread\b.*IMG_2\.camera"),
        ("query_gt/cdm_9.camera", "1 2 3\n", r"cdm_9\.camera.*\b1 lines.*\b9\b"),
        (
            "training_gt/IMG_1.camera",
            camera(9, 1, 2, 3).replace("1 2 3", "1 2"),
            r"line 8.*'1 2'.*\b3 numbers.*position",
        ),
        ("training_gt/IMG_1.camera", camera(9, 1, 2, "x"), r"line 8.*'1 2 x'.*\b3 numbers.*position"),
        ("training_gt/IMG_1.camera", camera(9, 1, 2, 3).replace("-1.0", "-1.5"), "lines 5 to 7.*rotation"),
        ("training_gt/IMG_1.camera", camera(9, 1, 2, 3).replace("-1.0", "1.0"), "lines 5 to 7.*rotation"),
    ],
)
def test_a_broken_camera_file_is_named(tmp_path, file, text, message):
    write(tmp_path, {name: contents for name, contents in {**MALL, file: text}.items() if contents is not None})
    with pytest.raises(DataError, match=message):
        read("baidu_mall", tmp_path)


def test_a_mall_without_its_folders(tmp_path):
    with pytest.raises(DataError, match=r"images.*not found.*training_images_undistort\b"):
        read("baidu_mall", write(tmp_path, {"a.txt": ""}))
    with pytest.raises(DataError, match=r"camera.*not found.*training_gt\b"):
        read("baidu_mall", write(tmp_path, {"training_images_undistort/a.jpg": ""}))
