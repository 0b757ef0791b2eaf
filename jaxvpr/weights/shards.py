"""Weights in several files, with or without the index that says which tensor is in which."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxvpr.errors import UserError

INDEX = ".index.json"
# Files that make one model together by their own names, and the names under which their tensors stand in it: those of
# the package geoclip. A lone tensor's name is the whole one.
PARTS = {
    "image_encoder_mlp_weights.pth": "image_encoder.mlp.",
    "location_encoder_weights.pth": "location_encoder.",
    "logit_scale_weights.pth": "logit_scale",
}
SHARD = re.compile(r"(?P<stem>.+-)(?P<number>\d{5})(?P<of>-of-(?P<count>\d{5})\..+)")


def stands_for_several(path: Path) -> bool:
    """Whether a path is an index of shards, one of the shards, or a folder."""
    return path.is_dir() or path.name.endswith(INDEX) or SHARD.fullmatch(path.name) is not None


def joined(path: Path, read: Callable[[Path], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The tensors of all shards.

    Args:
      path: as `stands_for_several` takes. A folder holds one index, one file of weights called `model.safetensors`, or
        the files of `PARTS`.
      read: gives the tensors of one file.

    Raises:
      UserError: where the index cannot be read or a file, or a tensor that the index names, is missing.
    """
    if path.is_dir() and all((path / part).is_file() for part in PARTS):
        parts = ((name, prefix, read(path / name)) for name, prefix in PARTS.items())
        return {_within(prefix, own, name): value for name, prefix, found in parts for own, value in found.items()}
    if path.is_dir():
        path = _of_folder(path)
    index = _by_index(path) if path.name.endswith(INDEX) else {}
    files = [path.parent / name for name in sorted(set(index.values())) or _numbered(path)]
    if absent := [file.name for file in files if not file.is_file()]:
        raise UserError(f"{path}: of its {len(files)} files, {len(absent)} are missing: {', '.join(absent[:3])}, ...")
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        found = read(file)
        if twice := tensors.keys() & found.keys():
            raise UserError(f"{file}: has {min(twice)}, which another of these files has too")
        tensors |= found
    if lacking := index.keys() - tensors.keys():
        raise UserError(f"{path.parent / index[min(lacking)]}: has no {min(lacking)}, which {path.name} says it has")
    return tensors


def _within(prefix: str, own: str, file: str) -> str:
    return prefix if own == Path(file).stem else prefix + own


def _of_folder(folder: Path) -> Path:
    found = sorted(folder.glob(f"*{INDEX}")) or sorted(folder.glob("model.safetensors"))
    if len(found) != 1:
        raise UserError(
            f"{folder}: a folder of weights holds one index of shards (*{INDEX}) or model.safetensors; found "
            f"{[file.name for file in found] or 'neither'}. Give the file itself"
        )
    return found[0]


def _by_index(path: Path) -> dict[str, str]:
    """Which file holds each tensor."""
    try:
        placed = json.loads(path.read_bytes())["weight_map"]
        if not all(
            isinstance(file, str) and file == Path(file).name and not file.endswith(INDEX) for file in placed.values()
        ):
            raise ValueError("a file that is not beside it")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UserError(
            f'{path}: no index of shards ({error!r:.200}). Expected {{"weight_map": {{TENSOR: FILE}}}}'
        ) from error
    return dict(placed)


def _numbered(path: Path) -> list[str]:
    """The names of all files that a shard is one of; itself, where it has no number."""
    match = SHARD.fullmatch(path.name)
    if match is None:
        return [path.name]
    return [f"{match['stem']}{number:05d}{match['of']}" for number in range(1, int(match["count"]) + 1)]
