"""Names are matched strictly on both sides, and round trips change no bit."""

import re

import jax
import numpy as np
import pytest

from jaxvpr import weights
from jaxvpr.errors import UserError
from jaxvpr.models import join

OPTIONS = {"sizes": (1, 2, 1), "widths": (8, 16, 24), "cut": "layer3"}


def make(backbone="resnet18", aggregator="cosplace", seed=0, backbone_options=OPTIONS, **options):
    """Random variables of a small model."""
    if backbone == "squeezenet":
        backbone_options = {}
    model = join(
        backbone=backbone, aggregator=aggregator, backbone_options=backbone_options, aggregator_options=options
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.uint8))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)


def assert_same_bits(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x.view(np.uint32), y.view(np.uint32)), a, b)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("family", ["cosplace", "jaxvpr"])
def test_round_trip_is_bitwise(backbone, family):
    variables = make(backbone, dim=12)
    tensors = weights.to_torch(family, variables)
    assert_same_bits(weights.from_torch(family, tensors, make(backbone, seed=1, dim=12)), variables)


def test_backbone_families_round_trip_and_leave_the_aggregator():
    for family, backbone in (("torchvision_resnet", "resnet18"), ("torchvision_squeezenet", "squeezenet")):
        variables, other = make(backbone, "gem"), make(backbone, "gem", seed=1)
        back = weights.from_torch(family, weights.to_torch(family, variables), other)
        assert_same_bits(back["params"]["backbone"], variables["params"]["backbone"])
        assert_same_bits(back["params"]["aggregator"], other["params"]["aggregator"])


def test_names_and_axes_of_cosplace():
    variables = make(dim=12)
    tensors = weights.to_torch("cosplace", variables)
    ours = variables["params"]
    np.testing.assert_array_equal(
        tensors["backbone.0.weight"], ours["backbone"]["conv1"]["kernel"].transpose(3, 2, 0, 1)
    )
    np.testing.assert_array_equal(tensors["aggregation.3.weight"], ours["aggregator"]["fc"]["kernel"].T)
    mean = variables["batch_stats"]["backbone"]["layer2_0"]["downsample_1"]["mean"]
    np.testing.assert_array_equal(tensors["backbone.5.0.downsample.1.running_mean"], mean)
    assert tensors["backbone.5.1.bn2.num_batches_tracked"].dtype == np.int64
    assert {"backbone.1.bias", "backbone.6.0.conv2.weight", "aggregation.1.p", "aggregation.3.bias"} <= set(tensors)


def test_errors_list_both_sides_and_shapes():
    variables = make(dim=12)
    tensors = weights.to_torch("cosplace", variables)
    del tensors["backbone.1.weight"]
    tensors["surprise"] = np.zeros(3)
    tensors["aggregation.3.weight"] = np.zeros((99, 24), np.float32)
    with pytest.raises(UserError) as error:
        weights.from_torch("cosplace", tensors, variables)
    text = str(error.value)
    assert re.search(r"missing.*backbone\.1\.weight", text)
    assert re.search("left over.*surprise", text)
    assert re.search(r"aggregation\.3\.weight.*\(99, 24\).*aggregator/fc/kernel.*\(24, 12\)", text)


def test_a_parameter_without_a_name_there_is_an_error_both_ways():
    variables = make(dim=12, fc_norm=True)
    with pytest.raises(UserError, match=r"cosplace.*no name.*aggregator/norm"):
        weights.to_torch("cosplace", variables)
    with pytest.raises(UserError, match=r"without a name.*aggregator/norm"):
        weights.from_torch("cosplace", weights.to_torch("cosplace", make(dim=12)), variables)
    with pytest.raises(UserError, match=r"family.*'resnet'.*cosplace"):
        weights.to_torch("resnet", variables)


