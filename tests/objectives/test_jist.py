"""JIST: images by cells and clips by triplets in one step; what a plan draws, and the losses beside torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.draws import Draw
from data_pipelines.partitions import cosplace_cells
from jaxvpr.errors import UserError
from jaxvpr.objectives.cells import cells_objective
from jaxvpr.objectives.jist import jist_objective
from jaxvpr.objectives.objective import Context, Plan
from jaxvpr.objectives.triplets import triplets_objective

STEPS, DIM = 2, 6
RNG = np.random.default_rng(0)


def embed(params, stats, aux, batch, key):
    return batch["image"], stats


def mined(index, rng, memory, embed):
    """Plans that remember how many there were."""
    seen = int(memory.get("seen", 0))
    return Plan({"source": Draw.of_steps(np.full((STEPS, 3, 4), seen))}), {"seen": np.array(seen + 1)}


def images(**options):
    """Two groups of classes of 10 m along a line."""
    east = np.repeat(np.arange(0, 200, 10.0), 3)
    cells = cosplace_cells(east, 0 * east, 0 * east, N=2, L=1, min_images=2)
    return cells_objective(cells, batch=8, steps=STEPS, **options)._replace(embed=embed)


def objective(weights=(2.0, 30.0), **options):
    clips = triplets_objective(mined, steps=STEPS, negatives=2).embedding_by(embed)
    return jist_objective(images(**options), clips, weights=weights, dim=DIM, turn=3)


def test_groups_take_turns_by_the_epoch_and_clips_are_mined_with_every_plan():
    joint, memory, plans = objective(head_steps=1), {}, []
    for index in range(7):
        plan, memory = joint.plan(index, np.random.default_rng(index), memory, None)
        plans.append(plan)
    assert [plan.slot for plan in plans] == [0, 0, 0, 1, 1, 1, 0]
    assert [plan.draws["clips"].rows[0, 0, 0] for plan in plans] == list(range(7))
    assert [plan.heads_only for plan in plans] == [1, 0, 0, 1, 0, 0, 0], "a new head has one start ahead of the model"
    assert not np.array_equal(plans[0].draws["images"].rows, plans[1].draws["images"].rows)
    rows, labels = plans[3].draws["images"].rows, plans[3].draws["images"].label
    assert {(row // 3) % 2 for row in rows.ravel()} == {1}, "images of the second group alone"
    np.testing.assert_array_equal(labels, rows // 6)


def outputs():
    z = {"images": RNG.normal(size=(8, DIM)), "clips": RNG.normal(size=(3, 4, DIM))}
    z = {name: (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32) for name, x in z.items()}
    batches = {
        "images": {"label": np.arange(8, dtype=np.int32), "mask": np.ones(8, bool)},
        "clips": {"label": np.zeros(3, np.int32), "mask": np.ones(3, bool)},
    }
    return z, batches


AT = Context(*[jnp.int32(0)] * 4, jax.random.key(0))


@pytest.mark.torch
def test_the_loss_and_its_gradients_are_those_of_torch():
    import torch

    joint, (z, batches) = objective(weights=(100.0, 10_000.0)), outputs()
    heads = joint.init(jax.random.key(1), 99)[0]["prototypes"][0]

    def ours(z, heads):
        value, _, said = joint.loss({"prototypes": heads}, {}, z, batches, AT)
        return value, said

    (value, said), found = jax.value_and_grad(ours, argnums=(0, 1), has_aux=True)(z, heads)
    tensors = {name: torch.tensor(x, requires_grad=True) for name, x in z.items()}
    weight = torch.tensor(np.asarray(heads[:10]), requires_grad=True)
    cosine = torch.nn.functional.cosine_similarity(tensors["images"][:, None], weight[None], dim=2)
    hit = torch.nn.functional.one_hot(torch.arange(8), 10)
    by_class = torch.nn.functional.cross_entropy(30 * (cosine - 0.4 * hit), torch.arange(8))
    margin = torch.nn.TripletMarginLoss(0.1, p=2, reduction="sum")
    elements = tensors["clips"]
    mined_loss = sum(margin(e[:1].expand(2, -1), e[1:2].expand(2, -1), e[2:]) for e in elements) / (3 * 2)
    wanted = 100 * by_class + 10_000 * mined_loss
    wanted.backward()
    assert float(said["images_loss"]) == pytest.approx(by_class.item(), rel=1e-5)
    assert float(said["clips_loss"]) == pytest.approx(mined_loss.item(), rel=1e-5)
    assert float(value) == pytest.approx(wanted.item(), rel=1e-5)
    for name, tensor in tensors.items():
        np.testing.assert_allclose(found[0][name], tensor.grad, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(found[1][:10], weight.grad, rtol=1e-4, atol=1e-2)
    assert heads.shape == (16, DIM), "as long as an image's descriptor, whatever a clip's is"


def test_a_masked_stream_leaves_the_other():
    joint, (z, batches) = objective(), outputs()
    heads = {"prototypes": joint.init(jax.random.key(1), DIM)[0]["prototypes"][0]}
    whole = joint.loss(heads, {}, z, batches, AT)[2]
    batches["clips"]["mask"][:] = False
    value, _, said = joint.loss(heads, {}, z, batches, AT)
    assert float(said["clips_loss"]) == 0 < float(whole["clips_loss"])
    assert float(value) == pytest.approx(2 * float(whole["images_loss"]))


@pytest.mark.parametrize("weights", [(1.0,), (100.0, 0.0), (-1.0, 1.0)])
def test_weights_that_make_no_sense(weights):
    with pytest.raises(UserError, match=r"objective\.weights.*two numbers above 0"):
        objective(weights=weights)
