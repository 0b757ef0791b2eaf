"""MSLS as it is downloaded: what the official toolkit keeps is kept, and every bad row is named."""

import csv
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.places import VIEWS
from data_pipelines.readers import msls, read
from jaxvpr import builders

CENTRES = {"cph": (55.68, 12.57), "sf": (37.77, -122.42), "zurich": (47.37, 8.54)}
TABLES = ("raw", "postprocessed", "seq_info", "subtask_index")


def write_city(root, city, seed=0, count=60):
    """A city with two sides of `count` images each, in sequences of a dozen frames with gaps; test cities without
    positions. Database and queries pass the same street, of which some queries stray."""
    rng = np.random.default_rng([seed, len(city)])
    test = city in msls.CITIES["test"]
    for side in ("database", "query"):
        folder = root / ("test" if test else "train_val") / city / side
        (folder / "images").mkdir(parents=True)
        keys = [f"{city}-{side[0]}{k:03d}_x" for k in range(count)]
        (folder / "images" / f"{keys[0]}.jpg").touch()
        tables = {name: [] for name in TABLES}
        for k, key in enumerate(keys):
            frame = k % 12 + (k % 12 > 7) * 3  # frames 8 to 10 of each sequence are missing
            tables["seq_info"].append({"key": key, "sequence_key": f"{city}_{side}_{k // 12}", "frame_number": frame})
            flags = {"all": side == "database" or bool(rng.random() < 0.5)}
            flags |= {name: bool(rng.random() < 0.4) for name in msls.SUBTASKS[1:]}
            tables["subtask_index"].append(flags)
            if test:
                continue
            lat, lon = CENTRES[city]
            lat, lon = lat + k * 1e-4 + rng.normal() * 3e-5, lon + rng.normal() * 1e-4 + (rng.random() < 0.2) * 0.01
            east, north, _ = geo.to_utm(np.array([lat]), np.array([lon]))
            tables["raw"].append(
                {"key": key, "lon": lon, "lat": lat, "ca": round(rng.random() * 400, 2),
                 "captured_at": f"201{k // 12}-0{k // 12 % 9 + 1}-11", "pano": bool(rng.random() < 0.1)}
            )  # fmt: skip
            tables["postprocessed"].append(
                {"key": key, "easting": float(east[0]), "northing": float(north[0]), "unique_cluster": k,
                 "control_panel": bool(rng.random() < 0.2), "night": bool(rng.random() < 0.3),
                 "view_direction": ("Forward", "Backward", "Sideways")[k % 3]}
            )  # fmt: skip
        for name, rows in tables.items():
            if rows:
                _write(folder / f"{name}.csv", rows)


def _write(file, rows):
    with file.open("w", newline="") as stream:
        table = csv.DictWriter(stream, ["", *rows[0]])
        table.writeheader()
        table.writerows({"": k, **row} for k, row in enumerate(rows))


