"""A file is the old one or the new one, never half of one."""

import errno
import os

import pytest

from data_pipelines.atomic import replacing, shortened, write_json


def test_json_is_the_old_or_the_new(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    for wrong in (object(), float("nan")):
        with pytest.raises((TypeError, ValueError)):
            write_json(file, {"a": wrong})
    assert file.read_text() == '{\n  "a": 1\n}\n'


def test_what_fails_halfway_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "x.bin"
    file.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(file) as part:
        part.write_bytes(b"ne")
        assert file.read_bytes() == b"old" and part.suffix == ".part"
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"] and file.read_bytes() == b"old"
    with replacing(file) as part:
        part.write_bytes(b"new")
    assert file.read_bytes() == b"new"


def test_a_write_that_fails_names_its_file(tmp_path):
    for error in (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OSError("9 requested and 4 written")):
        with pytest.raises(OSError, match="No space left") as failed, replacing(tmp_path / "report.html"):
            raise error
        assert failed.value.filename == str(tmp_path / "report.html") and not list(tmp_path.iterdir())


def test_names_as_long_as_a_system_takes(tmp_path):
    """255 bytes; two of one beginning are written at once, as the parts of a database are."""
    one, other = (tmp_path / ("é" * 125 + end) for end in (".npy", ".json"))
    with replacing(one) as first, replacing(other) as second:
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert (one.read_bytes(), other.read_bytes()) == (b"1", b"2") and len(list(tmp_path.iterdir())) == 2
    assert shortened("é" * 125) == "é" * 100 and shortened("a" + "é" * 125) == "a" + "é" * 99
    undecodable = os.fsdecode(b"\xe9" * 9)
    assert shortened("short") == "short" and shortened(undecodable) == undecodable
