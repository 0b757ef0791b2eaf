"""CCT and its pooling beside plain PyTorch: the same descriptors, and weights that go there and back unchanged."""

# ruff: noqa: E402

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_cct
import torch_models

from jaxvpr import weights
from jaxvpr.errors import UserError
from jaxvpr.models import join

pytestmark = pytest.mark.torch

SMALL = {"size": 64, "width": 24, "depth": 2, "heads": 3, "mlp_ratio": 2, "stem_width": 8}
SIZES = ((64, 64), (75, 130))


def images(height, width):
    """Fine and coarse noise: two images of the same statistics would look alike to a network of random weights."""
    pair = np.random.default_rng(height).integers(0, 256, (2, height, width, 3), np.uint8)
    pair[1] = pair[1, ::16, ::16].repeat(16, 0).repeat(16, 1)[:height, :width]
    return pair


def small_cct(**options):
    return torch_cct.CCT(64, 24, 2, 3, 2, 8, **options)


def make(aggregator, options=SMALL, backbone="cct14_224", **head):
    return join(
        backbone=backbone, aggregator=aggregator, backbone_options=options, aggregator_options=head, l2_after=False
    )


def template(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), images(64, 64))
    return jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype), shapes)


def arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def shapes_of(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def assert_same_descriptors(original, ours, variables, sizes=SIZES):
    # Optimising this program would take longer than running it.
    describe = jax.jit(ours.apply, compiler_options={"xla_backend_optimization_level": 0})
    for size in sizes:
        with torch.no_grad():
            expected = original(torch_models.normalised(images(*size))).numpy()
        np.testing.assert_allclose(describe(variables, images(*size)), expected, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 0.01


WRAPPED = {
    "deep_vg_cct": ("backbone", "aggregation"),
    "vg_transformers_cct": ("encoder", "aggregator"),
}
HEADS = {
    "seqpool": {},
    "cls": {},
    "gem": {},
    "netvlad": {"clusters": 4, "tokens": True},
}


@pytest.mark.parametrize(
    ("family", "aggregator"),
    [("deep_vg_cct", aggregator) for aggregator in HEADS] + [("vg_transformers_cct", "netvlad")],
)
def test_describes_as_the_original_and_goes_back_unchanged(family, aggregator, monkeypatch):
    """CCT-14's own width would be slow here, so the tensors that nothing uses get the small one's shape."""
    unused = tuple(
        (name, tuple(24 if n == 384 else n for n in shape)) for name, shape in weights.FAMILIES[family].unused
    )
    monkeypatch.setitem(weights.FAMILIES, family, weights.FAMILIES[family]._replace(unused=unused))
    original = torch_models.randomise(torch_cct.PlaceNet(small_cct(), aggregator, WRAPPED[family]), 1)
    ours = make(aggregator, **HEADS[aggregator])
    variables = weights.from_torch(family, arrays(original), template(ours))
    assert weights.guess_family(arrays(original), template(ours)) == family
    assert_same_descriptors(original, ours, variables, SIZES if aggregator in ("seqpool", "netvlad") else SIZES[1:])

    tensors = weights.to_torch(family, variables)
    again = torch_cct.PlaceNet(small_cct(), aggregator, WRAPPED[family])
    again.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}, strict=True)
    idle = set() if aggregator == "seqpool" else {name for name, _ in unused}
    assert len(idle) in (0, 2) and all(not tensors[name].any() for name in idle)
    for name, tensor in arrays(original).items():
        if name not in idle:
            np.testing.assert_array_equal(again.state_dict()[name].numpy().view(np.uint32), tensor.view(np.uint32))


def test_a_classifiers_file_fills_the_backbone_and_the_attention_pooling():
    original = torch_models.randomise(small_cct(classes=5), 2)
    ours = make("seqpool")
    assert weights.guess_family(arrays(original), template(ours)) == "cct"
    variables = weights.from_torch("cct", arrays(original), template(ours))
    assert_same_descriptors(torch_cct.PlaceNet(original, "seqpool"), ours, variables)
    back = weights.to_torch("cct", variables)
    assert set(arrays(original)) - set(back) == {"classifier.fc.weight", "classifier.fc.bias"}
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor.view(np.uint32), arrays(original)[name].view(np.uint32))

    other = make("netvlad", **HEADS["netvlad"])
    filled = weights.from_torch("cct", arrays(original), template(other))["params"]
    assert np.isnan(filled["aggregator"]["centroids"]).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(filled["backbone"]))


def test_a_cut_network_reads_a_deeper_file_and_is_the_original_with_fewer_blocks():
    original = torch_models.randomise(small_cct(), 3)
    ours = make("seqpool", {**SMALL, "cut": 1})
    variables = weights.from_torch("cct", arrays(original), template(ours))
    original.classifier.blocks = original.classifier.blocks[:1]
    assert_same_descriptors(torch_cct.PlaceNet(original, "seqpool"), ours, variables, SIZES[:1])
    tensors = arrays(original)
    del tensors["classifier.blocks.0.norm1.bias"]
    with pytest.raises(UserError, match=r"missing.*classifier\.blocks\.0\.norm1\.bias"):
        weights.from_torch("cct", tensors, template(ours))


@pytest.mark.parametrize("size", [224, 384])
def test_published_names_and_shapes(size):
    with torch.device("meta"):
        original = torch_cct.PlaceNet(torch_cct.CCT(size), "netvlad", clusters=64)
    expected = shapes_of(original.state_dict())
    assert expected["backbone.classifier.positional_emb"] == (1, (size // 16) ** 2, 384)
    for aggregator, options in (("netvlad", {"tokens": True}), ("seqpool", {})):
        ours = make(aggregator, {}, f"cct14_{size}", **options)
        image = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
        shapes = jax.eval_shape(ours.init, jax.random.key(0), image)
        empty = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
        head = {} if aggregator == "netvlad" else {"aggregation.centroids", "aggregation.conv.weight"}
        wanted = {name: shape for name, shape in expected.items() if name not in head}
        assert shapes_of(weights.to_torch("deep_vg_cct", empty)) == wanted


def test_positions_of_another_size_are_an_error_that_names_both_shapes():
    tensors = arrays(small_cct())
    with pytest.raises(UserError, match=r"classifier\.positional_emb.*\(1, 16, 24\).*\(1, 36, 24\)"):
        weights.from_torch("cct", tensors, template(make("seqpool", {**SMALL, "size": 96})))
