"""Reads and writes files of weights: `.pth` (and `.pt`, `.tar`) and `.safetensors`, whole or in shards.

Reading either, and writing `.safetensors`, needs no torch; writing `.pth` does.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.atomic import replacing
from data_pipelines.progress import slow
from jaxvpr.errors import UserError
from jaxvpr.weights import safetensor_files, shards, torch_files
from jaxvpr.weights.pickles import Record

TORCH = (".pth", ".pt", ".tar", ".ckpt", ".bin")
# Where training files keep the model among optimisers and counters; of several the first counts. Averages of weights
# stand behind the weights themselves, but a teacher, from whom the student learns, before it.
NESTS = (
    "model_state_dict", "state_dict", "model_state", "model", "net", "network", "module", "teacher", "student",
    "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "ema",
)  # fmt: skip


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The named tensors of a file of weights, or of one in shards.

    A training file holds its model under the first of `NESTS` that it has; the prefix `module.` that data-parallel
    training leaves on every name is taken off. What else is in the file is neither needed nor run. Principal components
    of scikit-learn, which AP-GeM's files keep beside the model under `pca`, become `pca.<data set>.mean_` and so on.

    Args:
      path: a file; an index of shards (`model.safetensors.index.json`), the folder that holds it, or one of the shards.

    Raises:
      UserError: for a file that is missing, of another kind, or cut short.
    """
    path = Path(path)
    with slow(f"reading {path}"):
        return shards.joined(path, _read) if shards.stands_for_several(path) else _read(path)


def _read(path: Path) -> dict[str, np.ndarray]:
    path = _existing(path)
    if path.suffix.lower() == ".safetensors":
        return _without_module(safetensor_files.load(path))
    return torch_files.load(path, lambda content: {**_without_module(_model_of(content, path)), **_components(content)})


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text notes of a `.safetensors` file; a `.pth` file has none.

    Raises:
      UserError: as `read`.
    """
    path = _existing(path)
    return safetensor_files.metadata(path) if path.suffix.lower() == ".safetensors" else {}


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes named tensors: by the ending a `.safetensors` file, or a `.pth` that PyTorch loads as a state dict.

    The file is written completely or not at all. `metadata` is kept in `.safetensors` only.

    Raises:
      UserError: for another ending, or for `.pth` where PyTorch is not installed.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise UserError(f"{path}: weights are written as .safetensors, .pth or .pt; give one of these endings")
    if path.suffix == ".safetensors":
        safetensor_files.save(path, tensors, metadata or {})
    else:
        _save_torch(path, tensors)


def _save_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: writing PyTorch's format needs PyTorch: pip install jaxvpr[torch]. "
            "Or write .safetensors, which does not need it"
        ) from error
    with replacing(path) as part:
        torch.save({name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}, part)


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'} of weights")
    if path.suffix.lower() not in (*TORCH, ".safetensors"):
        raise UserError(f"{path}: weights are read from {', '.join(TORCH)} and .safetensors files")
    return path


def _model_of(content: Any, path: Path) -> dict[str, Any]:
    """The tensors by name in a file; a single tensor is named by its file.

    Raises:
      UserError: where there are none; says what there is.
    """
    if torch_files.is_tensor(content):
        return {path.stem: content}
    found = _nested(content, set())
    if not found:
        there = content.origin if isinstance(content, Record) and not content else type(content).__name__
        keys = reprlib.repr(sorted(content)) if isinstance(content, dict) and content else f"{there:.200}"
        raise UserError(
            f"{path}: no tensors by name, but {keys}; expected a state dict, bare or under one of {', '.join(NESTS)}. "
            "In PyTorch, save the model's state_dict()"
        )
    return found


def _nested(content: Any, seen: set[int]) -> dict[str, Any]:
    """The tensors of the first of `NESTS` that holds any, or else those of `content` itself.

    A dict may hold itself, so that none is looked at twice.
    """
    if not isinstance(content, dict) or id(content) in seen:
        return {}
    seen.add(id(content))
    content = content or _of_pairs(content)
    nested = (_nested(content.get(nest), seen) for nest in NESTS)
    return next(filter(None, nested), {name: value for name, value in content.items() if torch_files.is_tensor(value)})


def _of_pairs(content: dict[str, Any]) -> dict[str, Any]:
    """The items of an OrderedDict as Python 2 wrote it: made of a list of pairs."""
    match content:
        case Record(args=(list() as pairs,)):
            return {
                pair[0]: pair[1] for pair in pairs if isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is str
            }
    return content


def _components(content: Any) -> dict[str, Any]:
    """The arrays of principal components that a file keeps under `pca`, by the name of the data set they are from."""
    named = content.get("pca") if isinstance(content, dict) else None
    records = named.items() if isinstance(named, dict) else ()
    return {
        f"pca.{prefix}.{name}": value
        for prefix, record in records
        if isinstance(record, Record) and isinstance(record.state, dict)
        for name, value in record.state.items()
        if torch_files.is_tensor(value)
    }


def _without_module(tensors: dict[str, Any]) -> dict[str, Any]:
    if tensors and all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors
