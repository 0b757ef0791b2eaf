"""Checkpoints as trainers save them: with all that lies beside the weights, and under the names that wrappers leave."""

# ruff: noqa: E402

import argparse
import datetime
import enum
import functools
import pathlib
import random
from collections import Counter, OrderedDict, defaultdict, deque

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_heads as originals
from test_parity_heads import BOQ, DINO, RESNET, SALAD, arrays, boq, dino, images, make, resnet, variables_of
from torch_models import GeM, L2Norm, normalised, randomise

from jaxvpr import weights
from jaxvpr.errors import UserError
from jaxvpr.weights import read

pytestmark = pytest.mark.torch


class Settings(dict):
    """A user's own dict, as Lightning's AttributeDict is."""


class Colour(enum.Enum):
    RED = 1


def beside(model):
    """What trainers keep beside the weights."""
    optimiser = torch.optim.AdamW(model.parameters())
    schedules = [
        torch.optim.lr_scheduler.MultiStepLR(optimiser, [10, 20, 20]),
        torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=9),
    ]
    own = Settings(lr=1e-4)
    own.model_state_dict = {"w": torch.zeros(3)}
    return {
        "optimizer_states": [optimiser.state_dict()],
        "lr_schedulers": [schedule.state_dict() for schedule in schedules],
        "hyper_parameters": own,
        "args": argparse.Namespace(device=torch.device("cpu"), dtype=torch.float32, root=pathlib.Path("a"), own=own),
        "counts": [Counter("aab"), defaultdict(list, {"a": [1]}), deque([1, 2]), {1, 2}, frozenset("ab"), Colour.RED],
        "saved": datetime.datetime(2026, 11, 27, tzinfo=datetime.UTC),
        "best": [np.float64(67.5), np.arange(3), np.random.default_rng(0), np.dtype("f4"), 1 + 2j, 10**30, range(3)],
        "rng": [torch.get_rng_state(), random.getstate(), np.random.get_state()],
        "call": functools.partial(print, "never"),
        (1, ("nested", 2)): slice(3),
        "sparse": torch.eye(3).to_sparse(),
        "module_of_theirs": torch.nn.Linear(2, 2),
    }


@pytest.mark.parametrize("old", [False, True], ids=["zip", "of before PyTorch 1.6"])
def test_a_file_is_read_whatever_lies_beside_its_weights(tmp_path, old):
    model = randomise(originals.Method(originals.sequential_model(resnet(), 2), originals.ConvAP(12, 6, 2, 3)), 3)
    content = {"epoch": 3, **beside(model), "state_dict": model.state_dict(), "callbacks": beside(model)}
    torch.save(content, tmp_path / "RUN.CKPT", _use_new_zipfile_serialization=not old)
    back = read(tmp_path / "RUN.CKPT")
    assert list(back) == list(model.state_dict())
    for name, tensor in arrays(model).items():
        assert back[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


def test_tensors_that_carry_attributes_are_read(tmp_path):
    parameter, plain = torch.nn.Parameter(torch.randn(3)), torch.randn(2, 2).T
    parameter.decayed, plain.source = False, "ours"
    torch.save(OrderedDict(a=parameter, b=plain, c=plain.numpy()), tmp_path / "w.pth")
    back = read(tmp_path / "w.pth")
    for name, tensor in {"a": parameter.detach(), "b": plain, "c": plain}.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"model": 1, "net": 2}, 1),
        ({"model": 1, "model_state_dict": 2}, 2),
        ({"model_ema": 1, "model": 2}, 2),
        ({"student": 1, "teacher": 2}, 2),
        ({"ema": {"state_dict": 1}, "epoch": 3}, 1),
        ({"model": {"model": {"state_dict": 1}}, "ema": 2}, 1),
        ({"model": {"name": "resnet"}, "network": 1}, 1),
    ],
    ids=str,
)
def test_of_several_state_dicts_the_first_in_the_order_counts(tmp_path, content, found):
    def filled(value):
        if isinstance(value, int):
            return {"w": torch.full((2,), float(value))}
        return {key: filled(inner) for key, inner in value.items()} if isinstance(value, dict) else value

    torch.save(filled(content), tmp_path / "w.pth")
    np.testing.assert_equal(read(tmp_path / "w.pth"), {"w": np.full(2, found, np.float32)})


