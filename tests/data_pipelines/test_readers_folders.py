"""Readers of folders: a folder per class, pairs with a list, frames of several drives, photos with EXIF."""

import itertools
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.readers import listing, pairs, photos, read


def write(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return root


def test_classes(tmp_path):
    write(tmp_path, "b/2.jpg", "b/1.png", "a b/deep/x.JPEG", "c/y.jpg", "labels.txt", ".git/z.jpg")
    places = read("classes", tmp_path, split="train")
    assert [places.path.relative(i) for i in range(4)] == ["a b/deep/x.JPEG", "b/1.png", "b/2.jpg", "c/y.jpg"]
    assert places.place.tolist() == [0, 1, 1, 2] and set(places.split) == {0} and set(places.role) == {-1}
    assert all(Path(p).exists() for p in places.path)
    write(tmp_path, "b/1.HEIC", "b/3.heic", "b/2.mov")
    with pytest.raises(DataError, match=r"b holds 2 \.heic \(first: 1\.HEIC\), 1 \.mov \(first: 2\.mov\).*Move them"):
        read("classes", tmp_path)
    for name in ("1.HEIC", "3.heic", "2.mov"):
        (tmp_path / "b" / name).unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no image.*empty\b"):
        read("classes", tmp_path)
    with pytest.raises(DataError, match=r"no folder.*/c\b.*class"):
        read("classes", tmp_path / "c")
    with pytest.raises(DataError, match=r"'trian'.*'train'"):
        read("classes", tmp_path, split="trian")


def test_links_that_lead_nowhere_or_back_are_not_followed(tmp_path, caplog):
    """A link to a folder elsewhere is, and to one beside it."""
    write(tmp_path, "root/a/1.jpg", "elsewhere/2.jpg")
    root = tmp_path / "root"
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(root)
    (root / "far").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root / "a")
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    found = listing.images(root)
    names = [found.relative(row) for row in range(len(found))]
    assert names == ["a/1.jpg", "again/1.jpg", "far/2.jpg", "loop.jpg"]
    assert f"{root / 'a' / 'self'} leads back to a folder above it" in caplog.text


def test_corridor(real_data):
    places = read("pairs", real_data / "corridor")
    database, queries = places.select(role="database"), places.select(role="query")
    assert len(database) == len(queries) == 111 and queries.path.relative(7) == "query/0000007.jpg"
    assert queries.frame.tolist() == list(range(111))
    indptr, indices = places.answers
    assert len(indptr) == 112
    for query in range(111):  # the published tolerance: two frames
        wanted = range(max(query - 2, 0), min(query + 3, 111))
        assert indices[indptr[query] : indptr[query + 1]].tolist() == list(wanted)


def lists_of(root, file=None):
    indptr, indices = pairs.ground_truth(root, file, queries=3, database=10)
    return [indices[a:b].tolist() for a, b in itertools.pairwise(indptr)]


