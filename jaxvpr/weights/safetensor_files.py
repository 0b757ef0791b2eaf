"""Files of the safetensors format, read and written by its library; its errors get the names of file and tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  makes NumPy know bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialised

from data_pipelines.atomic import replacing
from jaxvpr.errors import UserError

# The types that weights have. The format has more, such as complex numbers, which no model here has.
TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def load(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file, each an array of its own; the file is mapped, so that it is in memory only once.

    Raises:
      UserError: where the file is cut short, its header is damaged, or a type is not one of `TYPES`.
    """
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118  a file cannot be iterated
            if (code := file.get_slice(name).get_dtype()) not in TYPES:
                raise UserError(f"{path}: {name} has type {code}; readable are {sorted(TYPES)}")
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def metadata(path: Path) -> dict[str, str]:
    """The notes of a file, of which only the header is read. Raises UserError as `load`."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except UserError:
        raise
    # The library leaves shapes with too many numbers or axes to NumPy.
    except (SafetensorError, MemoryError, ValueError) as error:
        raise UserError(
            f"{path}: cut short, or its safetensors header is damaged ({error}). Download it again"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}). Check its permissions") from error


def save(path: Path, tensors: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> None:
    """Writes tensors and notes, completely or not at all; equal ones give equal bytes.

    Raises:
      UserError: for a type that is not one of `TYPES`.
    """
    # The library writes the numbers in the order of memory and ignores the strides.
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    for name, array in arrays.items():
        if array.dtype.name not in TYPES.values():
            raise UserError(f"{path}: {name} has type {array.dtype}; writable are {sorted(TYPES.values())}")
    # Not its `save_file`, whose files only their owner may read, and which hides the system's errors (a full disk).
    content = memoryview(serialised(arrays, dict(notes) or None))
    start = 8 + int.from_bytes(content[:8], "little")
    with replacing(path) as part, part.open("wb") as file:
        file.write(content[:8])
        file.write(_ordered(bytes(content[8:start])))
        file.write(content[start:])


def _ordered(header: bytes) -> bytes:
    """A header with its notes in the order of their names; the library's order changes from call to call."""
    fields = json.loads(header)
    if "__metadata__" in fields:
        fields["__metadata__"] = dict(sorted(fields["__metadata__"].items()))
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode().ljust(len(header))