class Layered(torch.nn.Module):
    """A ResNet as OpenVPRLab has it: its stem and stages in two lists, the first frozen."""

    def __init__(self, net, stages, frozen):
        super().__init__()
        layers = [torch.nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)]
        layers += [getattr(net, f"layer{stage + 1}") for stage in range(stages)]
        self.frozen_layers = torch.nn.Sequential(*layers[:frozen])
        self.unfrozen_layers = torch.nn.Sequential(*layers[frozen:])

    def forward(self, images):
        return self.unfrozen_layers(self.frozen_layers(images))


class GeMHead(GeM):
    def forward(self, features):
        return torch.nn.functional.normalize(super().forward(features[0]).flatten(1))


class CosPlaceHead(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gem, self.fc = GeM(), torch.nn.Linear(12, 7)

    def forward(self, features):
        pooled = self.gem(L2Norm()(features[0])).flatten(1)
        return torch.nn.functional.normalize(self.fc(pooled))


OPENVPRLAB = {
    "boq, as it trains": (lambda: boq(Layered(resnet(), 2, 2), 12), "frozen2", ("resnet18", RESNET, "boq", BOQ), 40),
    "gem, all trained": (
        lambda: originals.Method(Layered(resnet(), 2, 0), GeMHead()), "frozen0", ("resnet18", RESNET, "gem", {}), 40,
    ),
    "cosplace, all frozen": (
        lambda: originals.Method(Layered(resnet(), 2, 3), CosPlaceHead()),
        "frozen3",
        ("resnet18", RESNET, "cosplace", {"dim": 7}),
        40,
    ),
    "salad on DINOv2, whose last norm it leaves out": (
        lambda: originals.Method(originals.Inside("dino", dino(), norm=False), originals.SALAD(32, 5, 6, 7, 9)),
        "dinov2",
        ("dinov2_vitb14", {**DINO, "norm": False}, "salad", SALAD),
        56,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OPENVPRLAB)
def test_openvprlab_describes_as_it_does_there(tmp_path, case):
    fresh, family, parts, side = OPENVPRLAB[case]
    original, ours = randomise(fresh(), 1), make(*parts)
    torch.save({**beside(original), "state_dict": original.state_dict()}, tmp_path / "run.ckpt")
    template = variables_of(ours, (side, side))
    assert weights.guess_family(arrays(original), template) == f"openvprlab_{family}"
    variables = weights.init_from(template, tmp_path / "run.ckpt")
    with torch.no_grad():
        expected = original(normalised(images(side, side))).numpy()
    describe = jax.jit(ours.apply, compiler_options={"xla_backend_optimization_level": 0})
    np.testing.assert_allclose(describe(variables, images(side, side)), expected, atol=1e-5)

    tensors = weights.to_torch(f"openvprlab_{family}", variables)
    fresh().load_state_dict({name: torch.from_numpy(np.array(t)) for name, t in tensors.items()}, strict=True)


def inside(name, model):
    holder = torch.nn.Module()
    holder.add_module(name, model)
    return holder


def compiled_inside(model):
    model.backbone = compiled(model.backbone)
    return model


compiled = functools.partial(torch.compile, backend="eager")  # the others import what warns
WRAPPED = {
    "DataParallel": torch.nn.DataParallel,
    "torch.compile": compiled,
    "both": lambda model: compiled(torch.nn.DataParallel(model)),
    "a compiled backbone": compiled_inside,
    "an average": torch.optim.swa_utils.AveragedModel,
    "an attribute": functools.partial(inside, "model"),
    "an attribute of any name": functools.partial(inside, "vpr_net"),
    "wrapped attributes": lambda model: compiled(inside("net", inside("model", torch.nn.DataParallel(model)))),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrapped_models_are_read_under_their_own_names(tmp_path, case):
    def fresh():
        return originals.Method(originals.torchvision_model(resnet(), 2), originals.ConvAP(12, 6, 2, 3))

    ours = make("resnet18", RESNET, "convap", {"dim": 6, "columns": 3})
    original, template = randomise(fresh(), 1), variables_of(ours, (32, 32))
    expected = weights.from_torch("convap", arrays(original), template)
    named = WRAPPED[case](original).state_dict()
    assert set(named) != set(fresh().state_dict())
    torch.save(named, tmp_path / "w.pth")
    jax.tree.map(np.testing.assert_array_equal, weights.init_from(template, tmp_path / "w.pth"), expected)
    torch.save({**named, "other.weight": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth does not fit.*\n  as convap: left over in the file: other\.weight\n"):
        weights.init_from(template, tmp_path / "w.pth")
