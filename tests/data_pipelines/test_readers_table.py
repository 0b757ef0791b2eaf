"""The CSV reader: every column, other names for them, and errors that name the line."""

import os

import numpy as np
import pytest

from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.readers import read


def write(tmp_path, text, name="list.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path


def test_ie_tower(real_data):
    columns = {"path": "image_path", "place": "label", "role": "split"}
    places = read("csv", real_data / "ie_tower", columns=columns)
    assert len(places) == 2877 and np.bincount(places.role).tolist() == [2373, 504] and set(places.split) == {-1}
    folders = [places.path.relative(i).split("/")[0] for i in range(len(places))]
    assert len(set(folders)) == len(set(places.place)) == 25
    order = sorted(set(folders))
    assert [order[p] for p in places.place] == folders  # the label is the folder, numbered in sorted order
    assert all((real_data / "ie_tower" / places.path.relative(i)).is_file() for i in (0, 1000, 2876))


def test_some_floors_of_ie_tower(real_data):
    """As configs/real.py divides them."""
    from configs.real import FLOORS, TEST_FLOORS, TRAIN_FLOORS

    columns = {"path": "image_path", "place": "label", "role": "split"}
    test, train = (
        read("csv", real_data / "ie_tower", columns=columns, only={"label": floors})
        for floors in (TEST_FLOORS, TRAIN_FLOORS)
    )
    assert len(TEST_FLOORS) == 10 and sorted(TRAIN_FLOORS) == [*train.place_names] and len(TRAIN_FLOORS) == 15
    assert sorted(TEST_FLOORS) == [*test.place_names] and sorted((*test.place_names, *train.place_names)) == sorted(
        FLOORS
    )
    assert len(test) + len(train) == 2877 and {*np.unique(test.role), *np.unique(train.role)} == {0, 1}


def test_rows_of_some_cells_and_errors_that_name_their_line(tmp_path):
    write(tmp_path, "path,floor,heading\na.jpg, 3,1\nb.jpg,4,2\nc.jpg,3,x\nd.jpg,5,4\n")
    assert read("csv", tmp_path, only={"floor": ("4", 5)}).heading.tolist() == [2, 4]
    assert read("csv", tmp_path, only={"floor": "4"}).heading.tolist() == [2]
    assert len(read("csv", tmp_path, only={"floor": ("4", "5"), "heading": ("2",)})) == 1
    with pytest.raises(DataError, match=r"line 4, column heading: 'x'"):
        read("csv", tmp_path, only={"floor": ("3",)})
    with pytest.raises(DataError, match=r"no row has '6' in its column floor.*\['3', '4', '5'\]"):
        read("csv", tmp_path, only={"floor": ("3", "6")})
    with pytest.raises(DataError, match=r"no column 'level'.*'path', 'floor', 'heading'"):
        read("csv", tmp_path, only={"level": ("3",)})
    with pytest.raises(DataError, match="no row has '' in its column floor"):
        read("csv", tmp_path, only={"floor": ()})


def test_a_part_of_the_map(tmp_path):
    write(tmp_path, "path,east,north\na.jpg,0,0\nb.jpg,10,5\nc.jpg,10,4.9\nd.jpg,20,5\ne.jpg,,\n")
    keep = {"without_position": "keep"}
    assert read("csv", tmp_path, within=(0, 0, 20, 5), **keep).path.relative(1) == "c.jpg"
    assert len(read("csv", tmp_path, within=(0, 0, 20, 5), **keep)) == 2
    whole, drawn = read("csv", tmp_path, **keep), [read("csv", tmp_path, most=n, **keep).path for n in (1, 2, 4, 99)]
    names = [[paths.relative(row) for row in range(len(paths))] for paths in drawn]
    assert [len(some) for some in names] == [1, 2, 4, 5] and names[3] == [whole.path.relative(row) for row in range(5)]
    assert set(names[0]) < set(names[1]) < set(names[2])
    with pytest.raises(DataError, match="most=0 must be a number of images, 1 or more"):
        read("csv", tmp_path, most=0, **keep)
    with pytest.raises(DataError, match=r"none of 5 images lies within=\(30, 0, 40, 5\).*0 to 20 and 0 to 5"):
        read("csv", tmp_path, within=(30, 0, 40, 5), **keep)
    for wrong in ((0, 0, 5), (5, 0, 0, 5), (0, 0, float("nan"), 5), ("a", 0, 5, 5)):
        with pytest.raises(DataError, match=r"within=.*west, south, east, north"):
            read("csv", tmp_path, within=wrong, **keep)


def test_every_column(tmp_path):
    write(
        tmp_path,
        "\ufeffpath,lat,lon,heading,place,time,split,role,condition,view,sequence,frame,camera\n"
        "a.jpg,59.95697,10.64221,370,17,2019-11-03T08:30:00Z,train,gallery,snow,Sideways,b,4,x\n"
        '"b,c.jpg", 59.95698 ,10.64222,,,,,,,,,,\n'
        "\n"
        "d.jpg,59.95699,10.64223,-90,3,2019-11-03 09:30:00+01:00,Validation,Query,day,forward,a,5,\n",
    )
    places = read("csv", tmp_path)
    assert [places.path.relative(i) for i in range(3)] == ["a.jpg", "b,c.jpg", "d.jpg"]
    east, north, zone = geo.to_utm([59.95697, 59.95698, 59.95699], [10.64221, 10.64222, 10.64223])
    assert (places.east == east).all() and (places.north == north).all() and (places.zone == zone).all()
    assert zone.tolist() == [32] * 3
    assert np.array_equal(places.heading, [10, np.nan, 270], equal_nan=True)
    assert places.place.tolist() == [17, -1, 3]
    assert places.sequence[1] == -1 < places.sequence[0] != places.sequence[2] > -1
    assert places.frame.tolist() == [4, -1, 5]
    assert places.time[0] == places.time[2] == np.datetime64("2019-11-03T08:30:00") and np.isnat(places.time[1])
    assert places.split.tolist() == [0, -1, 1] and places.role.tolist() == [0, -1, 1]
    assert places.conditions == ("day", "snow") and places.condition.tolist() == [2, 0, 1]
    assert places.view.tolist() == [2, -1, 0]
    assert set(read("csv", tmp_path, zone=33).zone) == {33}


def test_conditions_of_one_cell_are_separated_by_semicolons(tmp_path):
    write(tmp_path, "path,light\na.jpg,night; winter\nb.jpg,\nc.jpg,winter\nd.jpg,winter;night;winter\n")
    places = read("csv", tmp_path, columns={"condition": "light"})
    assert places.conditions == ("night", "winter") and places.condition.tolist() == [3, 0, 2, 3]
    assert places.having("night").tolist() == [True, False, False, True]
    rows = "".join(f"{k}.jpg,c{k}\n" for k in range(64))
    write(tmp_path, f"path,light\n{rows}")
    with pytest.raises(DataError, match=r"list\.csv, column light: at most 63\b.*\b64\b"):
        read("csv", tmp_path, columns={"condition": "light"})


def test_headers_as_people_write_them(tmp_path):
    wanted = geo.to_utm(*np.array([[59.5, 59.6], [10.5, 10.25]]))
    for header in ("path, lat, lon", "\ufeffpath,Latitude,Longitude", "lat ,path, LNG", "path,latitude,long"):
        rows = [
            dict(zip(("path", "lat", "lon"), row, strict=True))
            for row in (("a.jpg", 59.5, 10.5), ("b.jpg", 59.6, 10.25))
        ]
        order = ("lat", "path", "lon") if header.startswith("lat") else ("path", "lat", "lon")
        lines = "\r\n".join(", ".join(str(row[column]) for column in order) for row in rows)
        places = read("csv", write(tmp_path, f"{header}\r\n{lines}\r\n"))
        assert (places.east == wanted[0]).all() and (places.north == wanted[1]).all(), header
        assert places.path.relative(1) == "b.jpg"
    write(tmp_path, "path,Easting,northing,lat\na.jpg,1,2,7\n")
    places = read("csv", tmp_path, columns={"heading": "lat"})
    assert (places.east[0], places.north[0], places.heading[0]) == (1, 2, 7)
    assert len(read("csv", tmp_path / "list.csv", columns={"heading": "lat"})) == 1, "the table itself as root"


def test_rows_without_coordinates_are_kept_or_left_out(tmp_path):
    write(tmp_path, "path,lat,lon\na.jpg,59.5,10.5\nb.jpg,,10.5\nc.jpg,,\nd.jpg,59.5,10.5\n")
    kept = read("csv", tmp_path, without_position="keep")
    assert kept.located.tolist() == [True, False, False, True] and kept.single_zone() == 32
    assert kept.unlocated() == f"{tmp_path / 'b.jpg'} and 1 more of 4 images have no coordinates"
    left = read("csv", tmp_path, without_position="drop")
    assert [left.path.relative(row) for row in range(len(left))] == ["a.jpg", "d.jpg"]
    write(tmp_path, "path,east,north\na.jpg,1,2\nb.jpg,,\n")
    assert read("csv", tmp_path, without_position="keep").located.tolist() == [True, False]
    assert len(read("csv", tmp_path, without_position="drop")) == 1


def test_sequences_of_two_tables_are_one_where_their_names_are(tmp_path):
    """`extract --images=A.csv --images=B.csv` cuts no clip across two drives, each of which its table counts first."""
    write(tmp_path, "path,sequence,frame\na.jpg,monday,0\nb.jpg,tuesday,0\n", "a.csv")
    write(tmp_path, "path,sequence,frame\nc.jpg,tuesday,1\nd.jpg,wednesday,1\n", "b.csv")
    one, other = (read("csv", tmp_path, file=name).sequence for name in ("a.csv", "b.csv"))
    assert one[1] == other[0] and len({*one, *other}) == 3


def test_minus_one_is_unknown(tmp_path):
    write(tmp_path, "path,place,sequence,frame\na.jpg,-1,-1,-1\nb.jpg,4,hall,4\nc.jpg,,,\n")
    places = read("csv", tmp_path)
    assert places.place.tolist() == [-1, 4, -1] and places.frame.tolist() == [-1, 4, -1]
    assert (places.sequence >= 0).tolist() == [False, True, False]


def test_metres_stay_as_they_are(tmp_path):
    write(tmp_path, "path,x,y\na.jpg,-1.5,2e3\n")
    options = {"columns": {"east": "x", "north": "y"}, "split": "test"}
    places = read("csv", tmp_path, **options)
    assert (places.east[0], places.north[0], places.zone[0], places.split[0]) == (-1.5, 2000, -1, 2)
    assert read("csv", tmp_path, zone=32, **options).zone.tolist() == [32]


def test_roles_of_ones_own(tmp_path):
    write(tmp_path, "path,role\na.jpg,MAP\nb.jpg,walk\n")
    assert read("csv", tmp_path, roles={"MAP": "database", "walk": "query"}).role.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("path,lat,lon\na.jpg,1,2\nb.jpg,x,2\n", {}, r"list\.csv.*line 3.*\blat\b.*'x'"),
        ("path,lat,lon\na.jpg,1,2\nb.jpg,,2\n", {}, r"line 3.*\blat\b.*''.*--reader=csv,without_position=drop"),
        ("path,lat,lon\na.jpg,1,2\nb.jpg,,inf\n", {"without_position": "keep"}, r"line 3.*\blon\b.*'inf'"),
        ("path\na.jpg\n", {"without_position": "skip"}, r"without_position='skip' is one of error, drop, keep"),
        ("path,lat,lon\na.jpg,122,37\n", {}, r"line 2.*\blat\b.*'122'.*±84"),
        ("path,lat,lon\na.jpg,37,222\n", {}, r"line 2.*\blon\b.*'222'.*±180"),
        ("path,lat\na.jpg,1\n", {}, r"\blat\b.*\blon\b.*\['path', 'lat'\]"),
        ("path,east\na.jpg,1\n", {}, r"\beast\b.*\bnorth\b.*\['path', 'east'\]"),
        ('path,note\n"a\nb.jpg",1\nc.jpg\n', {}, r"line 4.*\b1 fields.*\b2\b"),
        ("path,heading\na.jpg,inf\n", {}, "heading.*'inf'"),
        ("path,frame\na.jpg,1.5\n", {}, r"frame.*'1\.5'.*an integer"),
        ("path,time\na.jpg,yesterday\n", {}, "'yesterday'.*ISO 8601"),
        ("path,split\na.jpg,trian\n", {}, r"'trian'.*\['train', 'val', 'test'\]"),
        ("path,condition\na.jpg,day;;rain\n", {}, r"list\.csv, line 2, column condition: 'day;;rain'.*night;rain"),
        ("path,role\na.jpg,walk\n", {}, r"'walk'.*\['database', 'query', 'target'\]"),
        ("path,view\na.jpg,up\n", {}, r"\bview\b.*'up'.*\['forward', 'backward', 'sideways'\]"),
        ("image\na.jpg\n", {}, r"\bpath\b.*\['image'\].*\bcolumns\.path=image\b"),
        ("path,lat,latitude,lon\na.jpg,1,2,3\n", {}, r"'lat' and 'latitude' are both lat\b.*columns\.lat=NAME"),
        ("path,path\na.jpg,b.jpg\n", {}, r"'path' and 'path' are both path"),
        ("path,x,x\na.jpg,1,2\n", {"columns": {"place": "x"}}, r"'x' and 'x'"),
        ("path,frame\na.jpg,9223372036854775808\n", {}, r"line 2, column frame: '9223372036854775808' is not"),
        ("path,frame\na.jpg,-2\n", {}, r"line 2, column frame: '-2' is not an integer from 0"),
        ("path,east,north\na.jpg,1,1e30\n", {}, r"a\.jpg: east 1, north 1e\+30 is no position"),
        ("path,lat,lon\na.jpg,1_0,2\n", {}, r"line 2.*\blat\b.*'1_0'"),
        (
            "path;lat;lon\na.jpg;1;2\n",
            {},
            r"list\.csv, line 1: 'path;lat;lon' has ';' between its fields; save .* commas",
        ),
        ("path\tlat\na.jpg\t1\n", {}, r"line 1: .*'\\t' between"),
        ("path\na.jpg\nb\0.jpg\n", {}, r"list\.csv: line 3 is not text in UTF-8"),
        ("path\n" + "a" * 200_000 + "\n", {}, r"list\.csv as CSV: line 2: .*131072"),
        ("path,time\na.jpg," + "x" * 100_000 + "\n", {}, r"^.{,400}$"),
        ("path\n,\n", {}, r"line 2.*\b2 fields"),
        ("path,place\n ,3\n", {}, r"line 2.*\bpath\b.*' '"),
        ("path\n", {}, "no rows"),
        ("path\na.jpg\n", {"columns": {"place": "label"}}, r"column.*\['label'\].*\['path'\]"),
        ("path\na.jpg\n", {"columns": {"palce": "path"}}, r"column.*\['palce'\]"),
        ("path\na.jpg\n", {"split": "trian"}, "split.*'trian'"),
        ("path\na.jpg\n", {"file": "other.csv"}, r"\bread\b.*other\.csv"),
    ],
)
def test_bad_files_are_named(tmp_path, text, options, message):
    with pytest.raises(DataError, match=message):
        read("csv", write(tmp_path, text), **options)


