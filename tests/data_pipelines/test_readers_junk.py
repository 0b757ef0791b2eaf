"""Readers and files that nobody meant for them: a table or an error that names the file, whatever the bytes are."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.errors import DataError
from data_pipelines.readers import listing

JUNK = Path(__file__).with_name("junk.py")


def test_any_bytes_are_a_table_or_a_named_error(tmp_path):
    """400 cases of eleven kinds, in one process with 2 GiB and 10 s a case; see `junk.py`."""
    environment = os.environ | {"PYTHONPATH": str(JUNK.parents[2])}
    done = subprocess.run(
        [sys.executable, JUNK, tmp_path], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 330


def test_a_packed_list_takes_no_more_memory_than_names_need(tmp_path):
    """A megabyte that unpacks to a gigabyte."""
    file = tmp_path / "list.txt.gz"
    names = [f"@{east}@1@33@U@.jpg" for east in range(20_000)]
    file.write_bytes(gzip.compress("\n".join(names).encode()))
    assert len(listing.lines(file)) == 20_000
    file.write_bytes(gzip.compress(bytes(16 << 20).replace(b"\0", b"a\n")))
    with pytest.raises(DataError, match=r"list\.txt\.gz unpacks to more than 100 times its size"):
        listing.lines(file)
    file = tmp_path / "list.txt"
    file.write_bytes(b"a.jpg\n" + b"b" * 5000)
    with pytest.raises(DataError, match=r"list\.txt: line 2 has more than 4096 bytes"):
        listing.lines(file)
    file.write_bytes(b"\xef\xbb\xbfa.jpg\r\nb\0.jpg")
    with pytest.raises(DataError, match=r"list\.txt: line 2 is no text"):
        listing.lines(file)
    file.write_bytes(b"\xef\xbb\xbfa.jpg\r\nb.jpg\r\n")
    assert [listing.lines(file).relative(row) for row in (0, 1)] == ["a.jpg", "b.jpg"]
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match=r"pipe\.txt: there is no such file, or it is a folder or a pipe"):
        listing.lines(tmp_path / "pipe.txt")
