"""Reads the zip files of `torch.save` without torch, and without ever running what a file says.

Such a file holds a pickle that describes the objects, and the raw bytes of each storage beside it. The pickle is read
by an unpickler that knows a short list of names (below) and refuses every other, so that a file can build tensors,
dicts, lists, strings and numbers, and nothing else.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxvpr.errors import UserError

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
    """Stands for a NumPy type in a pickle; a later state may only tell its byte order, which is little."""

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


def _parameter(tensor: np.ndarray, *_: Any) -> np.ndarray:
    return tensor


NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle.Unpickler):
    """Knows `NAMES` and storages, nothing else."""

    def __init__(self, file: io.BytesIO, load_storage: Callable[[str], bytes]):
        super().__init__(file)
        self.load_storage = load_storage
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return _StorageType(STORAGES[name])
        if (module, name) in NAMES:
            return NAMES[module, name]
        raise pickle.UnpicklingError(f"{module}.{name}, which is no tensor, dict or number")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage_type, key, _, length = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"a reference to {kind!r}")
        if key not in self.storages:
            self.storages[key] = np.frombuffer(self.load_storage(key), storage_type.dtype)
        if len(self.storages[key]) != length:
            raise pickle.UnpicklingError(f"storage {key} of {length} numbers, but it has {len(self.storages[key])}")
        return self.storages[key]


def load(path: Path) -> Any:
    """The object that `torch.save` wrote, with NumPy arrays for tensors.

    Raises:
      UserError: for a file that is no such zip, is cut short or damaged, or holds anything but tensors, dicts, lists,
        strings and numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next((n[: -len("data.pkl")] for n in archive.namelist() if n.endswith("data.pkl")), None)
            if root is None:
                raise UserError(f"{path}: a zip file without data.pkl; expected a file written by torch.save")
            if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
                raise UserError(f"{path}: written on a big-endian machine; save it again on another")
            pickled = io.BytesIO(archive.read(f"{root}data.pkl"))
            return _Unpickler(pickled, lambda key: archive.read(f"{root}data/{key}")).load()
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: {_why_no_zip(path)} ({error})") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused, it holds {error}. Only tensors in dicts are read; "
            "in PyTorch, save the model's state_dict() alone"
        ) from error
    except (KeyError, EOFError, ValueError, TypeError, IndexError, AttributeError, MemoryError) as error:
        raise UserError(f"{path}: damaged, its description cannot be followed ({error!r}). Fetch it again") from error


def _why_no_zip(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK":
        return "cut short or damaged. Fetch it again"
    if start[:1] == b"\x80":
        return (
            "in PyTorch's format of before 1.6, which cannot be read safely. Rewrite it with PyTorch: "
            "torch.save(torch.load(file, map_location='cpu', weights_only=True), file)"
        )
    return "no file of torch.save: it is neither a zip nor a pickle"
