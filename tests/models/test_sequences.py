"""Models of clips: heads in numbers worked out by hand, order, length, gradients in parts, programs, and errors."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from random_variables import random_variables

from data_pipelines.clips import Clips
from jaxvpr import builders
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError
from jaxvpr.fitting.clusters import sampler
from jaxvpr.models import join
from jaxvpr.models.costs import flops
from jaxvpr.models.sequences.ordered import Cat, CatFC, TemporalConv
from jaxvpr.models.sequences.pooling import Delta, Max, Mean, SeqGeM
from jaxvpr.runs import compressed
from jaxvpr.runs.model_file import load_model, save_model
from jaxvpr.training.grad_cache import cached_gradients, dealt
from jaxvpr.verbs.results import described_frames, searched_descriptors
from jaxvpr.weights import stablehlo

TINY = {"sizes": (1,), "widths": (6,), "cut": "layer1", "stem": "small"}
CLIPS = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 24, 3), np.uint8)
SHUFFLED = CLIPS[:, [1, 2, 0]]


def made(sequence, clips=CLIPS, aggregator="gem", options=None, **more):
    model = join(
        backbone="resnet18", backbone_options=TINY, aggregator=aggregator, sequence=sequence,
        sequence_options=options or {}, **more,
    )  # fmt: skip
    return model, random_variables(model, clips)


def described(model, variables, clips):
    return np.asarray(jax.jit(model.apply)(variables, clips))


def test_seqvlad_does_not_depend_on_the_order_of_frames_and_is_netvlad_for_one():
    model, variables = made("joint", aggregator="netvlad", aggregator_options={"clusters": 3})
    found = described(model, variables, CLIPS)
    np.testing.assert_allclose(described(model, variables, SHUFFLED), found, atol=1e-6)
    netvlad = model.clone(sequence=None)
    np.testing.assert_array_equal(described(model, variables, CLIPS[:, :1]), described(netvlad, variables, CLIPS[:, 0]))
    assert np.abs(described(model, variables, CLIPS[:, :2]) - found).max() > 1e-4


def test_concatenated_descriptors_depend_on_the_order_and_are_those_of_the_frames():
    model, variables = made("cat", options={"frames": 3}, l2_after=False)
    found = described(model, variables, CLIPS)
    of_images = described(model, variables, CLIPS[:, 1])
    assert found.shape == (2, 3 * of_images.shape[1])
    np.testing.assert_allclose(found.reshape(2, 3, -1)[:, 1], of_images, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(of_images, axis=1), 1, atol=1e-6)
    assert np.abs(described(model, variables, SHUFFLED) - found).max() > 1e-3


def test_images_are_described_as_before_a_head_came():
    image_model, variables = made("", CLIPS[:, 0])
    model, _ = made("mean")
    wanted = described(image_model, variables, CLIPS[:, 0])
    np.testing.assert_allclose(described(model, variables, CLIPS[:, 0]), wanted, atol=1e-6)
    np.testing.assert_allclose(described(model, variables, CLIPS[:, :1]), wanted, atol=1e-6)


def test_clusters_are_of_what_the_aggregator_sees_behind_a_non_local_block():
    model, variables = made("joint", non_local={"kind": "2d", "bottleneck": 2})
    seen = jax.jit(lambda variables, shown: model.apply(variables, shown, method="features").map)
    wanted = np.asarray(seen(variables, CLIPS[:, 0])).reshape(2, -1, 6)
    wanted = wanted / np.linalg.norm(wanted, axis=-1, keepdims=True)
    cells = jax.jit(sampler(model, wanted.shape[1]))(variables, CLIPS[:, 0]).reshape(wanted.shape)
    np.testing.assert_allclose(np.sort(cells, 1), np.sort(wanted, 1), atol=1e-6)


def test_a_model_of_images_refuses_clips_and_a_head_of_one_length_all_others():
    model, variables = made("", CLIPS[:, 0])
    with pytest.raises(ValueError, match=r"clip of 3 frames.*images.*model.sequence=joint"):
        model.apply(variables, CLIPS)
    model, variables = made("cat", options={"frames": 3})
    with pytest.raises(ValueError, match=r"clip of 2 frames.*Cat takes 3 .*sequence_options.frames"):
        model.apply(variables, CLIPS[:, :2])
    with pytest.raises(ValueError, match=r"regions.*images.*\(2, 3, 16, 24, 3\)"):
        model.apply(variables, CLIPS, method="regions")
    with pytest.raises(ValueError, match=r"no sequence 'seqvlad'.*'joint'"):
        join(backbone="resnet18", aggregator="gem", sequence="seqvlad")


def test_a_recipe_names_its_head_and_a_file_of_before_the_keys_is_read(tmp_path):
    of_images = load_config("configs/cosplace.py:tiny")
    config = load_config("configs/cosplace.py:tiny,model.sequence=cat,model.sequence_options.frames=4")
    size = builders.image_size(config)
    assert builders.blank(config).shape == (1, 4, *size, 3) and builders.blank(of_images).shape == (1, *size, 3)
    assert builders.descriptor_size(config) == 4 * builders.descriptor_size(of_images)
    with pytest.raises(UserError, match=r"config\.model: .*'cat' has no option \['dim'\]"):
        builders.model(load_config("configs/cosplace.py:tiny,model.sequence=cat,model.sequence_options.dim=4"))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), builders.shapes(of_images))
    with of_images.unlocked():
        for key in ("sequence", "sequence_options", "non_local"):
            del of_images.model[key]
    config, _ = load_model(save_model(tmp_path, of_images, variables))
    assert config.model.sequence == "" and config.model.non_local.to_dict() == {}


# One clip of three frames, whose descriptors are (1, 4), (2, -5) and (6, 1).
FRAMES = np.array([[[1, 4], [2, -5], [6, 1]]], np.float32)
BY_HAND = {
    "mean": (Mean(), {}, [3, 0]),
    "max": (Max(), {}, [6, 4]),
    "cat": (Cat(), {}, [1, 4, 2, -5, 6, 1]),
    # Of each the mean square, -5 as nothing: (1 + 4 + 36) / 3 and (16 + 0 + 1) / 3.
    "seqgem": (SeqGeM(), {"gem": {"p": [2.0]}}, [(41 / 3) ** 0.5, (17 / 3) ** 0.5]),
    # The last two less the first one, over one and a half.
    "delta": (Delta(), {}, [(2 + 6 - 1) / 1.5, (-5 + 1 - 4) / 1.5]),
    # What each frame adds: 1 x its first number, 10 x and 100 x; and 7.
    "fc": (CatFC(3, 1), {"fc": {"kernel": [[1], [0], [10], [0], [100], [0]], "bias": [7]}}, [1 + 20 + 600 + 7]),
    # Windows (1, 2) and (2, 6): 1 x the first and 10 x the second frame's first number, the mean of 21 and 62; and 7.
    "conv": (TemporalConv(2, 1), {"kernel": [[[1], [0]], [[10], [0]]], "bias": [7]}, [41.5 + 7]),
}


@pytest.mark.parametrize("head", BY_HAND)
def test_heads_by_hand(head):
    module, params, expected = BY_HAND[head]
    params = jax.tree.map(np.float32, params, is_leaf=lambda leaf: isinstance(leaf, list))
    np.testing.assert_allclose(module.apply({"params": params}, FRAMES)[0], expected, rtol=1e-5)


def test_a_linear_head_can_start_as_the_mean_and_a_short_clip_is_refused():
    head = CatFC(3, bias=False, mean_start=True)
    started = head.init(jax.random.key(0), FRAMES)
    np.testing.assert_allclose(head.apply(started, FRAMES)[0], [3, 0], atol=1e-6)
    with pytest.raises(ValueError, match=r"mean_start.* 2 numbers.*not 5"):
        CatFC(3, dim=5, mean_start=True).init(jax.random.key(0), FRAMES)
    with pytest.raises(ValueError, match=r"clip of 3 frames is shorter than .*width=4"):
        TemporalConv(4).init(jax.random.key(0), FRAMES)


SMALL = {"width": 8, "depth": 2, "heads": 2, "side": 2}


def test_a_timesformer_of_one_frame_without_its_temporal_path_is_its_vit():
    frame = np.random.default_rng(1).integers(0, 256, (2, 1, 32, 48, 3), np.uint8)
    names = ("vit_b16", "timesformer_b16")
    vit, clips = (join(backbone=name, aggregator="cls", backbone_options=SMALL) for name in names)
    variables = random_variables(clips, frame)
    params = variables["params"]["backbone"]
    params["time_embed"][:] = 0
    for block in ("blocks_0", "blocks_1"):
        for leaf in params[block]["temporal_fc"].values():
            leaf[:] = 0
    wanted = described(vit, variables, frame[:, 0])
    np.testing.assert_allclose(described(clips, variables, frame), wanted, atol=1e-6)
    np.testing.assert_allclose(described(clips, variables, frame[:, 0]), wanted, atol=1e-6)
    by_frame = join(backbone="timesformer_b16", aggregator="cls", backbone_options=SMALL, sequence="mean")
    with pytest.raises(ValueError, match=r"TimeSformer describes a clip as a whole.*'joint' or ''.*not Mean"):
        by_frame.init(jax.random.key(0), frame)


# Optimising these programs would take longer than running them.
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.long
def test_gradients_in_parts_and_with_recomputed_blocks_are_the_gradients():
    """Four clips at once, or two at a time with every block computed again: of a loss that compares all of them."""
    clips = np.random.default_rng(1).integers(0, 256, (4, 2, 32, 32, 3), np.uint8)
    options = {**SMALL, "drop_path": 0.0}

    def network(remat):
        return join(
            backbone="timesformer_b16", backbone_options={**options, "remat": remat}, aggregator="netvlad",
            aggregator_options={"clusters": 2}, non_local={"kind": "3d"},
        )  # fmt: skip

    variables = random_variables(network(False), clips)["params"]

    def loss(_, found):
        return jnp.sum(jnp.exp(found @ found.T)), ()

    def described(model, params, shown):
        return model.apply({"params": params}, shown, train=True)

    wanted = quick(jax.grad(lambda params: loss((), described(network(False), params, clips))[0]))(variables)
    embed = partial(described, network(True))
    (found, _), _ = quick(lambda params: cached_gradients(embed, loss, params, (), dealt(clips, 2)))(variables)
    length = optax.tree.norm(wanted)
    assert length > 1e-3
    assert optax.tree.norm(jax.tree.map(jnp.subtract, found, wanted)) < 1e-5 * length


@pytest.mark.long
def test_a_program_of_clips_describes_as_the_model():
    model, variables = made("joint", aggregator="netvlad", aggregator_options={"clusters": 3})
    program = stablehlo.program(model.apply, variables, 3, 16, 24)
    found = jax.export.deserialize(bytearray(program)).call(CLIPS)
    np.testing.assert_allclose(found, described(model, variables, CLIPS), atol=1e-6)
    assert stablehlo.parity(program, model.apply, variables, 3, 16, 24)["batch of 3"]["largest difference"] < 1e-6


def test_a_program_has_the_frames_of_the_recipes_clips():
    clips = "train_data.clips.length=3,test_data={}"
    assert builders.clip_length(load_config(f"configs/cosplace.py:tiny,model.sequence=joint,{clips}")) == 3
    assert builders.clip_length(load_config("configs/zoo.py:jist-resnet18-512")) == 5
    fixed = "model.sequence=cat,model.sequence_options.frames=4"
    assert builders.clip_length(load_config(f"configs/cosplace.py:tiny,{fixed}")) == 4
    assert builders.clip_length(load_config(f"configs/cosplace.py:tiny,{clips}")) == 0, "a model of images"


def test_a_pca_stands_behind_what_describes_clips():
    tiny = "configs/cosplace.py:tiny,pca.dim=4,train_data.clips.length=3,model.sequence="
    images = range(12)
    clips = Clips(None, np.zeros((12, 3), int), np.zeros(12, int))
    assert compressed.check(load_config(f"{tiny}joint"), clips) == 32
    assert compressed.check(load_config(f"{tiny}mean"), clips) == 32
    cat = load_config(f"{tiny}cat")
    assert compressed.check(cat, clips) == 96
    made = compressed.with_pca(cat)
    assert builders.shapes(made)["params"]["sequence"]["fc"]["kernel"].shape == (96, 4)
    assert builders.clip_length(made) == 3 and builders.descriptor_size(made) == 4
    with pytest.raises(UserError, match=r"pca.dim=4.*model.sequence='cat' is fitted on clips.*train_data.clips.length"):
        compressed.check(cat, images)


def test_what_describing_a_clip_costs_is_told_of_clips():
    model, _ = made("joint", aggregator="netvlad", aggregator_options={"clusters": 3})
    assert flops(model, 16, 24, 3) == pytest.approx(3 * flops(model, 16, 24), rel=0.01)
    clips, images = (SimpleNamespace(database_clips=found) for found in (SimpleNamespace(length=3), None))
    tiny = "configs/cosplace.py:tiny"
    of_clips = load_config(f"{tiny},model.sequence=joint")
    assert described_frames(of_clips, clips) == 3 and described_frames(of_clips, images) == 0
    by_frame = load_config(f"{tiny},model.sequence=joint,eval.sequence.score=average")
    assert described_frames(by_frame, clips) == described_frames(load_config(tiny), clips) == 0


def test_a_database_holds_what_its_search_compares():
    clips = Clips(None, np.array([[0, 1, 2], [1, 2, 3]]), np.array([1, 2]))
    of_clips, of_images = (
        SimpleNamespace(database_clips=clips, database=clips),
        SimpleNamespace(database_clips=None, database=[1]),
    )
    for score, held in {"": 2, "average": 4, "seqslam": 4, "two_stage": 6}.items():
        config = load_config(f"configs/cosplace.py:tiny,model.sequence=mean,eval.sequence.score={score}")
        assert searched_descriptors(config, of_clips) == held
        assert searched_descriptors(config, of_images) == 1
