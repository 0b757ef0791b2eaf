"""What a model's own options freeze is out of the optimiser: weight decay does not shrink it."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxvpr import families
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import loop


def test_what_the_backbone_freezes_is_bit_for_bit_the_same_after_training(tiny_config, tmp_path):
    config = tiny_config.copy_and_resolve_references().unlock()
    config.model.backbone_options.frozen_until = "layer1"
    config.frozen = ("aggregator/gem",)
    config.epochs, config.steps_per_epoch, config.optimizer_extra.warmup = 1, 2, 0
    config.optimizer.update(name="adamw", rate=0.1, weight_decay=0.1, schedule="constant", warmup=0)
    mesh = make_mesh(devices=jax.devices()[:1])
    recipe = families.recipe(config, mesh, [])
    outcome = loop.train(config, tmp_path, recipe, mesh)
    before, after = (flatten_dict(part["params"], sep="/") for part in (outcome.initial, outcome.best))
    rests = ("backbone/conv1", "backbone/bn1", "backbone/layer1_", "aggregator/gem")
    assert outcome.best_step == 2 and any(path.startswith("backbone/layer2_") for path in before)
    for path, leaf in before.items():
        assert np.array_equal(after[path], leaf) == path.startswith(rests), path
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(
            *(jax.tree.leaves(part["batch_stats"]["backbone"]["bn1"]) for part in (outcome.initial, outcome.best)),
            strict=True,
        )
    ), "statistics of frozen stages move"
