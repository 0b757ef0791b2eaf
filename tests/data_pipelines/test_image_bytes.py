"""Images of files and of buckets are one to everything that reads images; a bucket out of reach stops with advice."""

import importlib.util
import io

import cv2
import fsspec
import numpy as np
import pytest

from data_pipelines import image_bytes, readers
from data_pipelines.draws import Draw
from data_pipelines.errors import DataError
from data_pipelines.image_source import ImageSource, why_unreadable
from data_pipelines.images import ImageError, decode, own_size
from data_pipelines.places import Paths, Places

BUCKET = "memory://jaxvpr-test"


@pytest.fixture
def both(tmp_path):
    """Four images as files and in a bucket: (folder, the bucket's address). The last is cut short."""
    rng = np.random.default_rng(0)
    system = fsspec.filesystem("memory")
    for number in range(4):
        name = f"{number}.jpg" if number else "0.png"
        assert cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8))
        data = (tmp_path / name).read_bytes()[: -400 if number == 3 else None]
        (tmp_path / name).write_bytes(data)
        system.pipe(f"/jaxvpr-test/{name}", data)
    yield tmp_path, BUCKET
    system.rm("/jaxvpr-test", recursive=True)


NAMES = ["0.png", "1.jpg", "2.jpg", "3.jpg"]


def test_a_bucket_gives_the_bytes_sizes_pixels_and_errors_of_the_files(both):
    folder, bucket = both
    for name in NAMES[:3]:
        assert image_bytes.read(f"{bucket}/{name}") == (folder / name).read_bytes()
        assert own_size(f"{bucket}/{name}") == own_size(folder / name)
        assert np.array_equal(decode(f"{bucket}/{name}", (5, 5)), decode(folder / name, (5, 5)))
    for address in (str(folder / "3.jpg"), f"{bucket}/3.jpg"):
        assert "truncated JPEG" in why_unreadable(address) and why_unreadable(address).startswith(address)
        with pytest.raises(ImageError, match="truncated JPEG"):
            own_size(address)


def test_a_source_of_a_bucket_reads_the_batch_of_the_files(both):
    draw = Draw.of(np.array([2, 0, 3, -1, 1]))
    files, bucket = (ImageSource(Paths.of(NAMES, root), (16, 24), on_error="skip") for root in both)
    ours, theirs = files.read(draw, 0, 0, "s"), bucket.read(draw, 0, 0, "s")
    assert ours["bad"].tolist() == [False, False, True, False, False]
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_an_image_that_is_not_in_the_bucket_is_one_bad_image(both):
    with pytest.raises(ImageError, match=r"memory://jaxvpr-test/none\.jpg: cannot read.*no such image"):
        decode(f"{both[1]}/none.jpg")


def test_readers_of_tables_and_lists_take_addresses_and_a_bucket_is_not_listed(both, tmp_path):
    folder, bucket = both
    (tmp_path / "a.csv").write_text(f"path,east,north\n{bucket}/1.jpg,1,2\n2.jpg,3,4\n{folder}/0.png,5,6\n")
    places = readers.read("csv", tmp_path / "a.csv")
    assert list(places.path) == [f"{bucket}/1.jpg", str(tmp_path / "2.jpg"), str(folder / "0.png")]
    (tmp_path / "names.txt").write_text("@1.0@2.0@33@U@@@a@@010@@@@2013@@.jpg\n")
    listed = readers.read("at_names", f"{bucket}/city", paths_file=str(tmp_path / "names.txt"))
    assert listed.path[0].startswith(f"{bucket}/city/@1.0")
    joined = Places.concat([places, listed, readers.read("csv", tmp_path / "a.csv").take([1])])
    assert list(joined.path) == [*places.path, listed.path[0], places.path[1]]
    with pytest.raises(DataError, match=r"memory://jaxvpr-test lies in a bucket.*csv"):
        readers.read("photos", bucket)


def absent_package() -> tuple[str, str]:
    """A scheme of fsspec's whose package is not installed here, and that package."""
    packages = {"gs": "gcsfs", "s3": "s3fs", "abfs": "adlfs"}
    return next((scheme, name) for scheme, name in packages.items() if importlib.util.find_spec(name) is None)


def test_a_bucket_out_of_reach_stops_also_a_run_that_skips_bad_images(monkeypatch, both):
    scheme, package = absent_package()
    source = ImageSource(Paths.of(["a.jpg"], f"{scheme}://bucket"), (8, 8), on_error="skip")
    with pytest.raises(DataError, match=rf"{scheme}://bucket/a\.jpg.*nstall {package}") as caught:
        source.read(Draw.of([0]), 0, 0, "s")
    assert not isinstance(caught.value, ImageError)
    with pytest.raises(DataError, match=r"nothing here reads zzz://.*Protocol not known"):
        image_bytes.read("zzz://bucket/a.jpg")

    class NoCredentialsError(Exception):
        pass

    def deny(self, path, **_):
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", deny)
    with pytest.raises(DataError, match=r"jaxvpr-test/1\.jpg: the bucket is out of reach.*Unable.*credentials"):
        decode(f"{BUCKET}/1.jpg")


def test_an_opened_file_is_read_only_as_far_as_is_asked(both):
    with image_bytes.opened(both[0] / "1.jpg") as file:
        assert file.read(2) == b"\xff\xd8" and not isinstance(file, io.BytesIO)
