"""Reads the files of `torch.save` without torch, and without running code from a file.

Such a file is a zip of a pickle that describes the objects and of the raw bytes of each storage; before PyTorch 1.6 it
was a sequence of pickles followed by the bytes, as many published weights still are. The pickle is read as data
(`pickles`), whatever a trainer put beside the weights. Then the numbers of the tensors that are wanted are read, and no
more of them than such a file can hold.
"""

from __future__ import annotations

import io
import math
import mmap
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from jaxvpr.errors import UserError
from jaxvpr.weights import pickles
from jaxvpr.weights.pickles import Record

MAGIC = 0x1950A86A20F9469CFC6C  # begins the files of before PyTorch 1.6
STORAGES = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}
NUMPY = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1")
# Tensors may share numbers or repeat them, and so be larger than their file: up to so many times, or so many bytes.
LARGER, ALWAYS = 16, 2**26
# What the bytes of a strange file do to the parsers.
DAMAGES = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
    struct.error,
)  # fmt: skip
Read = Callable[[str, int], bytes]  # a storage's bytes, by its key and their number


class _Tensor(NamedTuple):
    """Where a tensor's numbers are: in a storage that has `numbers` of them."""

    storage: str
    dtype: np.dtype
    numbers: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self, data: bytes) -> np.ndarray:
        """The numbers in an array of its own, whatever part of the storage's `data` the tensor views."""
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        # The stride of a lone number means nothing.
        strides = [step * self.dtype.itemsize if n > 1 else 0 for n, step in zip(self.shape, self.stride, strict=True)]
        storage = np.frombuffer(data, self.dtype)[self.offset :]
        return np.lib.stride_tricks.as_strided(storage, self.shape, strides).copy()


class _Array(NamedTuple):
    """A NumPy array, whose numbers are in the pickle."""

    dtype: np.dtype
    shape: tuple[int, ...]
    order: str
    data: Any

    def array(self, _: bytes) -> np.ndarray:
        """The numbers in an array of its own."""
        text = self.data.args[0] if isinstance(self.data, Record) else self.data
        data = text.encode("latin1") if isinstance(text, str) else text
        return np.frombuffer(data, self.dtype).reshape(self.shape, order=self.order).copy("C")  # type: ignore[call-overload]


def is_tensor(value: Any) -> bool:
    """Whether something of `pickles` stands for a tensor of PyTorch or an array of NumPy."""
    return _bare(value) is not None


def load(path: Path, choose: Callable[[Any], Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Tensors of a file that `torch.save` wrote, each an array of its own.

    Args:
      choose: given the object in the file, as `pickles` has it, returns what `is_tensor` of it is to be read, by name.

    Raises:
      UserError: for another file, a damaged one, or tensors that are not all there.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            before_zips, size = file.read(1) == b"\x80", file.seek(0, io.SEEK_END)
            file.seek(0)
            content, read = (_opened_sequence if before_zips else _opened_zip)(file)
            return _arrays(path, choose(content), read, size)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}). Check its permissions") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: {_why_no_zip(path)} ({error})") from error
    except UnpicklingError as error:
        raise UserError(
            f"{path}: refused, it holds {error}. In PyTorch, save the model's state_dict() alone"
        ) from error
    except DAMAGES as error:
        raise UserError(f"{path}: damaged, its pickle cannot be read ({error!r:.300}). Download it again") from error


def _arrays(path: Path, chosen: Mapping[str, Any], read: Read, size: int) -> dict[str, np.ndarray]:
    """Reads one storage after the other, so that no more than one is in memory beside the arrays."""
    tensors = {name: _described(path, name, value) for name, value in chosen.items()}
    storages = {t.storage: t.numbers * t.dtype.itemsize for t in tensors.values() if isinstance(t, _Tensor)}
    wanted = sum(math.prod(t.shape) * t.dtype.itemsize for t in tensors.values())
    if sum(storages.values()) > size or wanted > max(LARGER * size, ALWAYS):
        raise UserError(f"{path}: refused, a file of {size:,} bytes with tensors of {wanted:,}. Download it again")
    arrays: dict[str, np.ndarray] = {}
    where = {name: t.storage if isinstance(t, _Tensor) else "" for name, t in tensors.items()}
    for storage, names in groupby(sorted(tensors, key=where.__getitem__), where.__getitem__):
        data = read(storage, storages[storage]) if storage in storages else b""
        arrays |= {name: tensors[name].array(data) for name in names}
    return {name: arrays[name] for name in tensors}


def _bare(value: Any) -> Record | None:
    """The record that describes a tensor itself: parameters wrap it, and so do tensors with attributes."""
    for _ in range(8):
        match value:
            case Record(origin="torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state"):
                value = value.args[0] if isinstance(value.args, tuple) and value.args else None
            case Record(origin="torch._tensor._rebuild_from_type_v2", args=(Record() as maker, _, tuple() as args, *_)):
                value = Record(maker.origin, args)
            case Record(origin="torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2"):
                return value
            case Record(
                origin="numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct" | "numpy.ndarray",
                state=tuple(),
            ):
                return value
            case _:
                return None
    return None


