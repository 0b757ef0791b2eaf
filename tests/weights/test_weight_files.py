"""Files of weights as safetensors: every type and bit comes back, and what does not fit is an error."""

import json
import os
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxvpr.errors import UserError
from jaxvpr.weights import read, read_metadata, write

RNG = np.random.default_rng(0)
DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.int32, np.uint8, np.bool_]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_safetensors_round_trip_of_every_type(tmp_path, dtype):
    tensors = {"b.weight": RNG.integers(0, 2, (3, 4)).astype(dtype), "a": RNG.integers(0, 2, ()).astype(dtype)}
    write(tmp_path / "w.safetensors", tensors, {"note": "größe"})
    back = read(tmp_path / "w.safetensors")
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        np.testing.assert_array_equal(back[name], tensor)
    assert read_metadata(tmp_path / "w.safetensors") == {"note": "größe"}


@settings(deadline=None, max_examples=40)
@given(array=hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, min_side=0), elements=st.floats(width=32)))
def test_safetensors_keeps_any_shape_and_every_bit(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("w") / "w.safetensors"
    write(path, {"x": array.T, "y": array})
    back = read(path)
    assert back["x"].shape == array.T.shape
    assert back["x"].tobytes() == np.ascontiguousarray(array.T).tobytes() and back["y"].tobytes() == array.tobytes()


NOTES = st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=9)


@settings(deadline=None, max_examples=30)
@given(notes=NOTES)
def test_equal_weights_and_notes_are_equal_files_that_all_may_read(tmp_path_factory, notes):
    folder = tmp_path_factory.mktemp("w")
    (folder / "plain").touch()
    tensors = {"big": np.arange(3, dtype=">f4"), "every other": np.arange(6, dtype=np.int16)[::2]}
    for name, order in (("a", 1), ("b", -1)):
        write(folder / f"{name}.safetensors", tensors, dict(list(notes.items())[::order]))
    assert (folder / "a.safetensors").read_bytes() == (folder / "b.safetensors").read_bytes()
    assert (folder / "a.safetensors").stat().st_mode == (folder / "plain").stat().st_mode
    assert read_metadata(folder / "a.safetensors") == notes
    back = read(folder / "a.safetensors")
    assert back["big"].tolist() == [0, 1, 2] and back["every other"].tolist() == [0, 2, 4]


def by_hand(path, header, data=b""):
    """A file of this header (JSON), the length of which stands before it, and these numbers."""
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


TWO = b"\x00\x00\x80\x3f\x00\x00\x00\xc0"  # 1 and -2 as float32


def test_the_layout_of_safetensors_by_hand(tmp_path):
    path = by_hand(tmp_path / "w.safetensors", b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', TWO)
    np.testing.assert_array_equal(read(path)["x"], [1.0, -2.0])


WRONG = {
    "two numbers by their product": (b'"x":{"dtype":"F32","shape":[-1,-2],"data_offsets":[0,8]}', "header.*damaged"),
    "three numbers in the bytes of two": (b'"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}', "damaged"),
    "more than there are": (b'"x":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}', "cut short"),
    "fewer than there are": (b'"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', "damaged"),
    "more than can be counted": (
        b'"x":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,8]}',
        "damaged",
    ),
    "many tensors on the same bytes": (
        b",".join(b'"%d":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}' % k for k in range(1000)),
        "damaged",
    ),
    "many numbers that are none": (
        b'"x":{"dtype":"F32","shape":[0,9223372036854775807,9],"data_offsets":[0,0]}',
        "damaged",
    ),
    "many axes": (b'"x":{"dtype":"F32","shape":[2%s],"data_offsets":[0,8]}' % (b",1" * 99), "damaged"),
    "a deep nest": (
        b'"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"y":%s}' % (b"[" * 100_000 + b"]" * 100_000),
        "damaged",
    ),
    "notes that are no text": (b'"__metadata__":{"a":[1]}', "damaged"),
    "no such type": (b'"x":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}', "F31"),
    "complex numbers": (b'"x":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}', r"\bx\b.*C64.*'F32'"),
    "floats of 8 bits": (b'"x":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}', r"\bx\b.*F8_E4M3.*'F32'"),
}


@pytest.mark.parametrize(("entries", "message"), WRONG.values(), ids=WRONG)
def test_a_header_that_does_not_fit_is_an_error(tmp_path, entries, message):
    with pytest.raises(UserError, match=rf"w\.safetensors.*{message}"):
        read(by_hand(tmp_path / "w.safetensors", b"{" + entries + b"}", TWO))


@pytest.mark.parametrize("size", [0, 2, 3, 2**30, 2**63, 2**64 - 1])
def test_a_size_of_the_header_that_cannot_be_is_an_error(tmp_path, size):
    (tmp_path / "w.safetensors").write_bytes(size.to_bytes(8, "little") + b"{")
    for reader in (read, read_metadata):
        with pytest.raises(UserError, match=r"w\.safetensors.*cut short.*header.*damaged"):
            reader(tmp_path / "w.safetensors")


@settings(deadline=None, max_examples=30)
@given(share=st.floats(0, 0.999))
def test_a_safetensors_file_cut_short_is_an_error(tmp_path_factory, share):
    path = tmp_path_factory.mktemp("w") / "w.safetensors"
    write(path, {"x": np.ones((5, 5), np.float32), "y": np.ones(3, np.int64)})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"cut short|damaged"):
        read(path)


