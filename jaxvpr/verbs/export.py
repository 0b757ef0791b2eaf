"""The verb export: weights under the names of the original, or a StableHLO program."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines.atomic import write_bytes, write_json
from data_pipelines.progress import slow
from jaxvpr import builders, models, weights
from jaxvpr.errors import UserError
from jaxvpr.models import Variables
from jaxvpr.runs import outputs, which
from jaxvpr.weights import stablehlo

log = logging.getLogger(__name__)
# Of a program whose model answers positions: parts of the area's height and width, degrees clockwise, a share.
ANSWER = ("north", "east", "bearing", "confidence")
WEIGHTS, PROGRAM = (".safetensors", ".pth", ".pt"), ".stablehlo"


def run(
    config: ConfigDict, folder: Path, checkpoint: str, out: Path, family: str = "", overwrite: bool = False
) -> dict[str, Any]:
    """Writes the model of a run, of a file, or (without either) freshly initialised, for use elsewhere.

    By the ending of `out`: `.pth` or `.safetensors` under the names of the original, or `.stablehlo`, a program. A
    report with the preprocessing and what was checked is printed and lies beside it as `out`.json.

    A model with a head that answers positions is written as a whole: its weights under the names of our own tree, and a
    program that gives descriptors and answers. These are parts of the area, which the report has: latitude = south +
    north x (north side - south side), in double precision, since float32 degrees are 0.4 m coarse.

    Args:
      family: whose names; by default those of the recipe's method, else of the first family that has a name for
        everything.

    Raises:
      UserError: for another ending, a family that cannot hold this model, or files that exist (not with `overwrite`).
    """
    if out.suffix not in (*WEIGHTS, PROGRAM):
        raise UserError(f"--out={out}: end the name with one of {', '.join((*WEIGHTS, PROGRAM))}")
    if out.suffix == PROGRAM and family:
        raise UserError(f"--family={family} names weights; a {PROGRAM} file holds a program. Leave it out")
    if out.suffix == PROGRAM and not config.image.size:
        raise UserError("this method takes images of their own size; a program needs one: --config.image.size=480,640")
    report_file = out.with_name(out.name + ".json")
    outputs.refuse_existing(out, report_file, overwrite=overwrite)
    if family:
        weights.left_out(family, builders.shapes(config))  # an unknown name is answered before minutes of loading
    what, config, variables, _ = which.chosen(config, folder, checkpoint, fresh=True)
    log.info("weights: %s", what)
    out.parent.mkdir(parents=True, exist_ok=True)
    write = _program if out.suffix == PROGRAM else _weights
    with slow(f"writing {out} and reading it back"):
        report = {"file": out.name, "weights": what, **_notes(config), **write(config, variables, out, family)}
    write_json(report_file, report)
    print(json.dumps(report, indent=2))
    return report


def _notes(config: ConfigDict) -> dict[str, Any]:
    """What a file of weights alone does not say: the method, how an image becomes its input, and what is ranked."""
    preprocess = json.loads(json.dumps(config.image.to_dict()))
    notes = {"method": config.method or config.name, "preprocess": preprocess, "l2_after": config.model.l2_after}
    return notes | ({"position": _position(config)} if config.model.get("position", "") else {})


def _position(config: ConfigDict) -> dict[str, Any]:
    """The head that answers positions: its kind, and the area that the numbers 0 to 1 stand for."""
    area = builders.coding(config).area
    sides = {name: getattr(area, name) for name in ("south", "west", "north", "east")}
    return {"kind": config.model.position, "area": sides, "unit": "metres" if area.metres else "degrees"}


def _weights(config: ConfigDict, variables: Variables, out: Path, family: str) -> dict[str, Any]:
    family = family or _family(config, variables)
    tensors = weights.to_torch(family, variables)
    notes = {"format": "pt", "jaxvpr_config": config.to_json()}
    notes |= {key: json.dumps(value) for key, value in _notes(config).items()}
    weights.write(out, tensors, notes)
    again = weights.from_torch(family, weights.read(out), variables)
    same = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), again, dict(variables))
    if not all(jax.tree.leaves(same)):
        raise UserError(f"{out} does not read back as it was written: is the disk sound?")
    if left := weights.left_out(family, variables):
        log.warning("%s holds a backbone alone; left out: %s", family, ", ".join(left))
    size = out.stat().st_size
    return {"family": family, "tensors": len(tensors), "left out": left, "bytes": size, "reads back": "bit for bit"}


def _family(config: ConfigDict, variables: Variables) -> str:
    if config.model.get("position", ""):
        return "jaxvpr"  # no original has names for a head
    return models.description(config.method).family if config.method else weights.family_for(variables)


def _program(config: ConfigDict, variables: Variables, out: Path, _: str) -> dict[str, Any]:
    head = bool(config.model.get("position", ""))
    apply, frames = (
        builders.answering(config, variables) if head else builders.apply(config),
        builders.clip_length(config),
    )
    size = (*(frames,) * bool(frames), *builders.image_size(config))
    serialised = stablehlo.program(apply, variables, *size)
    write_bytes(out, serialised)
    found = stablehlo.parity(out.read_bytes(), apply, variables, *size)
    return {
        "bytes": len(serialised),
        "computed in": models.computed_in(builders.model(config)),
        "platforms": list(stablehlo.PLATFORMS),
        "input": ["batch", *size, 3],
        **({"output": [["batch", builders.descriptor_size(config)], ["batch", list(ANSWER)]]} if head else {}),
        "parity": found,
    }