def test_lists_of_positives_in_all_their_forms(tmp_path):
    wanted = [[0, 2], [1], [1, 2, 3]]
    (tmp_path / "ground_truth.csv").write_text("query,references\n2,3 1 2\n0,0 2\n1,1\n")
    named, plain = np.empty(3, object), np.empty(3, object)
    for k, references in enumerate(wanted):
        named[k], plain[k] = [k, references], np.array(references[::-1])
    square = np.empty((3, 2), object)
    square[:] = [list(row) for row in named]
    for name, array in (("named", named), ("plain", plain), ("square", square)):
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
    for file in ("ground_truth.csv", "named.npy", "plain.npy", "square.npy"):
        assert lists_of(tmp_path, file) == wanted, file
    for name, array in (
        ("one", np.array([4, 0, 9])),
        ("column", np.array([[4], [0], [9]])),
        ("float", np.array([4.0, 0, 9])),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        assert lists_of(tmp_path, f"{name}.npy") == [[4], [0], [9]], name
    assert lists_of(tmp_path) == wanted  # the csv is found by itself
    (tmp_path / "ground_truth.csv").write_text("query,references\n2,3\n0,\n")
    assert lists_of(tmp_path) == [[], [], [3]]  # queries without positives stay


class Evil:
    def __reduce__(self):
        return os.getcwd, ()


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    array = np.empty(1, object)
    array[0] = Evil()
    np.save(tmp_path / "gt.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=r"gt\.npy.*posix\.getcwd"):
        lists_of(tmp_path, "gt.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "gt.npy").read_bytes()[:30])
    with pytest.raises(DataError, match=r"\bread\b.*cut\.npy"):
        lists_of(tmp_path, "cut.npy")
    header = (tmp_path / "gt.npy").read_bytes()[:128]
    (tmp_path / "list.npy").write_bytes(header + pickle.dumps([1, 2]))
    with pytest.raises(DataError, match=r"list\.npy.*\blist\b.*array"):
        lists_of(tmp_path, "list.npy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1 2\n1,3\n", "'0,1 2'.*query,references"),
        ("query,references\n0,1\n1,two\n", r"ground_truth\.csv.*line 3.*\('1', \['two'\]\).*query"),
        ("query,references\n0,-2\n", r"line 2.*\('0', \['-2'\]\).*negative"),
        ("query,references\n0,3 -1\n", r"line 2.*\['3', '-1'\].*negative.*-1 alone"),
        ("query,references\n0,1,2\n", r"line 2: 3 fields.*\b2\b"),
        ("query,references\n1000000000,1\n", r"line 2: .*query 1000000000 .*3 queries and 10 database"),
        ("query,references\n0,1\n1,10\n", r"line 3: .*\[10\].*3 queries and 10 database"),
        (f"query,references\n0,{10**30}\n", r"line 2: .*10 database"),
        (f"query,references\n0,{'9' * 5000}\n", r"line 2: .{,300}not a query's number"),
        (f"query,references\n0,{'9 ' * 100_000}\n", r"ground_truth\.csv.*line 2.*131072"),
        ("query;references\n0;1\n", "line 1: 'query;references' has ';' between its fields"),
        ("query,references\n0,\0\n", r"ground_truth\.csv: line 2 is not text in UTF-8"),
        ("query,references\n", r"ground_truth\.csv.*no rows"),
        ("", r"no rows.*"),
    ],
)
def test_bad_lists_are_named(tmp_path, text, message):
    (tmp_path / "ground_truth.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        lists_of(tmp_path)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([[0, [-1]], [1, [4]], [2, []]], [[], [4], []]),
        ([np.array([-1]), np.array([3, 4, 5]), np.array([-1.0])], [[], [3, 4, 5], []]),
        ([[0, np.array([-1])], [2, [np.array(7)]]], [[], [], [7]]),
        ([-1, 4, np.array(5)], [[], [4], [5]]),
    ],
)
def test_a_lone_minus_one_is_no_positive(tmp_path, rows, wanted):
    """As the lists of GardensPoint say it."""
    array = np.empty(len(rows), object)
    for k, row in enumerate(rows):
        array[k] = row
    np.save(tmp_path / "gt.npy", array, allow_pickle=True)
    assert lists_of(tmp_path, "gt.npy") == wanted
    (tmp_path / "ground_truth.csv").write_text("query,references\n0,-1\n1,4\n")
    assert lists_of(tmp_path, "ground_truth.csv") == [[], [4], []]


def nested(depth):
    lists = []
    for _ in range(depth):
        lists = [lists, lists]
    return lists


def test_numbers_that_no_list_holds(tmp_path):
    for row in (np.inf, np.nan, 1e30, 10**5000, "x", None, [0, [np.inf]], nested(60), [0, nested(60)], b"1"):
        array = np.empty(1, object)
        array[0] = row
        np.save(tmp_path / "gt.npy", array, allow_pickle=True)
        with pytest.raises(DataError, match=r"gt\.npy, row 0: ") as caught:
            lists_of(tmp_path, "gt.npy")
        assert len(str(caught.value)) < 10_000


def test_arrays_that_claim_more_than_their_file_holds(tmp_path):
    np.save(tmp_path / "gt.npy", np.zeros((3, 1), np.int64))
    data = (tmp_path / "gt.npy").read_bytes()
    (tmp_path / "gt.npy").write_bytes(data.replace(b"(3, 1), }           ", b"(3000000000000, 1), }"[:20]))
    with pytest.raises(DataError, match=r"gt\.npy"):
        lists_of(tmp_path, "gt.npy")
    array = np.empty(1, object)
    array[0] = np.zeros(3)
    header = len(data) - 24
    np.save(tmp_path / "gt.npy", array, allow_pickle=True)
    for call in (
        b"cnumpy\nndarray\n(J\x00\x00\x00\x7ftR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\x00\x00\x00\x7ftc_codecs\nencode\n(Vb\ntRtR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tVb\ntR(K\x01(J\x00\x00\x00\x7ftcnumpy\ndtype\n(Vf8\ntR"
        b"I00\nC\x00tb.",
    ):
        whole = (tmp_path / "gt.npy").read_bytes()
        (tmp_path / "bomb.npy").write_bytes(whole[:header] + call)
        with pytest.raises(DataError, match=r"bomb\.npy"):
            lists_of(tmp_path, "bomb.npy")
    np.save(tmp_path / "gt.npy", np.array(3))
    with pytest.raises(DataError, match=r"gt\.npy holds ndarray, not an array of rows"):
        lists_of(tmp_path, "gt.npy")


