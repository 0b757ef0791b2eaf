"""Reads the files of `torch.save` without torch, and without running code from a file.

Such a file is a zip of a pickle that describes the objects and of the raw bytes of each storage; before PyTorch 1.6 it
was a sequence of pickles followed by the bytes, as many published weights still are. An unpickler with a short list of
names (below) refuses every other, so that a file can only build tensors, dicts, lists, strings, numbers and records.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from jaxvpr.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C  # begins the files of before PyTorch 1.6
STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Dtype:
    """Stands for a NumPy type in a pickle; a later state may only set its byte order, which must be little."""

    def __init__(self, code: str, *_: Any):
        if code not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
            raise pickle.UnpicklingError(f"a NumPy number of type {code!r}")
        self.dtype = np.dtype(code).newbyteorder("<")

    def __setstate__(self, state: Any) -> None:
        if state[1] == ">":
            raise pickle.UnpicklingError("a big-endian NumPy number")


def _number(dtype: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype.dtype, 1)[0].item()


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
    return text.encode("latin1")


class _StorageType(NamedTuple):
    dtype: np.dtype


def _tensor(storage: np.ndarray, offset: int, shape: tuple, stride: tuple, *_: Any) -> np.ndarray:
    """The tensor's numbers in an array of its own, whatever part of the storage it views."""
    if any(n < 0 for n in (offset, *shape, *stride)) or len(shape) != len(stride):
        raise pickle.UnpicklingError(f"a tensor with shape {shape}, strides {stride} and offset {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    if last >= len(storage):
        raise pickle.UnpicklingError(f"a tensor that reads number {last} of a storage of {len(storage)}")
    strides = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides).copy()


class _Array:
    """Stands for a NumPy array in a pickle, whose numbers come with its state."""

    array: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError(f"a NumPy array of {type(dtype).__name__}")
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C").copy("C")


class Record:
    """Stands for an object of a known class: keeps its fields, and has no methods.

    Attributes:
      fields: name -> array, number or text.
    """

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.fields = {str(key): value.array if isinstance(value, _Array) else value for key, value in state.items()}


NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
    ("_codecs", "encode"): _latin1,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
    # AP-GeM's files hold scikit-learn's principal components beside the network.
    ("sklearn.decomposition.pca", "PCA"): Record,
    ("sklearn.decomposition._pca", "PCA"): Record,
}


def _storage_of(pid: Any) -> tuple[str, np.dtype, int]:
    """Key, type and count of the storage that a pickle refers to."""
    kind, storage_type, key, _, length, *view = pid
    if kind != "storage" or not isinstance(storage_type, _StorageType) or any(part is not None for part in view):
        raise pickle.UnpicklingError(f"a reference to {kind!r}")
    return str(key), storage_type.dtype, length


class _Unpickler(pickle.Unpickler):
    """Knows `NAMES` and storages, nothing else."""

    def __init__(self, file: BinaryIO, load_storage: Callable[[str], bytes]):
        super().__init__(file)
        self.load_storage = load_storage
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return _StorageType(STORAGES[name])
        if (module, name) in NAMES:
            return NAMES[module, name]
        raise pickle.UnpicklingError(f"{module}.{name}, which is not a tensor, dict or number")

    def persistent_load(self, pid: Any) -> np.ndarray:
        key, dtype, length = _storage_of(pid)
        if key not in self.storages:
            self.storages[key] = np.frombuffer(self.load_storage(key), dtype)
        if len(self.storages[key]) != length:
            raise pickle.UnpicklingError(f"storage {key} of {length} numbers, but it has {len(self.storages[key])}")
        return self.storages[key]


class _Survey(_Unpickler):
    """Notes which storages a pickle refers to, without the tensors that need their numbers."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, lambda key: b"")
        self.references: dict[str, tuple[np.dtype, int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = super().find_class(module, name)
        return (lambda *_: None) if module == "torch._utils" else known

    def persistent_load(self, pid: Any) -> Any:
        key, dtype, length = _storage_of(pid)
        self.references[key] = dtype, length


def load(path: Path) -> Any:
    """The object that `torch.save` wrote, with NumPy arrays for tensors.

    Raises:
      UserError: for another file, a damaged one, or one that holds anything but tensors, dicts, lists, strings, numbers
        and records of these.
    """
    try:
        with path.open("rb") as file:
            before_zips = file.read(1) == b"\x80"
            file.seek(0)
            return _load_sequence(file) if before_zips else _load_zip(path)
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: {_why_no_zip(path)} ({error})") from error
    except pickle.UnpicklingError as error:
        if "truncated" in str(error):
            raise UserError(f"{path}: damaged, it ends early. Download it again") from error
        raise UserError(
            f"{path}: refused, it holds {error}. Only tensors in dicts are read; "
            "in PyTorch, save the model's state_dict() alone"
        ) from error
    except (KeyError, EOFError, ValueError, TypeError, IndexError, AttributeError, MemoryError) as error:
        raise UserError(f"{path}: damaged, its pickle cannot be read ({error!r}). Download it again") from error


def _load_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        root = next((n[: -len("data.pkl")] for n in archive.namelist() if n.endswith("data.pkl")), None)
        if root is None:
            raise UserError(f"{path}: a zip file without data.pkl; expected a file written by torch.save")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise UserError(f"{path}: written on a big-endian machine; save it again on another")
        pickled = io.BytesIO(archive.read(f"{root}data.pkl"))
        return _Unpickler(pickled, lambda key: archive.read(f"{root}data/{key}")).load()


def _load_sequence(file: BinaryIO) -> Any:
    """A file of before PyTorch 1.6: a magic number, a version, notes on the machine, the object, the keys of its
    storages, one pickle each; then the storages, each after its count."""
    if _Survey(file).load() != MAGIC:
        raise UserError(f"{file.name}: a pickle, but not one that torch.save wrote")
    _, machine = _Survey(file).load(), _Survey(file).load()
    if not machine["little_endian"]:
        raise UserError(f"{file.name}: written on a big-endian machine; save it again on another")
    start, survey = file.tell(), _Survey(file)
    survey.load()
    storages = {}
    for key in _Survey(file).load():
        dtype, length = survey.references[key]
        count = int.from_bytes(file.read(8), "little")
        storages[key] = file.read(length * dtype.itemsize)
        if count != length or len(storages[key]) != length * dtype.itemsize:
            raise EOFError(f"storage {key} of {length} numbers ends early")
    file.seek(start)
    return _Unpickler(file, storages.__getitem__).load()


def _why_no_zip(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK":
        return "cut short or damaged. Download it again"
    return "not a file of torch.save: it is neither a zip nor a pickle"
