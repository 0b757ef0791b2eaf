"""The '@' reader: real names against a plain split, round trips, trees on disk, and every error."""

import datetime
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import DataError
from data_pipelines.places import VIEWS, Paths
from data_pipelines.readers import at_names, frame_names, names, notes, read


def parse(*lines):
    return names.parse(Paths.of(lines))


def one(line):
    return {column: values[0] for column, values in parse(line).items()}


@pytest.mark.parametrize("part", ["queries", "database"])
def test_sf_xs_names_equal_a_plain_split(real_data, part):
    file = real_data / "sf_xs_val" / f"{part}.txt.gz"
    places = read("at_names", real_data / "sf_xs_val", paths_file=file)
    with gzip.open(file, "rt") as lines:
        wanted = lines.read().splitlines()
    assert [places.path.relative(i) for i in range(len(places))] == wanted  # the order of the list is kept
    fields = [line.split("@") for line in wanted]
    assert places.east.tolist() == [float(f[1]) for f in fields]
    assert places.north.tolist() == [float(f[2]) for f in fields]
    assert places.heading.tolist() == [float(f[9]) % 360 for f in fields]
    assert {f[9] for f in fields} >= {"0", "360"}
    assert set(places.zone) == {10} and places.single_zone() == 10
    months = [f"{f[13][:4]}-{f[13][4:]}" for f in fields]
    assert places.time.astype("datetime64[M]").astype(str).tolist() == months
    assert len(places.select(split="val", role="query" if part == "queries" else "database")) == len(wanted)
    assert set(places.place) == {-1} and places.conditions == ()


def test_gsv_xs_headings_are_unknown_and_places_unique_over_cities(real_data):
    both = []
    for city, images, zone in (("osl", 9756, 32), ("prg", 17590, 33)):
        file = real_data / "gsv_xs_names" / f"{city}.txt.gz"
        places = read("at_names", real_data / "gsv_xs_names", paths_file=file, split="train")
        with gzip.open(file, "rt") as lines:
            notes = [line.split("@")[14] for line in lines]
        assert len(places) == images and set(places.zone) == {zone} and set(places.split) == {0}
        assert np.isnan(places.heading).all()
        assert not np.isnat(places.time).any()
        same_note = dict(zip(notes, places.place.tolist(), strict=True))
        assert [same_note[note] for note in notes] == places.place.tolist()
        assert len(set(same_note.values())) == len(same_note) == len(set(notes))
        both.append(set(same_note.values()))
    assert not both[0] & both[1]


coordinate = st.integers(-(10**9), 10**9).map(lambda c: f"{c / 100:.2f}")
NOTES = ("", "night_forward_lund", "Day_SIDEWAYS_oslo", "snow", "12_OSL", "12_forward", "x_forward", "nightly", "_")
text = st.text(st.characters(blacklist_characters="@/\n\r\0", blacklist_categories=("Cs",)), max_size=8)


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(
        st.tuples(
            coordinate,
            coordinate,
            st.one_of(st.just(("", "")), st.tuples(st.integers(1, 60).map(str), st.sampled_from(names.LETTERS))),
            st.one_of(st.just(""), st.integers(-72000, 72000).map(lambda h: str(h / 100))),
            st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)),
            st.sampled_from([0, 4, 6, 8, 11, 13, 15]),
            st.sampled_from(NOTES),
            text,
        ),
        min_size=1,
        max_size=6,
    ),
    folder=st.sampled_from(["", "a/b/", "sub@folder/"]),
    short=st.booleans(),
)
def test_parse_inverts_format(rows, folder, short):
    lines = []
    for east, north, (zone, letter), heading, time, digits, note, pano in rows:
        stamp = time.strftime("%Y%m%d_%H%M%S").rjust(15, "0")[:digits]
        # a field more sends the name through the plain parse: both ways must agree
        tail = [".jpg"] if not short else ["x", ".jpg"]
        lines.append(
            folder
            + "@".join(["", east, north, zone, letter, "", "", pano, "", heading, "", "", "", stamp, note] + tail)
        )
    columns = parse(*lines)
    for i, (east, north, (zone, letter), heading, time, digits, note, _) in enumerate(rows):
        assert columns["east"][i] == float(east) and columns["north"][i] == float(north)
        assert columns["zone"][i] == (int(zone) + 100 * (letter < "N") if zone else -1)
        if heading and not note.startswith("12_"):
            assert (
                columns["heading"][i] == pytest.approx(float(heading) % 360, abs=1e-4)
                or float(heading) % 360 > 359.9999
            )
            assert 0 <= columns["heading"][i] < 360
        else:
            assert np.isnan(columns["heading"][i])
        kept = {0: None, 4: "Y", 6: "M", 8: "D", 11: "h", 13: "m", 15: "s"}[digits]
        if kept is None:
            assert np.isnat(columns["time"][i])
        else:
            assert columns["time"][i] == np.datetime64(time.replace(microsecond=0), "s").astype(f"datetime64[{kept}]")
        condition = {"night_forward_lund": "night", "Day_SIDEWAYS_oslo": "day", "snow": "snow"}.get(note)
        assert columns["condition"][i] == (notes.CONDITIONS.index(condition) if condition else -1)
        view = {"night_forward_lund": "forward", "Day_SIDEWAYS_oslo": "sideways"}.get(note)
        assert columns["view"][i] == (VIEWS.index(view) if view else -1)
        assert (columns["place"][i] >= 0) == note.startswith("12_")