def test_a_pipe_is_no_list(tmp_path):
    os.mkfifo(tmp_path / "ground_truth.csv")
    with pytest.raises(DataError, match=r"ground_truth\.csv.*pipe"):
        lists_of(tmp_path)


def test_no_list_at_all(tmp_path):
    with pytest.raises(DataError, match=r"positives.*ground_truth\.csv.*ground_truth\.npy"):
        lists_of(tmp_path)
    np.save(tmp_path / "half.npy", np.array([0.5]))
    with pytest.raises(DataError, match=r"half\.npy.*\brow 0\b.*query"):
        lists_of(tmp_path, "half.npy")


def test_nordland_as_trained_and_as_tested(real_data):
    root = real_data / "nordland_64x32"
    places = read("frames", root, train=2400, per_place=3)
    assert len(places) == 7152 and places.conditions == ("summer", "winter")
    train, test = places.select(split="train"), places.select(split="test")
    assert len(train) == 4800 and len(test) == 2352
    assert np.bincount(train.place).tolist() == [6] * 800  # three neighbours in two seasons
    for place in (0, 1, 799):
        assert np.ptp(train.frame[train.place == place]) == 2
    queries = test.select(role="query")
    assert queries.frame.tolist() == list(range(2400, 3576)) and queries.path.relative(0).startswith("winter/")
    along = read("frames", root, first=2400, metres=10.0, every=3)
    assert along.east.tolist() == [10.0 * k for k in range(2400, 3576, 3)] * 2 and set(along.heading) == {90}
    assert not along.north.any() and set(along.zone) == {-1} and np.isnan(places.east).all()
    third = read("frames", root, every=3)
    assert len(third) == 2 * 1192 and third.frame.max() == 1191
    assert third.path.relative(1) == places.path.relative(3)


def test_frames_by_hand(tmp_path):
    write(tmp_path, *(f"{s}/f{k}.png" for s in ("day", "night") for k in range(8)))
    places = read("frames", tmp_path, database="day", query="night", first=1, last=7, every=2, train=1)
    assert [places.path.relative(i) for i in range(6)] == [f"{s}/f{k}.png" for s in ("day", "night") for k in (1, 3, 5)]
    assert places.frame.tolist() == places.place.tolist() == [0, 1, 2] * 2
    assert places.split.tolist() == [0, 2, 2] * 2 and places.role.tolist() == [0] * 3 + [1] * 3
    (tmp_path / "night" / "f3.png").unlink()
    with pytest.raises(DataError, match=r"day\b.*night\b.*\b1\b.*\['f3\.png'\]"):
        read("frames", tmp_path, database="day", query="night")
    with pytest.raises(DataError, match=r"not found.*snow\b"):
        read("frames", tmp_path, database="day", query="snow")
    with pytest.raises(DataError, match=r"\b3 frames.*train=4"):
        read("frames", tmp_path, database="day", query="day", last=3, train=4)
    with pytest.raises(DataError, match=r"every=0\b.*per_place"):
        read("frames", tmp_path, every=0)
    with pytest.raises(DataError, match="metres=-1"):
        read("frames", tmp_path, database="day", query="night", metres=-1.0)


def photo(path, latitude=None, longitude=None, heading=None, time=None):
    exif = Image.Exif()
    if latitude is not None:
        gps = exif.get_ifd(0x8825)
        gps.update({1: "S", 2: latitude, 3: "W", 4: longitude})
        if heading is not None:
            gps.update({16: "T", 17: heading})
    if time:
        exif.get_ifd(0x8769)[0x9003] = time
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(path, exif=exif)


def test_photos_of_lund(real_data):
    places = read("photos", real_data / "lund")
    assert len(places) == 29 and places.single_zone() == 33
    latitude, longitude = geo.from_utm(places.east, places.north, places.zone)
    assert np.ptp(latitude) < 0.01 and np.ptp(longitude) < 0.01
    assert (np.abs(latitude - 55.69) < 0.02).all() and (np.abs(longitude - 13.19) < 0.02).all()  # the town of Lund
    assert (np.diff(places.north)[:-2] > 0).all()  # a walk to the north, photographed in order


