"""Reads and writes files of weights: `.pth` (and `.pt`, `.tar`) and `.safetensors`.

Reading either, and writing `.safetensors`, needs no torch; writing `.pth` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.atomic import replacing
from data_pipelines.progress import slow
from jaxvpr.errors import UserError
from jaxvpr.weights import safetensor_files, torch_files

TORCH = (".pth", ".pt", ".tar", ".ckpt", ".bin")
# Where training files keep the model among optimisers and counters (`spec`: CosPlace, Deep VG, CliqueMining, others).
NESTS = ("model_state_dict", "state_dict", "model")


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The named tensors of a file of weights.

    A training file holds its model under `model_state_dict`, `state_dict` or `model`; the prefix `module.` that
    data-parallel training leaves on every name is taken off. Principal components of scikit-learn, which AP-GeM's files
    keep beside the model under `pca`, become `pca.<data set>.mean_` and so on; their code is neither needed nor run.

    Raises:
      UserError: for a file that is missing, of another kind, cut short, or that holds more than data.
    """
    path = _existing(path)
    with slow(f"reading {path}"):
        if path.suffix == ".safetensors":
            return _without_module(safetensor_files.load(path))
        content = torch_files.load(path)
    return {**_without_module(_model_of(content, path)), **_components(content)}


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text notes of a `.safetensors` file; a `.pth` file has none.

    Raises:
      UserError: as `read`.
    """
    path = _existing(path)
    return safetensor_files.metadata(path) if path.suffix == ".safetensors" else {}


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
        raise UserError(f"{path}: no such file of weights")
    if path.suffix not in (*TORCH, ".safetensors"):
        raise UserError(f"{path}: weights are read from {', '.join(TORCH)} and .safetensors files")
    return path


def _model_of(content: Any, path: Path) -> dict[str, np.ndarray]:
    """The dict of tensors at the deepest of the keys `NESTS`; a single tensor is named by its file."""
    if isinstance(content, np.ndarray):
        return {path.stem: content}
    while isinstance(content, dict) and (nest := next((n for n in NESTS if isinstance(content.get(n), dict)), None)):
        content = content[nest]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, np.ndarray)} if isinstance(content, dict) else {}
    if not tensors:
        keys = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path}: no tensors by name, but {keys}; expected a state dict, bare or under one of {NESTS}")
    return tensors


def _components(content: Any) -> dict[str, np.ndarray]:
    """The arrays of principal components that a file keeps under `pca`, by the name of the data set they are from."""
    named = content.get("pca") if isinstance(content, dict) else None
    named = named if isinstance(named, dict) else {}
    records = {f"pca.{name}": record.fields for name, record in named.items() if isinstance(record, torch_files.Record)}
    return {
        f"{prefix}.{name}": value
        for prefix, fields in records.items()
        for name, value in fields.items()
        if isinstance(value, np.ndarray)
    }


def _without_module(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if tensors and all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors
