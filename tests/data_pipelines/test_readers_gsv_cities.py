"""GSV-Cities: names that follow from rows, places over cities, samples, real rows of two cities, and every error."""

import gzip
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.readers import read

HEADER = "place_id,year,month,northdeg,city_id,lat,lon,panoid"
# The first rows are those of the published description, with the names that it gives for them.
LONDON = (
    "130,2018,4,15,London,51.4861,-0.0895151,6jFjb3wGyCkcBfq4k559ag",
    "6793,2016,7,2,London,51.5187,-0.160767,Ff3OtsS4ihGSPdPjtlpEUA",
    "130,2019,11,-5,London,51.48610,-0.0895,0_-xcCsazIGAjdNC96IF0w",
    "6793,2008,12,584,London,51,0.00001,zFbmpj8jt8natu7IPYrh_w",
    "130,2019,1,100,London,51.4861,-0.0895151,third",
)
NAMES = (
    "London/London_0000130_2018_04_015_51.4861_-0.0895151_6jFjb3wGyCkcBfq4k559ag.jpg",
    "London/London_0006793_2016_07_002_51.5187_-0.160767_Ff3OtsS4ihGSPdPjtlpEUA.jpg",
    "London/London_0000130_2019_11_-05_51.4861_-0.0895_0_-xcCsazIGAjdNC96IF0w.jpg",
    "London/London_0006793_2008_12_584_51.0_1e-05_zFbmpj8jt8natu7IPYrh_w.jpg",
    "London/London_0000130_2019_01_100_51.4861_-0.0895151_third.jpg",
)
ROWS = 1000  # of each real city
ROME = ("130,2017,6,7,Rome,41.9,12.5,aaa", "130,2017,6,8,Rome,41.9,12.5,bbb")


def write(root, cities, images=NAMES[:1]):
    (root / "Dataframes").mkdir(exist_ok=True)
    for city, rows in cities.items():
        (root / "Dataframes" / f"{city}.csv").write_text("\n".join((HEADER, *rows)) + "\n")
    for image in images:
        (root / "Images" / image).parent.mkdir(parents=True, exist_ok=True)
        (root / "Images" / image).touch()
    return root


ROME_IMAGE = "Rome/Rome_0000130_2017_06_007_41.9_12.5_aaa.jpg"


def relative(places):
    return [places.path.relative(row) for row in range(len(places))]


def test_rows_become_names(tmp_path):
    places = read("gsv_cities", write(tmp_path, {"London": LONDON}), min_images=2, split="train", role="database")
    assert tuple(relative(places)) == NAMES
    assert places.path[0] == str(tmp_path / "Images" / NAMES[0])
    assert places.place.tolist() == [places.place[k] for k in (0, 1, 0, 1, 0)] and places.place[0] != places.place[1]
    east, north, _ = geo.to_utm(51.4861, -0.0895151, 30)
    assert (places.east[0], places.north[0]) == (east, north)
    assert set(places.zone) == {30}  # row 4 lies in zone 31, but a city stays in one
    assert places.time.astype("datetime64[M]").astype(str).tolist() == [
        "2018-04", "2016-07", "2019-11", "2008-12", "2019-01",
    ]  # fmt: skip
    assert np.isnan(places.heading).all() and set(places.split) == {0} and set(places.role) == {0}
    assert places.name == tmp_path.name


def test_small_places_are_left_out_and_other_columns_ignored(tmp_path):
    root = write(tmp_path, {"London": LONDON})
    assert len(read("gsv_cities", root, min_images=3)) == 3
    file = root / "Dataframes" / "London.csv"
    lines = [",".join([str(k), *reversed(line.split(","))]) for k, line in enumerate(file.read_text().splitlines())]
    file.write_text("\n".join(lines) + "\n\n")
    assert tuple(relative(read("gsv_cities", root, min_images=1))) == NAMES
    with pytest.raises(DataError, match=r"\b4 images.*\b3\b.*min_images"):
        read("gsv_cities", root)