def _described(path: Path, name: str, value: Any) -> _Tensor | _Array:
    """Raises UserError, with the tensor's name, for one that is of no known type or not all there."""
    match _bare(value):
        case Record(args=(Record(origin="persistent", args=pid), offset, shape, stride, *_)) if _counts(
            (offset,), shape, stride
        ) and len(shape) == len(stride):
            tensor = _Tensor(*_storage(path, name, pid), offset, shape, stride)
            last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
            if last >= tensor.numbers and 0 not in shape:
                raise UserError(f"{path}: refused, {name} reads number {last} of a storage of {tensor.numbers}")
            return tensor
        case Record(state=(_, shape, Record(origin="numpy.dtype", args=(code, *_), state=state), fortran, data)):
            little = not (isinstance(state, tuple) and ">" in state)
            if code in NUMPY and little and _counts(shape):
                return _Array(np.dtype(code).newbyteorder("<"), shape, "F" if fortran is True else "C", data)
    raise UserError(f"{path}: refused, {name} is a tensor of no type or shape that there is. Download it again")


def _counts(*several: Any) -> bool:
    """Whether all are tuples of a few whole numbers from 0 on, as shapes are."""
    return all(
        isinstance(one, tuple) and len(one) <= 32 and all(isinstance(n, int) and 0 <= n < 2**63 for n in one)
        for one in several
    )


def _storage(path: Path, name: str, pid: Any) -> tuple[str, np.dtype, int]:
    """Key, type and count of the storage that a pickle refers to."""
    match pid:
        case ("storage", Record(origin=kind), str(key), _, int(count), *view) if _counts((count,)):
            if kind in STORAGES and not any(part is not None for part in view):
                return key, STORAGES[kind], count
            raise UserError(f"{path}: {name} is of type {kind:.100}; readable are {sorted(STORAGES)}")
    raise UnpicklingError(f"a reference of {name} to what is no storage")


def _opened_zip(file: BinaryIO) -> tuple[Any, Read]:
    archive = zipfile.ZipFile(file)
    root = next((n[: -len("data.pkl")] for n in archive.namelist() if n.endswith("data.pkl")), None)
    if root is None:
        raise UserError(f"{file.name}: a zip file without data.pkl; expected a file written by torch.save")

    def read(name: str, size: int | None = None) -> bytes:
        entry = archive.getinfo(f"{root}{name}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise UserError(
                f"{file.name}: {entry.filename!r} in it is compressed or encrypted, which torch.save never does. "
                "Download it again, or save it again with torch.save"
            )
        if size is not None and size != entry.file_size:
            raise EOFError(f"{entry.filename!r} has {entry.file_size} bytes, not {size}")
        return archive.read(entry)

    if f"{root}byteorder" in archive.namelist() and read("byteorder") != b"little":
        raise UserError(f"{file.name}: written on a big-endian machine; save it again on another")
    content = pickles.load(io.BytesIO(read("data.pkl"))).value
    return content, lambda key, size: read(f"data/{key}", size)


def _opened_sequence(file: BinaryIO) -> tuple[Any, Read]:
    """A file of before PyTorch 1.6: a magic number, a version, notes on the machine, the object, the keys of its
    storages, one pickle each; then the storages, each after its count."""
    # Mapped, a file reads no more than it has, however much a pickle asks for.
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if pickles.load(mapped).value != MAGIC:
        raise UserError(f"{file.name}: a pickle, but not one that torch.save wrote")
    _, machine, (content, references), keys = (pickles.load(mapped) for _ in range(4))
    if not machine.value["little_endian"]:
        raise UserError(f"{file.name}: written on a big-endian machine; save it again on another")
    path, starts = Path(file.name), {}
    # A whole module is stored beside the source of its class.
    pids = [r.args for r in references if isinstance(r.args, tuple) and r.args[:1] != ("module",)]
    stored = {key: (dtype, count) for key, dtype, count in (_storage(path, "a tensor", pid) for pid in pids)}
    place = mapped.tell()
    for key in keys.value:
        dtype, count = stored[key]
        starts[key], place = place, place + 8 + dtype.itemsize * count

    def read(key: str, size: int) -> bytes:
        start, count = starts[key], stored[key][1]
        data = mapped[start + 8 : start + 8 + size]
        if len(data) != size or int.from_bytes(mapped[start : start + 8], "little") != count:
            raise EOFError(f"storage {key!r:.50} of {count} numbers ends early")
        return data

    return content, read


def _why_no_zip(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK":
        return "cut short or damaged. Download it again"
    return "not a file of torch.save: it is neither a zip nor a pickle"
