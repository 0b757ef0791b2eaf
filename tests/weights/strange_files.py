"""Files of weights by hand, and a program that reads many strange ones within 1.5 GiB.

In an empty folder, `python strange_files.py` prints how many gave tensors and how many an error. Each gives tensors
that it can hold or a UserError that names it, in 10 seconds, without a warning, and nothing in it is run.
"""

import io
import json
import pickle
import resource
import warnings
import zipfile
from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxvpr.errors import UserError
from jaxvpr.weights import read, read_metadata
from jaxvpr.weights.torch_files import ALWAYS, LARGER, MAGIC, STORAGES

RAN = Path("ran")
ATTACK = f"cos\nmkdir\n(V{RAN}\ntR".encode()
NUMBERS = st.one_of(st.integers(0, 6), st.sampled_from([-1, 2**31, 2**62, 2**63, 2**64, 2**200]))
SHAPES = st.lists(NUMBERS, max_size=4)


def text(value):
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def number(value):
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(kind="FloatStorage", key="0", count=4, offset=0, shape=(2, 2), stride=(2, 1)):
    """The opcodes of one tensor, as torch.save writes them."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"
    rest = number(offset) + numbers(shape) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)Rt"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"R"


def state_dict(tensors):
    inner = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02}(" + text("epoch") + ATTACK + text("state_dict") + b"}(" + inner + b"uu."


def zipped(pickled, storages, how=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/byteorder", b"little")
        for key, data in storages.items():
            archive.writestr(f"a/data/{key}", data)
    return buffer.getvalue()


def sequence(pickled, storages):
    """As torch.save wrote before PyTorch 1.6."""
    parts = [pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": True})]
    ends = b"".join((len(data) // 4).to_bytes(8, "little") + data for data in storages.values())
    return b"".join([*parts, pickled, pickle.dumps(list(storages), 2), ends])


def safetensors(header, data):
    return len(header).to_bytes(8, "little") + header + data


WHOLE = {"a": tensor(), "b.weight": tensor(key="1", offset=1, shape=(3,), stride=(1,))}
BYTES = {"0": bytes(range(16)), "1": bytes(range(16))}
HEADER = {
    "__metadata__": {"jaxvpr_config": "{}"},
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b.weight": {"dtype": "I64", "shape": [2], "data_offsets": [16, 32]},
}
FILES = {
    ".pth": [zipped(state_dict(WHOLE), BYTES), sequence(state_dict(WHOLE), BYTES)],
    ".safetensors": [safetensors(json.dumps(HEADER).encode(), bytes(32))],
    ".index.json": [b'{"metadata": {}, "weight_map": {"a": "sound.pth"}}'],
}


@st.composite
def mutated(draw):
    """A sound file, or the pickle in one, with some bytes changed, repeated or cut."""
    whole = [(ending, data, lambda data: data) for ending, several in FILES.items() for data in several]
    inner = [(".pth", state_dict(WHOLE), lambda data, form=form: form(data, BYTES)) for form in (zipped, sequence)]
    ending, data, finished = draw(st.sampled_from([*whole, *inner, *inner]))
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        start, length = draw(st.integers(0, len(data) - 1)), draw(st.integers(0, 9))
        new = draw(st.one_of(st.binary(max_size=9), st.just(bytes(data[start : start + length]) * 3)))
        data[start : start + length] = new
    return ending, finished(bytes(data[: draw(st.integers(1, len(data)))] if draw(st.integers(0, 4)) == 0 else data))


@st.composite
def described(draw):
    """A file of torch.save whose tensors are where they may not be."""
    kinds = st.sampled_from([*(name.removeprefix("torch.") for name in STORAGES), "QInt8Storage"])
    keys = st.sampled_from(["0", "1", "2", "../byteorder"])
    any_one = st.builds(tensor, kinds, keys, st.one_of(st.just(4), NUMBERS), NUMBERS, SHAPES, SHAPES)
    small = st.builds(tensor, offset=st.integers(0, 2), shape=st.tuples(NUMBERS), stride=st.tuples(NUMBERS))
    one = st.one_of(any_one, small, small)
    pickled = state_dict({f"w{k}": value for k, value in enumerate(draw(st.lists(one, min_size=1, max_size=3)))})
    how = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))
    return ".pth", draw(st.sampled_from([zipped(pickled, BYTES, how), sequence(pickled, BYTES)]))


@st.composite
def headed(draw):
    """A safetensors file of any header, nested notes and all."""
    value = st.one_of(NUMBERS, st.text(max_size=3), st.recursive(st.none(), lambda inner: st.lists(inner, max_size=2)))
    entry = {
        "dtype": st.one_of(st.sampled_from(["F32", "BF16", "I64", "BOOL", "C64", "F4"]), value),
        "shape": st.one_of(SHAPES, value),
        "data_offsets": st.one_of(st.tuples(NUMBERS, NUMBERS), st.just((0, 16)), value),
    }
    header = {name: draw(st.one_of(st.fixed_dictionaries(entry), value)) for name in ("a", "b")}
    if draw(st.booleans()):
        notes = draw(
            st.one_of(value, st.just({"jaxvpr_config": "[" * 10_000}), st.dictionaries(st.text(max_size=2), value))
        )
        header["__metadata__"] = notes
    return ".safetensors", safetensors(json.dumps(header).encode(), bytes(draw(st.sampled_from([0, 16, 32]))))


@st.composite
def built(draw):
    """A pickle of any opcodes: stacks that are empty, what holds itself, deep nests, calls of calls."""
    single = [bytes([code]) for code in b"}]()N201tldaesubRoQ\x81\x85\x86\x87\x8f\x90\x91\x92\x93\x94\x97"]
    whole = [b"h\0", b"q\0", b"K\1", ATTACK, text("state_dict"), text("a"), tensor(), b"ccollections\nOrderedDict\n"]
    begun = [ATTACK[:9], b"cos\nsystem\n", b"ios\nsystem\n", b"S'\\q'\n", b"\x8b\xff\xff\xff\x7f", b"r\xff\xff\xff\xff"]
    large = [b"\x96" + (2**40).to_bytes(8, "little"), b"\x85" * 2_000, (b"}" + text("model")) * 900, b"s" * 900]
    opcode = st.sampled_from([*single, *whole, *begun, *large])
    pickled = b"\x80\x04" + b"".join(draw(st.lists(opcode, max_size=40))) + b"."
    return ".pth", draw(st.sampled_from([zipped(pickled, BYTES), sequence(pickled, BYTES)]))


counts = Counter()


@settings(
    max_examples=300,
    deadline=timedelta(seconds=10),
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(case=st.one_of(mutated(), described(), headed(), built()))
def every_file_gives_tensors_or_a_named_error(case):
    ending, data = case
    path = Path(f"strange{ending}")
    path.write_bytes(data)
    counts["cases"] += 1
    for reader in (read, read_metadata):
        try:
            found = reader(path)
        except UserError as error:
            assert path.name in str(error) or "sound.pth" in str(error), error
            counts["errors"] += 1
        else:
            counts["tensors"] += len(found) if reader is read else 0
            arrays = [value for value in found.values() if reader is read]
            assert sum(value.nbytes for value in arrays) <= max(LARGER * len(data), ALWAYS)
            assert all(isinstance(value, np.ndarray) for value in arrays)
    assert not RAN.exists(), "something in a file was run"


if __name__ == "__main__":
    for ending, several in FILES.items():
        for data in several:
            sound = Path(f"sound{ending}")
            sound.write_bytes(data)
            assert {"a", "b.weight"} == read(sound).keys()
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (3 * 2**29, 3 * 2**29))
    every_file_gives_tensors_or_a_named_error()
    pickle.loads(b"\x80\x02" + ATTACK + b".")
    assert RAN.exists(), "the attack itself must work, or this shows nothing"
    print(json.dumps(counts))
