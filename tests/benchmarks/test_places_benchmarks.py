"""The benchmarks of training on places, run in this process: both sides learn the same, and what they print."""

import json
import sys
from functools import partial

import jax
import numpy as np
import pytest

from benchmarks import grad_cache, jax_side, places_step, side_by_side

TINY = grad_cache.Case("configs/salad.py:city", {"model.backbone_options.width": 24, "model.backbone_options.depth": 1})


@pytest.fixture(autouse=True)
def as_run_alone(monkeypatch):
    """One device, for which less is compiled, and mixed types: Adam's count of steps is an integer in optax."""
    monkeypatch.setattr(jax_side, "make_mesh", partial(jax_side.make_mesh, devices=jax.devices()[:1]))
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.torch
@pytest.mark.parametrize("name", ["tiny mixvpr", "tiny salad"])
def test_both_sides_lose_the_same(monkeypatch, name):
    def here(module, *arguments):
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        assert (module, given["--case"]) == ("benchmarks.places_step", name)
        case, repeats = places_step.CASES[name], given["--repeats"]
        return places_step.side(given["--side"], case, given["--dtype"], given["--tensors"], repeats)

    monkeypatch.setattr(side_by_side, "in_own_process", here)
    found = places_step.measure(name, "float32", 1, 1)
    assert found["agree"], found
    assert found["relative_difference"]["first step"] < 1e-4
    sides = set(places_step.SIDES) - ({places_step.CACHED} if name == "tiny salad" else set())
    assert set(found["losses"]) == set(found["images_per_second"]) == sides
    assert all(len(losses) == 4 and losses[0] > losses[-1] for losses in found["losses"].values())
    assert (found["places"], found["batch"]) == (4, 16)
    assert found["ratio_to_pytorch"]["pytorch"] == 1 and min(found["trained_parameters"].values()) > 1000


def test_sides_that_lose_otherwise_do_not_agree():
    def reports(losses, trained=5):
        return {
            "jaxvpr": {"losses": losses, "trained": trained},
            "pytorch": {"losses": [2.0, 1.0, 0.0], "trained": 5},
        }

    assert places_step.agreement(reports([2.001, 1.5, 0.015]), 1e-3)["agree"]
    assert not places_step.agreement(reports([2.003, 1.0, 0.0]), 1e-3)["agree"]
    assert not places_step.agreement(reports([2.0, 1.0, 0.03]), 1e-3)["agree"]
    assert not places_step.agreement(reports([2.0, 1.0, 0.0], trained=4), 1e-3)["agree"]


@pytest.mark.torch
def test_the_peers_loss_is_that_of_the_paper():
    """Rows 0 and 1 are one place, row 2 another; only row 1 has a negative as similar as its positive, at 0.8."""
    import torch

    from benchmarks import torch_places

    rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.28, 0.96]])
    found = torch_places.multi_similarity(rows, torch.tensor([0, 0, 1])).item()
    assert found == pytest.approx((np.log1p(np.exp(-0.8)) + np.log1p(np.exp(50 * 0.8)) / 50) / 3, rel=1e-5)


@pytest.mark.torch
def test_the_peers_loss_is_the_librarys():
    """Behind a normalisation, as descriptors are: the library normalises once more, which changes nothing but there."""
    pytest.importorskip("pytorch_metric_learning")
    import torch

    from benchmarks import torch_places

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8, 1, 32)) + rng.normal(size=(8, 4, 32))
    start = torch.tensor(rows.reshape(32, 32), dtype=torch.float32, requires_grad=True)
    which, library = torch_places.loss()
    assert which == "pytorch-metric-learning"
    found = []
    for loss in (library, torch_places.multi_similarity):
        value = loss(torch.nn.functional.normalize(start), torch.arange(8).repeat_interleave(4))
        found.append((value.item(), *torch.autograd.grad(value, start)))
    assert found[0][0] > 0.1 and found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-6)


@pytest.mark.long
def test_grad_cache_says_what_both_ways_need(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(grad_cache, "CASES", {"tiny": TINY})

    def program(*arguments):
        monkeypatch.setattr(sys, "argv", ["grad_cache", *map(str, arguments)])
        grad_cache.main()
        return json.loads(capsys.readouterr().out)

    monkeypatch.setattr(side_by_side, "in_own_process", lambda module, *arguments: program(*arguments))
    shared = (
        "--batches",
        64,
        "--micro",
        16,
        64,
        "--repeats",
        1,
        "--rounds",
        1,
        "--timed-batch",
        16,
        "--out",
        tmp_path / "grad_cache.json",
    )
    found = program("--cases", "tiny", "--timed", "tiny", *shared)["results"]
    plain, cached = found["memory"]["tiny"]
    assert (plain["micro_batch"], plain["grad_cache"], plain["temp_to_plain"]) == (64, 1, 1)
    assert (cached["micro_batch"], cached["grad_cache"]) == (16, 4)
    assert 0 < cached["temp_mib"] < 0.7 * plain["temp_mib"] and cached["temp_to_plain"] < 0.7
    assert cached["argument_mib"] == pytest.approx(plain["argument_mib"], abs=0.2)
    [rates] = found["rates"]
    assert rates["batch"] == 16 and rates["ratio_to_plain"] == {"plain": 1}  # a batch of 16 has no smaller parts


def test_parts_are_those_that_divide_the_batch():
    assert grad_cache.ways(64, [16, 64]) == [1, 4]
    assert grad_cache.ways(256, [16, 64, 100]) == [1, 16, 4]
