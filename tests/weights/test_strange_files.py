"""Damaged and malicious files of weights: tensors or a named error, in bounded time and memory, and nothing is run."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from strange_files import BYTES, number, sequence, state_dict, tensor, text, zipped

from jaxvpr.errors import UserError
from jaxvpr.weights import pickles, read

PROGRAM = Path(__file__).with_name("strange_files.py")
FIRST = np.frombuffer(BYTES["0"], np.float32)


def test_strange_files_give_tensors_or_a_named_error(tmp_path):
    """In a process of its own, whose memory is bounded."""
    done = subprocess.run([sys.executable, PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-5000:]
    counts = json.loads(done.stdout)
    assert counts["cases"] >= 200 and counts["errors"] > 100 and counts["tensors"] > 0


def of(**tensors):
    return zipped(state_dict(tensors), BYTES)


def with_headers(place, value):
    """A sound file whose entries all have other bytes at a place of their headers."""
    data = of(a=tensor())
    for mark, start in ((b"PK\3\4", place), (b"PK\1\2", place + 2)):
        parts = data.split(mark)
        data = mark.join([parts[0], *(part[: start - 4] + value + part[start - 2 :] for part in parts[1:])])
    return data


def bomb():
    """64 MiB of zeros as the pickle, deflated to 64 KiB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(2**26))
    return buffer.getvalue()


def corrupt():
    data = bytearray(zipped(state_dict({"a": tensor()}), BYTES, zipfile.ZIP_DEFLATED))
    data[45:60] = b"\xff" * 15
    return bytes(data)


REFUSED = {
    "a dict that holds itself": (
        zipped(b"\x80\x02}q\0(" + text("state_dict") + b"h\0u.", {}),
        r"no tensors by name, but \['state_dict'\]",
    ),
    "a dict nested without end": (
        zipped(b"\x80\x02" + (b"}" + text("model")) * 5_000 + b"}" + b"s" * 5_000 + b".", {}),
        "damaged.*recursion",
    ),
    "more steps than are allowed": (zipped(b"\x80\x02(" + b"N" * 110_000 + b"l.", {}), "more than 100,000 steps"),
    "a compressed bomb": (bomb(), "'a/data.pkl' in it is compressed"),
    "a corrupt deflate stream": (corrupt(), "compressed or encrypted"),
    "an encrypted zip": (with_headers(6, b"\1\0"), "compressed or encrypted"),
    "method 99": (with_headers(8, b"\x63\0"), "compressed or encrypted"),
    "a later zip": (with_headers(4, b"\xff\0"), r"damaged.*zip file version"),
    "2,000 tensors on one megabyte": (
        zipped(
            state_dict({f"w{k}": tensor(count=2**18, shape=(2**18,), stride=(1,)) for k in range(2_000)}),
            {"0": bytes(2**20)},
        ),
        "refused, a file of .* with tensors of 2,097,152,000",
    ),
    "a number repeated 10^11 times": (of(w=tensor(shape=(10**9, 100), stride=(0, 0))), "tensors of 400,000,000,000"),
    "a stride of 2^62": (of(w=tensor(stride=(2**62, 1))), r"w reads number 4611686018427387905 of a storage of 4"),
    "a shape of 2^62": (of(w=tensor(shape=(2**62, 2**62))), "w reads number"),
    "a shape of 2^64": (of(w=tensor(shape=(2**64,), stride=(0,))), "w is a tensor of no type or shape"),
    "a negative offset": (of(w=tensor(offset=-1)), "w is a tensor of no type or shape"),
    "a negative stride": (of(w=tensor(offset=3, stride=(-2, -1))), "w is a tensor of no type or shape"),
    "a storage larger than the file": (of(w=tensor(count=2**40)), "refused, a file of"),
    "a storage of another size": (of(w=tensor(count=3, shape=(3,), stride=(1,))), "'a/data/0' has 16 bytes, not 12"),
    "a type of no numbers": (of(w=tensor("QInt8Storage")), r"w is of type torch\.QInt8Storage; readable are"),
    "more axes than NumPy has": (of(w=tensor(shape=(1,) * 99, stride=(1,) * 99)), "w is a tensor of no type or shape"),
    "a pickle that reads past its end": (b"\x80\x04\x96" + (2**40).to_bytes(8, "little"), "damaged"),
    "a memo of 2^32 places": (b"\x80\x04Nr\xff\xff\xff\xff.", r"a pickle, but not one that torch\.save wrote"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_file_of_weights_is_named(tmp_path, case, monkeypatch):
    monkeypatch.setattr(pickles, "MOST", 100_000)  # a tenth, for the test's time
    data, expected = REFUSED[case]
    (tmp_path / "w.pth").write_bytes(data)
    with pytest.raises(UserError, match=rf"(?s)w\.pth.*{expected}"):
        read(tmp_path / "w.pth")


@pytest.mark.parametrize("depth", [10_000, 200_000])
def test_a_key_nested_deep_is_left_out(tmp_path, depth):
    """Python's own hash of it would end the process."""
    deep = b"N" + b"\x85" * depth + number(1)
    path = tmp_path / "w.pth"
    path.write_bytes(zipped(b"\x80\x02}(" + deep + text("a") + tensor() + b"u.", BYTES))
    np.testing.assert_equal(read(path), {"a": FIRST.reshape(2, 2)})


def test_a_state_dict_of_python_2_is_read(tmp_path):
    """An OrderedDict made of a list of pairs, whose texts are bytes."""
    pairs = b"((U\1a" + tensor() + b"l(K\1K\2l(U\5emptyNll"
    path = tmp_path / "w.pth"
    path.write_bytes(zipped(b"\x80\2}(U\nstate_dictccollections\nOrderedDict\n(" + pairs + b"tRu.", BYTES))
    np.testing.assert_equal(read(path), {"a": FIRST.reshape(2, 2)})


def test_views_are_read_as_torch_means_them(tmp_path):
    """By hand: storage 0 is [x0, x1, x2, x3]."""
    views = {
        "turned": tensor(stride=(1, 2)),
        "one row": tensor(shape=(1, 3), stride=(2**62, 1), offset=1),
        "repeated": tensor(shape=(2, 2), stride=(0, 3)),
        "empty": tensor(shape=(0, 2**40), stride=(1, 1)),
        "bits": tensor("IntStorage", shape=(2,), stride=(2,)),
    }
    x = FIRST
    expected = {
        "turned": [[x[0], x[2]], [x[1], x[3]]],
        "one row": [[x[1], x[2], x[3]]],
        "repeated": [[x[0], x[3]], [x[0], x[3]]],
        "bits": x.view(np.int32)[::2],
    }
    for form in (zipped, sequence):
        (tmp_path / "w.pth").write_bytes(form(state_dict(views), {"0": BYTES["0"]}))
        back = read(tmp_path / "w.pth")
        assert back.pop("empty").shape == (0, 2**40)
        np.testing.assert_equal(back, {name: np.asarray(values) for name, values in expected.items()})
