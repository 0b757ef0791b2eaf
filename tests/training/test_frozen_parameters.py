"""What a model's own options freeze is out of the optimiser: weight decay does not shrink it."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxvpr import builders, families
from jaxvpr.errors import UserError
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.runs import model_file
from jaxvpr.training import loop


def test_what_the_backbone_freezes_is_bit_for_bit_the_same_after_training(tiny_config, tmp_path):
    config = tiny_config.copy_and_resolve_references().unlock()
    config.model.backbone_options.frozen_until = "layer1"
    config.frozen, config.frozen_random = ("aggregator/gem",), True
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


def test_what_is_frozen_at_random_numbers_is_refused(tiny_config, tmp_path):
    """By what a file gave: all that is frozen, a part of it, or nothing. Constants such as GeM's p are not random."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.model.backbone_options.frozen_until = "layer1"

    drawn = jax.device_get(jax.jit(lambda: builders.fresh_variables(config))())

    def start():
        frozen = (*config.frozen, *builders.model(config).frozen_paths())
        return builders.initial_variables(config, drawn=drawn, frozen=frozen)

    with pytest.raises(UserError, match="frozen"):
        families.recipe(config, make_mesh(), []).start(drawn)
    with pytest.raises(
        UserError,
        match=r"frozen.*random.*: backbone/conv1/kernel, .*layer1_0/conv2/kernel\. .*init='' .*frozen_random=true",
    ):
        start()
    model_file.save_model(tmp_path, config, drawn)
    file = tmp_path / model_file.MODEL_FILE
    config.init = f"{file}:^backbone/conv1"
    with pytest.raises(UserError, match=rf"frozen.*: backbone/layer1_0.*{file}"):
        start()
    config.init = f"{file}:^backbone/(conv1|bn1|layer1_)"
    start()
    config.init, config.model.backbone_options.frozen_until, config.frozen = "", None, ("aggregator/gem",)
    assert any(path.startswith("aggregator/gem") for path in flatten_dict(drawn["params"], sep="/"))
    start()
    config.frozen = ("aggregator/fc",)
    with pytest.raises(UserError, match=r"frozen.*aggregator/fc/kernel"):
        start()
    config.frozen_random = True
    start()
