"""What a device holds of a training and sends to others: large tables of prototypes and large models, by how the mesh
splits them, BatchNorm over groups of images, and blocks that are computed again in the backward pass.

Memory is XLA's own account of the compiled step on simulated CPU devices: `state` is what lies there between steps (of
parameters, heads and their optimiser state), `temp` what a step needs besides. Nothing of that size is run or even
allocated. A GPU or TPU compiles otherwise, so that its `temp` is another. What blocks keep for the backward pass is
counted before any compiler: XLA's CPU does not spare what could be computed again.

  python -m benchmarks.sharding --out benchmarks/results/sharding.json
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import hlo, side_by_side
from jaxvpr import builders
from jaxvpr.cli.recipes import load_config
from jaxvpr.models.layers import KEPT
from jaxvpr.models.platforms import plain
from jaxvpr.objectives.objective import Objective, passes_plan
from jaxvpr.objectives.place_heads import Choice, prototype_head
from jaxvpr.parallel.mesh import batch_sharding
from jaxvpr.training import settings
from jaxvpr.training.state import planned
from jaxvpr.training.step import Turn, make_step

IMAGES = 8  # of a device's share of the batch


class Case(NamedTuple):
    """A recipe, how many classes it has, what is changed in it, and on how many devices it is compiled."""

    recipe: str
    classes: int
    changes: dict[str, Any]
    devices: tuple[int, ...]


# The backbone is small where the table is what matters: compiling it for 64 devices takes the time.
SMALL = {
    "image.size": (64, 64), "model.backbone": "resnet_small", "model.aggregator_options.dim": 512,
    "model.backbone_options": ConfigDict({"widths": (16, 16, 16, 16)}),
}  # fmt: skip
R50 = {"image.size": (64, 64), "model.backbone": "resnet50"}
VIT = {"image.size": (140, 140), "model.backbone_options.train_blocks": 12}
CASES = {
    "10M classes x 512, model=1": Case("configs/cosplace.py:sf_xl", 10_000_000, SMALL, (2, 8)),
    "10M classes x 512, model=0": Case(
        "configs/cosplace.py:sf_xl", 10_000_000, {**SMALL, "mesh.model": 0}, (2, 4, 8, 16, 32, 64)
    ),
    "10M classes x 512, model=8": Case("configs/cosplace.py:sf_xl", 10_000_000, {**SMALL, "mesh.model": 8}, (64,)),
    "ResNet-50, BatchNorm over the batch": Case("configs/cosplace.py:sf_xl", 1024, R50, (8,)),
    "ResNet-50, BatchNorm over 8 images": Case(
        "configs/cosplace.py:sf_xl", 1024, {**R50, "model.batch_norm_images": IMAGES}, (8,)
    ),
    "DINOv2-B, whole": Case("configs/salad.py:salad", 1024, VIT, (8,)),
    "DINOv2-B, split from 1 MiB": Case("configs/salad.py:salad", 1024, {**VIT, "mesh.fsdp_mib": 1.0}, (8,)),
}
RECOMPUTED = {
    (backbone, remat): Case(
        "configs/salad.py:salad",
        1024,
        {
            "image.size": (140, 140), "model.backbone": backbone, "model.aggregator": "gem",
            "model.aggregator_options": ConfigDict({}), "model.dtype": "bfloat16",
            "model.backbone_options": ConfigDict({**options, "remat": remat}),
        },
        (),
    )
    for backbone, options in (("dinov2_vitb14", {"train_blocks": 12}), ("resnet50", {}))
    for remat in (False, True, *KEPT)
}  # fmt: skip


def recipe(case: Case) -> ConfigDict:
    """The recipe of a case."""
    config = load_config(case.recipe).unlock()
    for key, value in case.changes.items():
        *groups, last = key.split(".")
        group = config
        for name in groups:
            group = group[name]
        group[last] = value
    return config


def kept(case: Case) -> int:
    """Bytes that differentiation keeps of the activations of `IMAGES` images, before any compiler."""
    config = recipe(case)
    model, variables = builders.model(config), builders.shapes(config)
    images = jax.ShapeDtypeStruct((IMAGES, *builders.image_size(config), 3), np.uint8)

    def backward(params: Any, stats: Any, images: Any) -> Any:
        def embed(params: Any) -> Any:
            variables = {"params": params, "batch_stats": stats}
            return model.apply(variables, images, train=True, mutable=["batch_stats"])[0]

        return jax.vjp(embed, params)[1]

    held, params = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for tree in (jax.eval_shape(backward, *variables.values(), images), variables["params"])
    )
    return held - params


def compiled(case: Case) -> Any:
    """The compiled step of a case under CosFace with Adam, over all devices there are."""
    config = recipe(case)
    mesh, model = builders.mesh(config), builders.model(config)
    batch = IMAGES * mesh.size
    head = prototype_head(Choice("cosface"), case.classes)
    objective = Objective(
        ("source",), 1, passes_plan(batch, batch, 1), head.loss, init=head.init, by_class=head.by_class
    ).embedding_with(model)
    optimiser = settings.optimisers.build("adam", rate=1e-5, total=1)
    tuners = dict.fromkeys(settings.optimisers.GROUPS, optimiser)
    frozen = (*config.frozen, *model.frozen_paths())
    _, state = planned(
        model, objective, tuners, mesh, example=builders.blank(config), frozen=frozen, seed=0,
        fsdp_mib=config.mesh.fsdp_mib,
    )  # fmt: skip
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    shapes = {"image": ((*builders.image_size(config), 3), np.uint8), "label": ((), np.int32), "mask": ((), np.bool_)}
    rows = {
        name: jax.ShapeDtypeStruct((batch, *inner), kind, sharding=batch_sharding(mesh))
        for name, (inner, kind) in shapes.items()
    }
    step = make_step(objective, tuners, mesh, shardings, total=1, frozen=frozen)
    return plain(step.lower)(state, {"source": rows}, Turn(np.int32(0))).compile()


def account(case: Case) -> dict[str, Any]:
    """What the step of a case needs on each device."""
    program = compiled(case)
    memory = hlo.memory(program)
    return {
        "state_mib": round(memory["output"] / 2**20, 1),
        "temp_mib": round(memory["temp"] / 2**20, 1),
        "collectives": hlo.summary(hlo.collectives(program.as_text(), jax.device_count())),
    }


def main() -> None:
    """All cases, or, where a side is named, that one on so many devices."""
    parser = side_by_side.flags(__doc__, rounds=1)
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES), help="none: kept alone")
    parser.add_argument("--side", choices=list(CASES))
    parser.add_argument("--devices", type=int, default=1)
    given = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={given.devices}"
    if given.side:
        print(json.dumps(account(CASES[given.side])))
        return
    compiled_cases = [
        {
            "case": name,
            "devices": devices,
            **side_by_side.in_own_process("benchmarks.sharding", "--side", name, "--devices", devices),
        }
        for name in given.cases
        for devices in CASES[name].devices
    ]
    by_remat = [
        {"backbone": backbone, "remat": remat, "mib": round(kept(case) / 2**20, 1)}
        for (backbone, remat), case in RECOMPUTED.items()
    ]
    results = {"compiled": compiled_cases, "kept": by_remat}
    side_by_side.finish(side_by_side.report(results, ("jax", "jaxlib", "flax", "optax"), images=IMAGES), given.out)


if __name__ == "__main__":
    main()
