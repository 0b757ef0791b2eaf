"""The safetensors format: eight bytes of header length, a JSON header, then the numbers of every tensor in a row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxvpr.errors import UserError

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors and the metadata of a file.

    Raises:
      UserError: where the file is cut short, its header is damaged, or a type is not one of `DTYPES`.
    """
    # A view: a slice of bytes would copy the rest of the file for each tensor.
    data = memoryview(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 + size:
        raise UserError(
            f"{path}: cut short or no safetensors file: {len(data)} bytes, but its header alone needs {size}"
        )
    try:
        header = json.loads(bytes(data[8 : 8 + size]))
        metadata = header.pop("__metadata__", {})
        return {name: _tensor(path, name, entry, data[8 + size :]) for name, entry in header.items()}, metadata
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: its safetensors header is damaged ({error!r}). Fetch it again") from error


def _tensor(path: Path, name: str, entry: Mapping, data: memoryview) -> np.ndarray:
    if entry["dtype"] not in DTYPES:
        raise UserError(f"{path}: {name} has type {entry['dtype']}; readable are {sorted(DTYPES)}")
    dtype, shape, (start, stop) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    needed = math.prod(shape) * dtype.itemsize
    if not 0 <= start <= stop <= len(data) or stop - start != needed:
        raise UserError(
            f"{path}: cut short or damaged: {name} {shape} needs {needed} bytes, at {start} to {stop} of {len(data)}"
        )
    return np.frombuffer(data[start:stop], dtype).reshape(shape).copy()


def save(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes tensors in the order of their names; the numbers start at a multiple of eight bytes.

    Raises:
      UserError: for a type that the format lacks.
    """
    names = {dtype: code for code, dtype in DTYPES.items()}
    header: dict = {"__metadata__": dict(metadata)} if metadata else {}
    arrays, offset = [], 0
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name]).reshape(np.shape(tensors[name]))
        dtype = array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype
        if dtype not in names:
            raise UserError(f"{path}: {name} has type {array.dtype}; the format knows {sorted(DTYPES)}")
        header[name] = {
            "dtype": names[dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        arrays.append(array.astype(dtype, copy=False))
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(array.tobytes() for array in arrays)