def table_of(folder, name):
    with (folder / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("msls")
    for city in ("cph", "sf", "zurich", "miami"):
        write_city(root, city)
    return root


def names(places):
    return [Path(places.path.relative(k)).name for k in range(len(places))]


def kept(root, city, side, subtask):
    """Names that the rules of the toolkit keep, by a plain loop."""
    folder = root / "train_val" / city / side
    rows = zip(table_of(folder, "raw"), table_of(folder, "subtask_index"), strict=True)
    return [
        f"{raw['key']}.jpg"
        for raw, index in rows
        if raw["pano"] == "False" and (subtask is None or index[subtask] == "True")
    ]


@pytest.mark.parametrize("subtask", msls.SUBTASKS)
def test_official_validation_keeps_the_subtask_of_both_sides_without_panoramas(root, subtask):
    places = read("msls", root, split="val", protocol="official", subtask=subtask)
    for side, role in (("database", "database"), ("query", "query")):
        assert names(places.select(role=role)) == kept(root, "cph", side, subtask) + kept(root, "sf", side, subtask)
    assert set(places.split) == {1} and set(places.zone) == {33, 10}


def test_the_other_protocol_and_training_keep_all_but_panoramas(root):
    everything = read("msls", root, split="val", protocol="all")
    assert names(everything.select(role="query")) == kept(root, "cph", "query", None) + kept(root, "sf", "query", None)
    official = read("msls", root, split="val", protocol="official").select(role="query")
    assert names(everything.select(role="query", condition="official")) == names(official)
    train = read("msls", root, split="train")
    assert names(train.select(role="query")) == kept(root, "zurich", "query", None) and set(train.split) == {0}
    with_panoramas = read("msls", root, split="val", protocol="all", panoramas=True)
    assert len(with_panoramas) == 240 > len(everything)


def test_columns_are_those_of_the_tables(root):
    places = read("msls", root, split="val", protocol="all", panoramas=True, cities=["sf"])
    folder = root / "train_val/sf/query"
    queries = places.select(role="query")
    raw, post, info = (table_of(folder, name) for name in TABLES[:3])
    assert [queries.path[k] for k in range(2)] == [str(folder / "images" / f"{raw[k]['key']}.jpg") for k in range(2)]
    assert queries.east.tolist() == [float(row["easting"]) for row in post]
    assert queries.north.tolist() == [float(row["northing"]) for row in post]
    np.testing.assert_allclose(queries.heading, [float(row["ca"]) % 360 for row in raw], atol=1e-4)
    assert queries.time.astype("datetime64[D]").astype(str).tolist() == [row["captured_at"] for row in raw]
    assert [VIEWS[code].title() for code in queries.view] == [row["view_direction"] for row in post]
    assert queries.frame.tolist() == [int(row["frame_number"]) for row in info]
    same = {row["sequence_key"]: number for row, number in zip(info, queries.sequence.tolist(), strict=True)}
    assert [same[row["sequence_key"]] for row in info] == queries.sequence.tolist() and len(set(same.values())) == 5
    assert queries.having("night").tolist() == [row["night"] == "True" for row in post]
    assert (queries.having("day") == ~queries.having("night")).all()
    assert queries.having("control_panel").tolist() == [row["control_panel"] == "True" for row in post]
    assert queries.having("n2d").tolist() == [row["n2d"] == "True" for row in table_of(folder, "subtask_index")]


def test_cities_to_test_on_have_sequences_and_subtasks_alone(root):
    places = read("msls", root, split="test", protocol="official", subtask="d2n")
    assert not places.located.any() and (places.frame >= 0).all() and set(places.split) == {2}
    index = table_of(root / "test/miami/query", "subtask_index")
    assert len(places.select(role="query")) == sum(row["d2n"] == "True" for row in index)
    assert not places.having("day", "night").any() and places.having("d2n").all()


def test_the_protocol_line_says_which_protocol_it_is(root):
    def measured(**keys):
        return builders.benchmarks(common.base(), ConfigDict({"msls": common.data("msls", str(root), "val", **keys)}))[
            0
        ]

    assert measured(protocol="official", subtask="d2n").split == "val (official, d2n)"
    clips = measured(protocol="all", conditions=("official",), clips={"length": 3})
    assert clips.split == "val (all, official)"
    assert clips.query_clips.places.having("official").all()
    official = measured(protocol="official")
    assert len(clips.queries) < len(official.queries) < len(measured(protocol="all").queries)
    assert set(official.queries.zone) == {33, 10}, "both cities in one benchmark"


def test_a_split_of_ones_own_cities(root):
    places = read("msls", root, split="test", cities=["zurich", "cph"], protocol="all")
    assert set(places.split) == {2} and {n.split("-")[0] for n in names(places)} == {"cph", "zurich"}
    everything = read("msls", root, protocol="all")
    assert set(everything.split) == {0, 1, 2}


def test_what_is_asked_for_and_is_not_there(root, tmp_path):
    for options, said in (
        ({"split": "val"}, "two protocols .*protocol=official.*protocol=all"),
        ({"split": "val", "protocol": "challenge"}, "protocol='challenge' is one of official, all"),
        ({"split": "val", "protocol": "all", "subtask": "d2n"}, "subtask=d2n .*not to protocol=all"),
        ({"split": "val", "protocol": "official", "subtask": "d2d"}, "subtask='d2d' is one of all, s2w"),
        ({"cities": ["oslo"]}, r"no city \['oslo'\]; it has \['cph', 'miami', 'sf', 'zurich'\]"),
    ):
        with pytest.raises(DataError, match=said):
            read("msls", root, **options)
    with pytest.raises(DataError, match="no folder train_val/<city> or test/<city>"):
        read("msls", tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("raw", {"lat": "north"}, r"raw\.csv, line 4, column lat: 'north' is not degrees"),
        ("raw", {"pano": "no"}, "column pano: 'no' is not True or False"),
        ("raw", {"captured_at": "May 2017"}, "column captured_at: 'May 2017' is not a day"),
        ("raw", {"key": "other"}, r"raw\.csv, line 4, column key: 'other', but 'zurich-q002_x' in seq_info"),
        ("postprocessed", {"easting": "inf"}, "column easting: 'inf' is not metres"),
        ("postprocessed", {"view_direction": "Up"}, r"column view_direction: 'Up' is not one of \['Forward'"),
        ("seq_info", {"frame_number": ""}, r"seq_info\.csv, line 4, column frame_number: '' is not a frame number"),
        ("seq_info", {"frame_number": "1"}, r"q001_x\.jpg and .*q002_x\.jpg are both frame 1 of one sequence"),
        ("seq_info", {"key": "../../secret"}, "column key: '../../secret' is not a key"),
        ("subtask_index", {"o2n": "1"}, "column o2n: '1' is not True or False"),
    ],
)
def test_a_bad_row_is_named(tmp_path, name, change, said):
    write_city(tmp_path, "zurich", count=6)
    folder = tmp_path / "train_val/zurich/query"
    rows = table_of(folder, name)
    rows[2] |= change
    _write(folder / f"{name}.csv", [{k: v for k, v in row.items() if k} for row in rows])
    with pytest.raises(DataError, match=said):
        read("msls", tmp_path, split="train")


def test_tables_and_images_that_are_missing_are_named(tmp_path):
    write_city(tmp_path, "zurich", count=6)
    folder = tmp_path / "train_val/zurich/query"
    lines = (folder / "raw.csv").read_text().splitlines(keepends=True)
    (folder / "raw.csv").write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match=r"raw\.csv has 5 rows, seq_info\.csv beside it 6"):
        read("msls", tmp_path)
    (folder / "raw.csv").write_text("".join(lines).replace(",pano", ",round"))
    with pytest.raises(DataError, match=r"raw\.csv has no column pano; its header is"):
        read("msls", tmp_path)
    (folder / "raw.csv").unlink()
    with pytest.raises(DataError, match=r"cannot read .*raw\.csv"):
        read("msls", tmp_path)
    next((tmp_path / "train_val/zurich/database/images").iterdir()).unlink()
    with pytest.raises(DataError, match=r"line 2: there is no image .*zurich-d000_x\.jpg"):
        read("msls", tmp_path)