def test_equal_place_ids_of_two_cities_are_two_places(tmp_path):
    root = write(tmp_path, {"Rome": ROME, "London": LONDON}, (NAMES[0], ROME_IMAGE))
    both = read("gsv_cities", root, min_images=2)
    assert both.path.relative(0) == NAMES[0] and both.path.relative(5) == ROME_IMAGE  # cities come sorted
    assert len(set(both.place)) == 3 and both.zone.tolist() == [30] * 5 + [33] * 2
    alone = read("gsv_cities", root, min_images=2, cities=["Rome"])
    assert alone.place.tolist() == both.place[5:].tolist()
    with pytest.raises(DataError, match=r"\['Paris'\].*Dataframes.*\['London', 'Rome'\]"):
        read("gsv_cities", root, cities=["Paris", "Rome"])
    with pytest.raises(DataError, match=r"cities='Rome' is not several names"):
        read("gsv_cities", root, cities="Rome")
    write(root, {"Roma": ROME})
    with pytest.raises(DataError, match=r"Roma\.csv.*Rome\.csv.*'Rome'.*cities"):
        read("gsv_cities", root, min_images=2)


def test_numbers_in_names_are_cut_to_five_digits(tmp_path):
    image = "Rome/Rome_0000130_2017_06_007_41.9_12.5_aaa.jpg"
    root = write(tmp_path, {"Rome": (ROME[0], "100" + ROME[0])}, [image])
    places = read("gsv_cities", root, min_images=1)
    assert relative(places) == [image, image] and np.diff(places.place) == [100_000]


def test_cities_of_one_size_keep_other_places_of_a_sample(tmp_path):
    rows = [[f"{k},2017,6,7,{city},41.9,12.5,a" for k in range(40)] for city in ("Rome", "Pisa")]
    images = [f"{city}/{city}_{k:07d}_2017_06_007_41.9_12.5_a.jpg" for city in ("Rome", "Pisa") for k in range(40)]
    places = read("gsv_cities", write(tmp_path, {"Rome": rows[0], "Pisa": rows[1]}, images), min_images=1, sample=0.5)
    kept = places.place.reshape(2, 20) % 2**24
    assert set(kept[0]) != set(kept[1])


def test_images_with_a_large_suffix(tmp_path):
    root = write(tmp_path, {"London": LONDON}, [NAMES[0].replace(".jpg", ".JPG")])
    assert relative(read("gsv_cities", root, min_images=1))[4].endswith("third.JPG")


@pytest.fixture(scope="module")
def real_rows(real_data, tmp_path_factory):
    """Two cities of GSV-XS as GSV-Cities' tables: root, and what the '@' reader makes of the names."""
    root = tmp_path_factory.mktemp("gsv")
    places = {}
    for city in ("osl", "prg"):
        file = real_data / "gsv_xs_names" / f"{city}.txt.gz"
        with gzip.open(file, "rt") as lines:
            fields = [line.split("@") for line in islice(lines, ROWS)]
        rows, images = [], []
        for f in fields:
            (number, name), year, month, lat, lon = f[14].split("_"), f[13][:4], f[13][4:], float(f[5]), float(f[6])
            rows.append(f"{number},{year},{int(month)},{int(f[9])},{name},{lat},{lon},{f[7]}")
            images.append(f"{name}/{name}_{number.zfill(7)}_{year}_{month}_{f[9].zfill(3)}_{lat}_{lon}_{f[7]}.jpg")
        write(root, {name: rows}, images[:1])
        for image in images:
            (root / "Images" / image).touch()
        places[name] = read("at_names", real_data / "gsv_xs_names", paths_file=file).take(np.arange(ROWS))
    return root, places


def test_real_rows_agree_with_the_names_of_gsv_xs(real_rows):
    root, wanted = real_rows
    for city, names in wanted.items():
        places = read("gsv_cities", root, cities=[city], min_images=1)
        assert (places.place == names.place).all() and (places.zone == names.zone).all()
        assert (places.time == names.time).all() and all(Path(path).exists() for path in places.path)
        # the names cut degrees off after five decimals: 1.11 m of latitude, 0.72 m of longitude in Prague
        assert np.hypot(places.east - names.east, places.north - names.north).max() < 1.33
    sizes = np.unique(np.concatenate([names.place for names in wanted.values()]), return_counts=True)[1]
    four = read("gsv_cities", root)
    assert len(four) == sizes[sizes >= 4].sum() and len(set(four.place)) == (sizes >= 4).sum()