def test_later_stages_may_be_left_over_but_not_parts_of_a_stage_in_use():
    deep = {**OPTIONS, "sizes": (1, 2, 1, 1), "widths": (8, 16, 24, 32), "cut": "layer4"}
    tensors = weights.to_torch("torchvision_resnet", make(backbone_options=deep))
    tensors["fc.weight"], tensors["fc.bias"] = np.zeros((5, 32)), np.zeros(5)
    variables = make(seed=1)
    weights.from_torch("torchvision_resnet", tensors, variables)
    tensors["layer2.2.conv1.weight"] = np.zeros((16, 16, 3, 3), np.float32)
    with pytest.raises(UserError, match=r"left over.*layer2\.2\.conv1\.weight"):
        weights.from_torch("torchvision_resnet", tensors, variables)


@pytest.mark.parametrize("family", ["cosplace", "jaxvpr", "torchvision_resnet"])
def test_init_from_guesses_the_family(family, tmp_path):
    variables, other = make(dim=12), make(dim=12, seed=1)
    path = tmp_path / "w.safetensors"
    weights.write(path, weights.to_torch(family, variables))
    got = weights.init_from(other, path)
    assert_same_bits(got["params"]["backbone"], variables["params"]["backbone"])
    assert_same_bits(got["batch_stats"], variables["batch_stats"])
    head = other if family == "torchvision_resnet" else variables
    assert_same_bits(got["params"]["aggregator"], head["params"]["aggregator"])


def test_init_from_a_pattern_replaces_only_that(tmp_path):
    path = tmp_path / "w.safetensors"
    weights.write(path, weights.to_torch("cosplace", make(dim=12)))
    other = make(dim=30, fc_norm=True, seed=1)
    with pytest.raises(UserError, match=r"cosplace.*shapes"):
        weights.init_from(other, path)
    got = weights.init_from(other, path, "^backbone/(conv1|bn1)")
    source = make(dim=12)
    assert_same_bits(got["params"]["backbone"]["conv1"], source["params"]["backbone"]["conv1"])
    assert_same_bits(got["batch_stats"]["backbone"]["bn1"], source["batch_stats"]["backbone"]["bn1"])
    assert_same_bits(got["params"]["backbone"]["layer1_0"], other["params"]["backbone"]["layer1_0"])
    assert_same_bits(got["params"]["aggregator"], other["params"]["aggregator"])
    with pytest.raises(UserError, match=r"matches.*nowhere"):
        weights.init_from(other, path, "nowhere")


@pytest.mark.parametrize(
    ("family", "missing"),
    [("cosplace", "aggregation.1.p"), ("torchvision_resnet", "bn1.weight"), ("jaxvpr", "aggregator.fc.kernel")],
)
def test_init_from_says_of_the_expected_family_first_what_is_missing(family, missing, tmp_path):
    path = tmp_path / "w.safetensors"
    weights.write(path, {"encoder.0.weight": np.zeros((3, 3), np.float32)})
    with pytest.raises(UserError) as error:
        weights.init_from(make(dim=12), path, expected=family)
    said, line, *others = str(error.value).splitlines()
    assert str(path) in said and family in line
    assert missing in line and re.search(r"left over.*encoder\.0\.weight", line)
    assert not others, "nothing fits at all: others would be noise"


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e300])
def test_init_from_names_the_file_and_the_parameter_that_is_not_finite(number, tmp_path):
    path = tmp_path / "w.safetensors"
    tensors = {name: tensor.astype(np.float64) for name, tensor in weights.to_torch("cosplace", make(dim=12)).items()}
    tensors["backbone.5.1.bn2.running_var"][3] = tensors["backbone.5.1.bn2.running_var"][4] = number
    weights.write(path, tensors)
    with pytest.raises(UserError) as error:
        weights.init_from(make(dim=12), path)
    named = "backbone.5.1.bn2.running_var (backbone/layer2_1/bn2/var here)"
    assert f"{path}: {named}: 2 of its 16 numbers are NaN or infinite" in str(error.value)
    got = weights.init_from(make(dim=12), path, "^backbone/conv1")
    assert np.isfinite(got["params"]["backbone"]["conv1"]["kernel"]).all(), "what is not read is not looked at"
