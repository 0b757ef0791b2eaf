"""Junk for the readers, in a process of its own: jax-free, its memory and the time of a case bounded, warnings errors.

`python junk.py FOLDER` reads it there and prints the number of cases. Every case is a table whose values make sense, or
a DataError that names a file of the case.
"""

import gzip
import io
import resource
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines import geo
from data_pipelines.audit import audit
from data_pipelines.errors import DataError
from data_pipelines.readers import read, table

ROOT = Path(sys.argv[1])
MEMORY = 2 << 30  # bytes of address space, of which Python, NumPy and Pillow take a part
SECONDS = 10
CASES = 30  # of each kind
COUNT = [0]
AT = "@0554156.86@4174558.49@10@S@037.71668@-122.38552@EAyha9x@@270@@@@201311@@.jpg"

cells = st.sampled_from(
    ("", " ", "0", "1", "-1", "-2", "7.5", "45.2", "95", "181", "nan", "inf", "-inf", "1e30", "2e7", "9e8", "-1e308",
     "1_0", str(2**31), str(2**63), str(10**30), "DIGITS", "LONG", "NaN", "a.jpg", "\u00e9", "\U0001f600", "\u2028",
     "\0", '"', "'", ",", ";", "@", "S", "33", "2019-11-03T08:30:00", "train", "query", "night;rain", "../../x", "0x10",
     "\u0661", "1 2 3", "-1 2", "\udc80")
)  # fmt: skip
numbers = st.sampled_from(
    (0, -1, 1, 7, 10**9, 2**63, 10**30, -5, 0.5, np.nan, np.inf, "x", None, b"1", (1, 2), [-1], [])
)
edits = st.lists(st.tuples(st.sampled_from("icd"), st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=3)


def damaged(data: bytes, changes, first: int = 0) -> bytes:
    """The bytes with some inserted, changed or cut off, none of them before `first`."""
    for kind, where, new in changes:
        at = first + int(where * (len(data) - first))
        data = {"i": data[:at] + new + data[at:], "c": data[:at] + new + data[at + len(new) :], "d": data[:at]}[kind]
    return data


def write(name: str, data: bytes) -> Path:
    file = ROOT / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def encoded(text: str) -> bytes:
    long = text.replace("DIGITS", "9" * 5000).replace("LONG", "x" * 200_000)  # hypothesis prints what it draws
    return long.encode("utf-8", "surrogateescape")


def sane(reader: str, root: Path, **options) -> None:
    """Reads one case, and checks the table or the error."""
    COUNT[0] += 1
    signal.alarm(SECONDS)
    try:
        places = read(reader, root, **options)
        located = places.located & (places.zone > 0)
        degrees = geo.from_utm(places.east[located], places.north[located], places.zone[located])
        assert not np.isinf(degrees).any() and not np.isinf(places.east).any() and not np.isinf(places.north).any()
        assert np.isin(places.zone, [-1, *range(1, 61), *range(101, 161)]).all()
        assert (np.isnan(places.heading) | ((places.heading >= 0) & (places.heading < 360))).all()
        assert min(places.place.min(), places.frame.min(), places.sequence.min()) >= -1
        audit(places)
    except DataError as error:
        said = str(error)  # an absolute path in a list begins the message
        assert (str(ROOT) in said or said.startswith("/")) and len(said) < 20_000, said[:500]
    finally:
        signal.alarm(0)


def cases(*strategies):
    def wrap(test):
        options = {"max_examples": CASES, "deadline": None, "database": None, "derandomize": True}
        return settings(**options, suppress_health_check=list(HealthCheck))(given(*strategies)(test))

    return wrap


names = st.sampled_from((*table.COLUMNS, "latitude", "Longitude", " lat", "", "path", "x;y", "label"))
rows = st.lists(st.lists(cells, min_size=4, max_size=4), max_size=4)


@cases(st.lists(names, min_size=3, max_size=3), rows, st.sampled_from(",,,,;\t"), edits)
def tables(header, lines, delimiter, changes):
    text = "\r\n".join(delimiter.join(line) for line in (["path", *header], *lines))
    write("t/list.csv", damaged(encoded(text), changes))
    sane("csv", ROOT / "t" / "list.csv")
    sane("csv", ROOT / "t" / "list.csv", without_position="keep")


@cases(rows, st.sampled_from(("place_id", "lat", "northdeg", "panoid", "city_id")), edits)
def cities(lines, column, changes):
    good = {
        "place_id": "1",
        "year": "2019",
        "month": "3",
        "northdeg": "4",
        "city_id": "R",
        "lat": "1",
        "lon": "2",
        "panoid": "p",
    }
    text = [",".join(good), *(",".join((good | {column: line[0]}).values()) for line in lines)]
    write("g/Dataframes/Rome.csv", damaged(encoded("\n".join(text)), changes))
    sane("gsv_cities", ROOT / "g", min_images=1)


@cases(st.lists(st.lists(cells, min_size=1, max_size=16), min_size=1, max_size=3), st.booleans(), edits)
def named(fields, packed, changes):
    text = "\n".join([AT, *("@" + "@".join(one) for one in fields)])
    data = gzip.compress(encoded(text), 1) if packed else encoded(text)
    sane("at_names", ROOT, paths_file=write("list.txt", damaged(data, changes)))


@cases(st.lists(st.tuples(cells, cells), max_size=3), edits)
def lists_in_csv(lines, changes):
    text = "\n".join(["query,references", *map(",".join, lines)])
    write("p/ground_truth.csv", damaged(encoded(text), changes))
    sane("pairs", ROOT / "p")


@cases(
    st.lists(
        numbers
        | st.lists(numbers, max_size=3).map(lambda v: np.array([0, *v, None], object)[:-1])
        | st.tuples(numbers, numbers)
        | st.lists(numbers, max_size=3),
        min_size=1,
        max_size=3,
    ),
    edits,
)
def lists_in_npy(values, changes):
    array = np.empty(len(values), object)
    for row, value in enumerate(values):
        array[row] = value
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    write("n/ground_truth.npy", damaged(stream.getvalue(), changes))
    sane("pairs", ROOT / "n")


@cases(st.binary(max_size=200), edits)
def arrays(values, changes):
    stream = io.BytesIO()
    np.save(stream, np.frombuffer(values[: len(values) // 8 * 8], np.int64))
    write("n/ground_truth.npy", damaged(stream.getvalue(), changes))
    sane("pairs", ROOT / "n")


def photo() -> bytes:
    exif, stream = Image.Exif(), io.BytesIO()
    third = (33.0, 24.0, 36.5)
    exif.get_ifd(0x8825).update({1: "N", 2: third, 3: "W", 4: third, 16: "T", 17: 271.5})
    exif.get_ifd(0x8769)[0x9003] = "2019:11:03 08:30:00"
    Image.new("RGB", (8, 6)).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


PHOTO = photo()


@cases(edits, st.integers(0, 300))
def exif(changes, last):
    first = PHOTO.index(b"Exif")
    block, rest = PHOTO[first : first + last], PHOTO[first + last :]
    changes = [change for change in changes if change[0] == "c"]
    write("e/a.jpg", PHOTO[:first] + damaged(block, changes)[: len(block)] + rest)
    sane("photos", ROOT / "e", without_position="keep")
    sane("folder", ROOT / "e")


@cases(st.sampled_from(("records_camera", "trajectories", "rigs")), st.integers(0, 8), cells, edits)
def floors(broken, column, cell, changes):
    pose = "1,0,0,0,1,2,3"
    content = {
        "records_camera": "5,cam,a.jpg\n6,cam,b.jpg",
        "trajectories": f"5,rig,{pose}\n6,rig,{pose}",
        "rigs": f"rig,cam,{pose}\ncam,rig,{pose}",
    }
    for name, text in content.items():
        values = text.split(",")
        if name == broken:
            values[column % len(values)] = cell
        data = encoded(",".join(values))
        for folder in ("mapping", "validation"):
            write(f"f/{folder}/sensors/{name}.txt", damaged(data, changes) if name == broken else data)
    sane("naver_labs", ROOT / "f", without_position="keep", up="z")


@cases(st.integers(0, 25), cells, edits)
def malls(at, cell, changes):
    lines = ["1 0 0", "0 1 0", "0 0 1", "0 0 0", "1 0 0", "0 1 0", "0 0 1", "5 6 7", "8 9"]
    words = " \n ".join(lines).split(" ")
    words[at % len(words)] = cell
    data = damaged(encoded(" ".join(words)), changes)
    for images, truth in (("training_images_undistort", "training_gt"), ("query_images_undistort", "query_gt")):
        write(f"m/{images}/a.jpg", b"")
        write(f"m/{truth}/a.camera", data)
    sane("baidu_mall", ROOT / "m", up="z")


@cases(st.integers(0, 3), st.integers(0, 20), cells, edits)
def drives(broken, at, cell, changes):
    content = {
        "raw": ("key,lon,lat,ca,captured_at,pano", "a,12.5,55.7,90,2018-03-16,False"),
        "postprocessed": ("key,easting,northing,control_panel,night,view_direction", "a,1,2,False,True,Forward"),
        "seq_info": ("key,sequence_key,frame_number", "a,s,3"),
        "subtask_index": ("all,s2w,w2s,o2n,n2o,d2n,n2d", "True,True,True,True,True,True,False"),
    }
    for k, (name, (header, row)) in enumerate(content.items()):
        values = f"{header}\n{row}".replace("\n", ",\n,").split(",")
        if k == broken:
            values[at % len(values)] = cell
        data = encoded(",".join(values).replace(",\n,", "\n"))
        for side in ("database", "query"):
            write(f"w/train_val/cph/{side}/{name}.csv", damaged(data, changes) if k == broken else data)
            write(f"w/train_val/cph/{side}/images/a.jpg", b"")
    sane("msls", ROOT / "w", protocol="official")


@cases(cells, st.integers(0, 7), edits)
def frames(cell, field, changes):
    fields = ["1", "2", "s", "3", "p", "city", "2019", ".jpg"]
    fields[field] = cell
    write("frames.txt", damaged(encoded("@".join(["a/", *fields])), changes))
    sane("at_names", ROOT, paths_file=ROOT / "frames.txt")


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("error")
    for folder in ("p", "n"):
        for role in ("query", "ref"):
            write(f"{folder}/{role}/a.jpg", b"")
            write(f"{folder}/{role}/b.jpg", b"")
    for folder in ("mapping", "validation"):
        write(f"f/{folder}/sensors/records_data/a.jpg", b"")
    write("g/Images/R/R_0000001_2019_03_004_1.0_2.0_p.jpg", b"")
    for kind in (tables, cities, named, lists_in_csv, lists_in_npy, arrays, exif, floors, malls, drives, frames):
        kind()
    print(COUNT[0])


if __name__ == "__main__":
    main()