def test_a_sample_keeps_whole_places(real_rows):
    root, _ = real_rows
    whole, few = read("gsv_cities", root), read("gsv_cities", root, sample=0.1)
    for zone in (32, 33):
        there, kept = (set(table.place[table.zone == zone]) for table in (whole, few))
        assert kept < there and len(kept) == round(0.1 * len(there))
    assert len(few) == np.isin(whole.place, few.place).sum()
    alone = read("gsv_cities", root, cities=["PRG"], sample=0.1)
    assert alone.place.tolist() == few.place[few.zone == 33].tolist()
    other = read("gsv_cities", root, sample=0.1, seed=1)
    assert set(other.place) != set(few.place)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,2017,6,7,Rome,41.9,12.5,a", r"Rome\.csv.*row 2.*place_id.*'x'.*an integer.*\b0 to"),
        ("1,2017,13,7,Rome,41.9,12.5,a", r"row 2.*month.*'13'.*an integer.*\b1 to 12"),
        ("1,20177,1,7,Rome,41.9,12.5,a", "year.*'20177'"),
        ("1,2017,1,7.5,Rome,41.9,12.5,a", r"northdeg.*'7\.5'.*an integer"),
        ("1,2017,1,7,Rome,91.9,12.5,a", r"\blat\b.*'91\.9'.*-84 to 84"),
        ("1,2017,1,7,Rome,nan,12.5,a", r"\blat\b.*'nan'"),
        ("1,2017,1,7,Rome,41.9,,a", r"\blon\b.*''"),
        ("1,2017,1,7,Rome,41.9,12.5,", "panoid.*''"),
        ("1,2017,1,7,,41.9,12.5,a", "city_id.*''"),
        ("99999999999999999999,2017,1,7,Rome,41.9,12.5,a", "place_id.*'99999999999999999999'"),
        ("16777216,2017,1,7,Rome,41.9,12.5,a", r"place_id.*'16777216'.*\b0 to 16777215"),
        ("1,2017,1,7", r"line 3.*\b4 fields.*\b8\b"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message):
    root = write(tmp_path, {"Rome": (ROME[0], row)}, [ROME_IMAGE])
    with pytest.raises(DataError, match=message):
        read("gsv_cities", root, min_images=1)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match=r"GSV-Cities.*not found.*Dataframes\b"):
        read("gsv_cities", tmp_path)
    (tmp_path / "Dataframes").mkdir()
    with pytest.raises(DataError, match=r"Dataframes\b.*<City>\.csv"):
        read("gsv_cities", tmp_path)
    write(tmp_path, {"Rome": ROME}, [])
    with pytest.raises(DataError, match=rf"Rome\.csv.*row 1.*{ROME_IMAGE}.*cities"):
        read("gsv_cities", tmp_path, min_images=1)
    table = tmp_path / "Dataframes" / "Rome.csv"
    table.write_text("place_id,lat,lon\n1,2,3\n")
    with pytest.raises(DataError, match=r"Rome\.csv.*\['year', 'month', 'northdeg', 'city_id', 'panoid'\].*header"):
        read("gsv_cities", tmp_path)
    table.write_text(HEADER + "\n")
    with pytest.raises(DataError, match=r"Rome\.csv.*no rows"):
        read("gsv_cities", tmp_path)
    table.write_bytes(HEADER.encode() + b"\n1,2017,6,7,M\xfcnchen,41.9,12.5,aaa\n")
    with pytest.raises(DataError, match=r"Rome\.csv.*UTF-8"):
        read("gsv_cities", tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": 0}, r"sample=0\b"),
        ({"sample": 1.5}, "sample=1.5"),
        ({"min_images": 0}, "min_images=0"),
        ({"split": "trian"}, "'trian'.*'train'"),
        ({"role": "db"}, "'db'.*'database'"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        read("gsv_cities", write(tmp_path, {"London": LONDON}), **options)