FRAMES = (
    "a/@0544912.75@4181232.11@seq_A@7@-zGJkF-hdg@sf@20180316@.jpg",  # as MSLS is rewritten for sequences
    "seq_A/@0544915.00@4181230@seq_A@008@p@night_forward_sf@20180316_212003@.jpg",
    "@-12.5@3@33@9@@@@.jpg",  # a sequence called 33, no zone
    "@5735848.36@620080.25@2014-12-16-18-44-24@3@1418755474000000@.jpg",  # RobotCar's: one by one
)


def test_names_of_frames_by_hand():
    plain = "@0554156.86@4174558.49@10@S@@@@@270@@@@201311@@.jpg"
    columns = parse(*FRAMES[:2], plain, *FRAMES[2:])
    assert columns["east"].tolist() == [544912.75, 544915.0, 554156.86, -12.5, 5735848.36]
    assert columns["north"].tolist() == [4181232.11, 4181230.0, 4174558.49, 3.0, 620080.25]
    assert columns["frame"].tolist() == [7, 8, -1, 9, 3]
    first, second, none, third, fourth = columns["sequence"].tolist()
    assert first == second and none == -1 and len({first, third, fourth}) == 3 and min(first, third, fourth) >= 0
    assert columns["zone"].tolist() == [-1, -1, 10, -1, -1] and columns["heading"][2] == 270
    assert np.isnan(columns["heading"][[0, 1, 3, 4]]).all() and set(columns["place"]) == {-1}
    assert columns["time"][:2].tolist() == [datetime.datetime(2018, 3, 16), datetime.datetime(2018, 3, 16, 21, 20, 3)]
    assert np.isnat(columns["time"][3:]).all()
    assert columns["condition"].tolist() == [-1, notes.CONDITIONS.index("night"), -1, -1, -1]
    assert columns["view"].tolist() == [-1, VIEWS.index("forward"), -1, -1, -1]


def test_a_sequence_has_its_number_whatever_is_read_along():
    assert parse(*FRAMES)["sequence"].tolist() == [one(name)["sequence"] for name in FRAMES]


label = text.filter(bool)


@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(
        st.tuples(coordinate, coordinate, label, st.integers(0, 10**14), text, st.sampled_from([*NOTES, "amsterdam"])),
        min_size=1,
        max_size=6,
    ),
    folder=st.sampled_from(["", "a/b/", "sub@folder/"]),
)
def test_names_of_frames_invert_their_format_in_both_ways(rows, folder):
    lines = ["@".join(["", e, n, s, str(f), pano, city, "20190102", ".jpg"]) for e, n, s, f, pano, city in rows]
    columns = parse(*(folder + line for line in lines))
    for k, (east, north, sequence, frame, _, city) in enumerate(rows):
        assert (columns["east"][k], columns["north"][k], columns["frame"][k]) == (float(east), float(north), frame)
        assert columns["sequence"][k] == one(f"@1@2@{sequence}@1@.jpg")["sequence"]
        assert columns["time"][k] == np.datetime64("2019-01-02")
        assert columns["condition"][k] == one(f"@1@2@{'@' * 11}{city}@.jpg")["condition"]
    alone = [frame_names.parse_one("", line.split("@")) for line in lines]
    for column, values in columns.items():
        np.testing.assert_array_equal(values, np.array([row[column] for row in alone], values.dtype))


def test_a_tree_of_sequences(tmp_path):
    for folder in ("train/database/a", "train/queries/b", "test/queries/b"):
        for frame in (2, 10, 1):
            name = f"@{100 + frame}@200@{folder[-1]}@{frame}@p@oslo@20190102@.jpg"
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).touch()
    places = read("at_names", tmp_path)
    assert len(places) == 9 and np.unique(places.sequence).size == 2
    train = read("at_names", tmp_path, split="train")
    assert sorted(train.frame.tolist()) == [1, 1, 2, 2, 10, 10]
    assert [train.select(role=role).sequence[0] for role in ("database", "query")] == [
        one(f"@1@2@{s}@1@.jpg")["sequence"] for s in "ab"
    ]
    doubled = tmp_path / "train/database/c/@5@6@a@0010@q@oslo@20190102@.jpg"
    doubled.parent.mkdir()
    doubled.touch()
    with pytest.raises(DataError, match=r"@a@10@p.* and .*@a@0010@q.* are both frame 10 of one sequence \(1 such"):
        read("at_names", tmp_path)