def test_which_file(tmp_path):
    with pytest.raises(DataError, match=r"\b0 \.csv"):
        read("csv", tmp_path)
    write(tmp_path, "path\na.jpg\n")
    write(tmp_path, "path\nb.jpg\nc.jpg\n", "other.csv")
    with pytest.raises(DataError, match=r"\b2 \.csv.*\['list\.csv', 'other\.csv'\].*file"):
        read("csv", tmp_path)
    assert len(read("csv", tmp_path, file="other.csv")) == 2
    (tmp_path / "latin.csv").write_bytes("path\nä.jpg\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv: line 2 is not text in UTF-8"):
        read("csv", tmp_path, file="latin.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match=r"pipe\.csv.*a pipe"):
        read("csv", tmp_path, file="pipe.csv")
    with pytest.raises(DataError, match=r"not found.*gone\b"):
        read("csv", tmp_path / "gone")


def test_unknown_option_lists_those_there_are(tmp_path):
    with pytest.raises(DataError, match=r"\bcsv\b.*option.*\['colums'\].*\['file', 'columns'"):
        read("csv", tmp_path, colums={})


def test_a_table_may_name_the_zone_of_each_row(tmp_path):
    (tmp_path / "a.csv").write_text(
        "path,east,north,zone\na.jpg,5,6,33\nb.jpg,5,6,133\nc.jpg,5,6,33 south\nd.jpg,5,6,\n"
    )
    assert read("csv", tmp_path).zone.tolist() == [33, 133, 133, -1]
    (tmp_path / "a.csv").write_text("path,lat,lon,zone\na.jpg,45,11.9,\nb.jpg,45,11.9,33north\n")
    places = read("csv", tmp_path)
    assert places.zone.tolist() == [32, 33] and places.east[0] > 500_000 > places.east[1]
    (tmp_path / "a.csv").write_text("path,east,north,zone\na.jpg,5,6,33S\n")
    with pytest.raises(DataError, match=r"a\.csv, line 2, column zone: '33S' is not a UTM zone such as 33north"):
        read("csv", tmp_path)