def test_photos_by_hand(tmp_path):
    photo(tmp_path / "a.jpg", (33.0, 30.0, 36.0), (70.0, 30.0, 0.0), 361.5, "2019:11:03 08:30:00")
    photo(tmp_path / "b.jpg")
    with pytest.raises(
        DataError, match=r"b\.jpg has no coordinates in EXIF \(there is no GPSLatitude\).*without_position=drop"
    ):
        read("photos", tmp_path)
    kept = read("photos", tmp_path, without_position="keep", role="query")
    east, north, zone = geo.to_utm(-33.51, -70.5)
    assert kept.east[0] == pytest.approx(east) and kept.north[0] == pytest.approx(north) and kept.zone[0] == zone == 119
    assert np.isnan(kept.east[1]) and set(kept.role) == {1}
    assert kept.heading[0] == 1.5 and kept.time[0] == np.datetime64("2019-11-03T08:30:00") and np.isnat(kept.time[1])
    assert len(read("photos", tmp_path, without_position="drop")) == 1
    (tmp_path / "c.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"c\.jpg.*not an image"):
        photos.read(tmp_path)
    with pytest.raises(DataError, match=r"without_position='skip'.*error, drop, keep"):
        photos.read(tmp_path, without_position="skip")


GPS = {1: "N", 2: (33.0, 24.0, 0.0), 3: "E", 4: (70.0, 36.0, 0.0)}


@pytest.mark.parametrize(
    ("gps", "latitude", "longitude"),
    [
        ({}, 33.4, 70.6),
        ({1: "S", 3: "W"}, -33.4, -70.6),
        ({1: "s\0", 3: "West"}, -33.4, -70.6),
        ({1: "S", 2: (-38.0, 0.0, 0.0)}, -38, 70.6),  # a sign and its letter turn it once
        ({1: "S", 2: (-38.0, 30.0, 0.0)}, -38.5, 70.6),
        ({1: None, 2: (-38.0, 0.0, 0.0)}, -38, 70.6),
        ({2: (0.0, 0.0, 0.0)}, 0, 70.6),  # the equator
        ({2: (33.0, 60.0, 0.0)}, 34, 70.6),
    ],
)
def test_the_signs_of_exif(gps, latitude, longitude):
    found = photos.facts({}, GPS | gps, {})
    assert (found.latitude, found.longitude) == pytest.approx((latitude, longitude)) and not found.why


@pytest.mark.parametrize(
    ("gps", "why"),
    [
        ({1: None}, "GPSLatitude has no N or S"),
        ({3: None}, "GPSLongitude has no E or W"),
        ({1: "E"}, "GPSLatitude has no N or S"),
        ({1: b"N"}, "GPSLatitude has no N or S"),
        ({2: (-38.0, 0.0, 0.0)}, "GPSLatitude is negative, and N"),
        ({2: (IFDRational(0, 0),) * 3}, "GPSLatitude is nan"),
        ({2: (0.0,) * 3, 4: (0.0,) * 3}, "without a fix"),
        ({2: (95.0, 0.0, 0.0)}, "GPSLatitude is 95, expected degrees within ±84"),
        ({2: (85.0, 0.0, 0.0)}, "±84"),
        ({2: (33.0, 61.0, 0.0)}, "minutes and seconds within 60"),
        ({4: (70.0, 0.0, 1e9)}, "GPSLongitude"),
        ({4: (181.0, 0.0, 0.0)}, "within ±180"),
        ({2: 33.4}, "no degrees, minutes, seconds"),
        ({2: (33.0, 24.0)}, "no degrees, minutes, seconds"),
        ({2: ("x", 24.0, 0.0)}, "GPSLatitude is nan"),
    ],
)
def test_what_exif_does_not_say_is_unknown(gps, why):
    found = photos.facts({}, GPS | gps, {})
    assert np.isnan(found.latitude) and np.isnan(found.longitude) and why in found.why


@pytest.mark.parametrize(
    ("direction", "ref", "heading"),
    [(10.0, "T", 10), (10.0, "M", np.nan), (10.0, None, np.nan), (IFDRational(1, 0), "T", np.nan),
     (float("inf"), "T", np.nan), (1e30, "T", np.nan), (b"x", "T", np.nan), (-10.0, "T", -10)],
)  # fmt: skip
def test_a_heading_is_of_true_north(direction, ref, heading):
    assert photos.facts({}, {16: ref, 17: direction}, {}).heading == pytest.approx(heading, nan_ok=True)


def test_one_impossible_position_is_named_and_the_others_go_on(tmp_path):
    for name, degrees in (("a", 33.0), ("b", 95.0), ("c", 34.0)):
        photo(tmp_path / f"{name}.jpg", (degrees, 0.0, 0.0), (70.0, 0.0, 0.0))
    with pytest.raises(
        DataError, match=r"b\.jpg has no coordinates in EXIF \(GPSLatitude is 95\b.*without_position=drop"
    ):
        read("photos", tmp_path)
    kept = read("photos", tmp_path, without_position="keep")
    assert kept.located.tolist() == [True, False, True] and kept.single_zone() == 119
    assert len(read("photos", tmp_path, without_position="drop")) == 2


def test_damaged_exif_is_no_position(tmp_path):
    photo(tmp_path / "a.jpg", (33.0, 0.0, 0.0), (70.0, 0.0, 0.0), 10, "2019:11:03 08:30:00")
    whole = (tmp_path / "a.jpg").read_bytes()
    start = whole.index(b"Exif")
    for k in range(start, start + 60, 3):
        (tmp_path / "a.jpg").write_bytes(whole[:k] + b"\xff\xff\xff" + whole[k + 3 :])
        assert len(read("photos", tmp_path, without_position="keep")) == 1


def test_a_folder_keeps_what_each_name_says(tmp_path):
    """One plain photo among '@' names has its own position or none, and takes none away."""
    for k in (0, 1, 2):
        write(tmp_path, f"@50000{k}.00@5800000@33@U@@@@@90@@@@@@.jpg")
    photo(tmp_path / "IMG_0001.jpg")
    photo(tmp_path / "@home.jpg", (33.0, 0.0, 0.0), (70.0, 0.0, 0.0))
    (tmp_path / "Z.jpg").write_bytes(b"no image")
    places = read("folder", tmp_path, role="query")
    names = [places.path.relative(row) for row in range(6)]
    assert names == sorted(names) and names[3:] == ["@home.jpg", "IMG_0001.jpg", "Z.jpg"] and set(places.role) == {1}
    assert places.east[:3].tolist() == [500000, 500001, 500002] and places.heading[:3].tolist() == [90] * 3
    assert places.zone.tolist() == [33, 33, 33, 119, -1, -1] and places.located.tolist() == [True] * 4 + [False] * 2
    assert places.unlocated() == f"{tmp_path / 'IMG_0001.jpg'} and 1 more of 6 images have no coordinates"
    (tmp_path / "@home.jpg").unlink()
    assert read("folder", tmp_path).single_zone() == 33, "an unknown position lies in no zone"
    placed = read("folder", tmp_path, without_position="drop")
    assert len(placed) == 3 and placed.unlocated() == ""
    with pytest.raises(DataError, match=r"IMG_0001\.jpg.*GPSLatitude"):
        (tmp_path / "Z.jpg").unlink()
        read("folder", tmp_path, without_position="error")
    with pytest.raises(DataError, match=r"without_position='skip'.*error, drop, keep"):
        read("folder", tmp_path, without_position="skip")


def test_any_reader_puts_its_images_into_one_zone(tmp_path):
    west, east = (geo.to_utm(51.5, longitude) for longitude in (-0.001, 0.001))  # either side of Greenwich
    for at, zone in ((west, 30), (east, 31)):
        write(tmp_path, f"@{at[0]:.2f}@{at[1]:.2f}@{zone}@U@@@@@@@@@@@.jpg")
    with pytest.raises(DataError, match=r"UTM zone 30 north.*UTM zone 31 north.*\bzone=30north\b"):
        read("folder", tmp_path).single_zone()
    for zone in ("30north", 30, "30 north"):
        places = read("folder", tmp_path, zone=zone)
        assert (
            places.single_zone() == 30 and abs(np.hypot(*(np.ptp(v) for v in (places.east, places.north))) - 138.8) < 1
        )
    for zone in ("30S", 0, 61, 161, "123south", "", 1 << 70):
        with pytest.raises(DataError, match=r"no UTM zone.*33north"):
            read("folder", tmp_path, zone=zone)
    with pytest.raises(DataError, match=r"@.*\.jpg\).*degrees off UTM zone 10 south"):
        read("folder", tmp_path, zone="10south")