def test_unusual_numbers_and_short_names_are_read_one_by_one():
    assert one("@+5.5e5@4.1e6@@.jpg")["east"] == 550000
    plain = one("@1@2@32@V@.jpg")
    assert (plain["east"], plain["north"], plain["zone"]) == (1, 2, 32)
    assert one("NIGHT@0381904.46@3946329.36@54@S@035.65375@0139.69540@00405.jpg@@@@@@@@.jpg")["zone"] == 54
    assert (
        one("@123456789012345678@2@@@@@@@@@@@@@.jpg")["east"] == 123456789012345678.0
    )  # more than an integer can round
    assert one("@@2@3@.jpg".replace("@@", "@7@"))["north"] == 2


@pytest.mark.parametrize("folders", [("", ""), ("a@b/", "")])
def test_as_many_signs_in_all_but_not_in_each_are_not_mistaken(folders):
    # Fourteen and sixteen of them, fifteen a name on average: the fields of one must not be read from the other.
    fourteen, sixteen = (f"@{n}@{n + 1}@32@V" + "@" * (10 if n == 10 else 12) + ".jpg" for n in (10, 20))
    names = [folder + name for folder, name in zip(folders, (fourteen, sixteen), strict=True)]
    for order in (names, names[::-1]):
        assert parse(*order)["east"].tolist() == [10.0 if "@10@" in name else 20.0 for name in order]


def test_southern_hemisphere():
    assert one("@1@2@56@H@-33.9@151.2@@@@@@@@@.jpg")["zone"] == 156
    assert one("@1@2@56@@-33.9@151.2@@@@@@@@@.jpg")["zone"] == 156  # no letter: the latitude decides
    assert one("@1@2@56@@033.9@151.2@@@@@@@@@.jpg")["zone"] == 56
    assert one("@1@2@56@@-33.9@.jpg")["zone"] == 156


def test_times_that_are_none():
    assert one("@1@2@@@@@@@@@@@20190229@@.jpg")["time"] != one("@1@2@@@@@@@@@@@20190228@@.jpg")["time"]
    for stamp in ("20190229", "20191301", "2019-10", "201", "20191010_25", "201910101200"):
        assert np.isnat(one(f"@1@2@@@@@@@@@@@{stamp}@@.jpg")["time"]), stamp
    assert one("@1@2@@@@@@@@@@@20200229_235959@@.jpg")["time"] == np.datetime64("2020-02-29T23:59:59")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plain.jpg", r"sub/plain\.jpg.*coordinates.*@0554156\.86"),
        ("@@2@@@@@@@@@@@@@.jpg", r"field 1\b.*east.*''"),
        ("@1@north@@@@@@@@@@@@@.jpg", r"field 2\b.*north.*'north'"),
        ("@1@nan@@@@@@@@@@@@@.jpg", r"field 2\b.*north.*'nan'"),
        ("@1@2@61@S@@@@@@@@@@@.jpg", r"fields 3 and 4\b.*zone.*'61'.*'S'"),
        ("@1@2@10@I@@@@@@@@@@@.jpg", "'10'.*'I'"),
        ("@1@2@seq01@@pano@city@2019@.jpg", r"'seq01' and ''.*the frame's number"),
        ("@1@2@seq01@x7@pano@city@2019@.jpg", r"'seq01' and 'x7'.*the frame's number"),
        ("@1@2@@17@pano@city@2019@.jpg", r"field 3 \(sequence\) is empty"),
        (f"@1@2@s@{'9' * 19}@p@c@2019@.jpg", r"field 4 \(frame\).*18 digits"),
        ("@1@2@seq01@17@@@@@@@@@@@.jpg", "'seq01' and '17'"),
        ("@1@2@@@@@@@east@@@@@@.jpg", r"field 9\b.*heading.*'east'"),
    ],
)
def test_names_that_cannot_be_read_are_named(name, message):
    with pytest.raises(DataError, match=message):
        parse("@1@2@@@@@@@@@@@@@.jpg", f"sub/{name}")


NAME = "@{}@200@33@U@@@@@90@@@@201911@{}@.jpg"