SHARDS = [f"model-0000{k}-of-00003.safetensors" for k in (1, 2, 3)]


@pytest.fixture
def sharded(tmp_path):
    """A folder of three shards of one tensor each, {"0": [0], "1": [1], "2": [2]}, and their index."""
    for number, name in enumerate(SHARDS):
        write(tmp_path / name, {str(number): np.full(1, number, np.float32)})
    index = {"metadata": {"total_size": 12}, "weight_map": {str(k): name for k, name in enumerate(SHARDS)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize("given", [".", "model.safetensors.index.json", *SHARDS])
def test_shards_are_read_whole_by_index_folder_or_any_of_them(sharded, given):
    np.testing.assert_equal(read(sharded / given), {str(k): np.full(1, k, np.float32) for k in range(3)})
    if given == SHARDS[1]:
        (sharded / "model.safetensors.index.json").unlink()
        assert set(read(sharded / given)) == {"0", "1", "2"}, "without an index their numbers say which there are"


def test_shards_that_do_not_fit_together_are_named(sharded):
    index = sharded / "model.safetensors.index.json"
    (sharded / SHARDS[2]).rename(sharded / "away")
    for file in (index, sharded / SHARDS[0]):
        with pytest.raises(UserError, match=rf"{file.name}.* 3 files, 1 .*missing: {SHARDS[2]}"):
            read(file)
    write(sharded / SHARDS[2], {"3": np.ones(1, np.float32)})
    with pytest.raises(UserError, match=rf"{SHARDS[2]}: has no 2, which {index.name} says"):
        read(index)
    write(sharded / SHARDS[2], {"0": np.ones(1, np.float32)})
    with pytest.raises(UserError, match=rf"{SHARDS[2]}: has 0, which another"):
        read(sharded / SHARDS[0])
    (sharded / "second.index.json").write_text("{}")
    with pytest.raises(UserError, match=r"one index.*\['model\.safetensors\.index\.json', 'second\.index\.json'\]"):
        read(sharded)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"weight_map": 3}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "../a.pth"}}',
    ],
    ids=lambda text: text[:40],
)
def test_an_index_that_is_none_is_an_error(tmp_path, text):
    (tmp_path / "a.index.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.index\.json: no index of shards.*weight_map"):
        read(tmp_path)


def test_endings_count_in_any_case_and_only_files_are_read(tmp_path):
    write(tmp_path / "w.safetensors", {"a": np.ones(2, np.float32)}, {"note": "x"})
    loud = (tmp_path / "w.safetensors").rename(tmp_path / "W.SAFETENSORS")
    assert set(read(loud)) == {"a"} and read_metadata(loud) == {"note": "x"}
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: not a file"):
        read(tmp_path / "w.pth")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder: .*one index of shards.*neither"):
        read(tmp_path / "folder")


def test_data_parallel_prefix_is_taken_off_only_where_all_names_have_it(tmp_path):
    one = np.ones(1, np.float32)
    write(tmp_path / "all.safetensors", {"module.a": one, "module.b": one})
    write(tmp_path / "some.safetensors", {"module.a": one, "b": one})
    assert set(read(tmp_path / "all.safetensors")) == {"a", "b"}
    assert set(read(tmp_path / "some.safetensors")) == {"module.a", "b"}


def test_writing_fails_whole_and_clearly(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"w\.npz.*\.safetensors, \.pth"):
        write(tmp_path / "w.npz", {})
    with pytest.raises(UserError, match=r"/w\.safetensors.*\ba\b.*complex64"):
        write(tmp_path / "w.safetensors", {"a": np.ones(2, np.complex64)})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install jaxvpr\[torch\]"):
        write(tmp_path / "w.pth", {"a": np.ones(2, np.float32)})
    assert list(tmp_path.iterdir()) == []