def write(root, *files):
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def test_tree_with_splits_and_roles(tmp_path):
    root = write(
        tmp_path / "city",
        f"images/train/{NAME.format(30, '')}",
        f"images/train/deep/{NAME.format(10, 'snow_x')}",
        f"images/test/database/{NAME.format(1, '')}",
        f"images/test/queries_night/{NAME.format(2, '')}",
        f"images/test/queries_v1/{NAME.format(3, 'rain_backward_rio')}",
        "images/test/queries_v1/.hidden",
        "images/test/queries_v1/list.txt",
        "images/panoramas/ignored.jpg",
    )
    places = read("at_names", root)
    assert places.name == "city" and len(places) == 5
    assert len(set(places.path)) == 5 and all(Path(p).exists() for p in places.path)
    assert sorted(places.conditions) == ["night", "rain", "snow"]
    assert places.select(split="train").east.tolist() == [30, 10]  # "@" sorts before "deep"
    assert places.select(split="test", role="query").east.tolist() == [2, 3]
    assert places.select(condition="night").east.tolist() == [2]
    assert places.select(condition="snow").east.tolist() == [10]
    assert places.east[places.view == VIEWS.index("backward")].tolist() == [3] and (places.view >= 0).sum() == 1
    assert read("at_names", root, split="test", folders=("database", "queries_v1")).east.tolist() == [1, 3]
    assert read("at_names", root / "images" / "train").role.tolist() == [0, 0]
    with pytest.raises(DataError, match=r"split.*'val'.*\['train', 'test'\]"):
        read("at_names", root, split="val")
    with pytest.raises(DataError, match=r"split.*'tset'"):
        read("at_names", root, split="tset")
    with pytest.raises(DataError, match=r"\['queries_v9'\]"):
        read("at_names", root, folders=["queries_v9"])


def test_cached_list_gives_the_same_table(tmp_path):
    root = write(
        tmp_path, *(f"train/{sub}{NAME.format(e, '')}" for e, sub in ((5, "b/"), (1, "b/"), (3, "a/"), (9, "")))
    )
    listed = read("at_names", root)
    lines = [listed.path.relative(i).split("train/")[-1] for i in (2, 0, 3, 1)]
    (tmp_path / "train_images_paths.txt").write_bytes("\r\n".join(lines).encode() + b"\r\n")
    cached = read("at_names", root)
    assert list(cached.path) == list(listed.path)
    assert cached.east.tolist() == listed.east.tolist() == [9, 3, 1, 5]
    (tmp_path / "train_images_paths.txt").write_text("gone/" + NAME.format(1, ""))
    with pytest.raises(DataError, match=r"train_images_paths\.txt.*gone/.*delete"):
        read("at_names", root)


def test_list_of_a_whole_tree_keeps_its_order(tmp_path):
    lines = [f"images/val/{f}/{NAME.format(e, '')}" for e, f in ((3, "queries"), (1, "database"), (2, "queries"))]
    file = tmp_path / "names.txt"
    file.write_text("\n".join(lines + [f"images/train/{NAME.format(8, '')}", NAME.format(7, "")]))
    places = read("at_names", tmp_path / "absent", paths_file=file)
    assert places.east.tolist() == [3, 1, 2, 8, 7]
    assert places.role.tolist() == [1, 0, 1, 0, 0] and places.split.tolist() == [1, 1, 1, 0, -1]
    assert read("at_names", tmp_path, paths_file=file, split="val", folders=["queries"]).east.tolist() == [3, 2]
    with pytest.raises(DataError, match=r"split None\b.*\['queries_v2'\]"):
        read("at_names", tmp_path, paths_file=file, folders=["queries_v2"])


def test_lists_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match=r"empty\.txt.*\bempty\b"):
        read("at_names", tmp_path, paths_file=tmp_path / "empty.txt")
    with pytest.raises(DataError, match=r"\bread\b.*absent\.txt"):
        read("at_names", tmp_path, paths_file=tmp_path / "absent.txt")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"@1@2@.jpg" * 99)[:20])
    with pytest.raises(DataError, match=r"\bread\b.*cut\.txt\.gz"):
        read("at_names", tmp_path, paths_file=tmp_path / "cut.txt.gz")


def test_folders_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"no image.*\.jpg"):
        read("at_names", tmp_path)
    with pytest.raises(DataError, match=r"not found.*absent\b"):
        read("at_names", tmp_path / "absent")
    write(tmp_path, f"good/{NAME.format(1, '')}", "good/movie.mp4")
    with pytest.raises(DataError, match=r"good holds 1 \.mp4 \(first: movie\.mp4\), which are neither images"):
        read("at_names", tmp_path / "good")

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"folder.*good\b.*Permission denied"):
        at_names.read(tmp_path / "good")


def test_a_name_without_coordinates_on_disk(tmp_path):
    write(tmp_path, f"train/{NAME.format(1, '')}", "train/IMG_0001.jpg")
    with pytest.raises(DataError, match=r"IMG_0001\.jpg.*coordinates"):
        read("at_names", tmp_path)


def test_unknown_reader_lists_what_exists(tmp_path):
    with pytest.raises(DataError, match=r"reader.*'kitti'.*\['at_names'"):
        read("kitti", tmp_path)
