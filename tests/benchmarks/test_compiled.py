"""Compiled steps: what is read from a program's text, and what the devices of three recipes send to one another."""

from collections import defaultdict

import jax
import numpy as np
import pytest

from benchmarks import compiled, hlo
from data_pipelines.partitions import cosplace_cells
from jaxvpr.builders import model

PROGRAM = """HloModule jit_step, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body.1 (state: (s32[], f32[3,4])) -> (s32[], f32[3,4]) {
  %inner = f32[3,4]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %out = (s32[], f32[3,4]{1,0}) tuple(%next, %inner)
}

%condition.1 (state: (s32[], f32[3,4])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%wrapped_reduce_scatter (p: f32[16]) -> f32[2] {
  ROOT %share = f32[2]{0} reduce-scatter(%p), replica_groups={}, dimensions={0}, to_apply=%add
}

%all-reduce-scatter.2 (input: bf16[30]) -> bf16[8] {
  %whole = bf16[32]{0:T(256)} all-reduce(%pad), replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %mine = bf16[8]{0} dynamic-slice(%whole, %at), dynamic_slice_sizes={8}
}

ENTRY %main (p: f32[3,4]) -> f32[] {
  %both = (f32[10]{0}, /*index=1*/u8[6]{0:T(8,128)(4,1)}) all-reduce(%a, %b), replica_groups={}, to_apply=%add
  %gather = (f32[5,2]{1,0:T(8,128)}, f32[40,2]{1,0:T(8,128)}) all-gather-start(%c), replica_groups=mesh['x'=8] {'x'}
  %gathered = f32[40,2]{1,0} all-gather-done(%gather)
  %halves = pred[6]{0} all-gather(%d), replica_groups=mesh['x'=4,'y'=2] {'y'}, dimensions={0}
  %parts = pred[6]{0} all-gather(%d), replica_groups=mesh['x'=4,'y'=2] {'x':(1)2, 'y'}, dimensions={0}
  %shift = (s32[7]{0}, s32[7]{0}, u32[]{:S(2)}) collective-permute-start(%e), source_target_pairs={{0,1},{1,2}}
  %looped = (s32[], f32[3,4]) while(%t), condition=%condition.1, body=%body.1, \
backend_config={"known_trip_count":{"n":"5"}}
  %scattered = ((f32[16]), f32[2], u32[]) async-start(%f), calls=%wrapped_reduce_scatter
  %kept = bf16[8]{0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.2
  %stack = f32[8,16,4]{2,1,0} copy(%h)
  ROOT %tuple = (f32[8,16,4]{2,1,0}, u32[]) copy-start(%stack)
}
"""


def test_collectives_are_read_in_all_their_forms():
    one = hlo.Collective
    assert hlo.collectives(PROGRAM, 8) == [
        one("all-reduce", 3 * 4 * 4, 4, 5),
        one("reduce-scatter", 16 * 4, 8, 1),
        one("reduce-scatter", 32 * 2, 4, 1),
        one("all-reduce", 10 * 4 + 6, 8, 1),
        one("all-gather", 40 * 2 * 4, 8, 1),
        one("all-gather", 6, 2, 1),
        one("all-gather", 6, 4, 1),
        one("collective-permute", 7 * 4, 8, 1),
    ]


def test_what_a_device_sends_is_that_of_a_ring():
    """Of 8 devices each sends 7 of 8 parts to gather or to scatter, and twice that to sum."""
    sent = {kind: hlo.Collective(kind, 80, 8, 2).sent for kind in hlo.KINDS[:5]}
    assert sent == {
        "all-reduce": 280, "all-gather": 140, "reduce-scatter": 140, "all-to-all": 140, "collective-permute": 160,
    }  # fmt: skip
    mib = 2**20
    found = [hlo.Collective("all-reduce", mib, 2, 3), hlo.Collective("all-reduce", 4 * mib, 1, 1)]
    assert hlo.summary(found) == {"all-reduce": {"count": 4, "mib": 7.0, "sent_mib": 3.0}}


def test_a_loop_of_unknown_length_is_refused_where_it_sends():
    unknown = PROGRAM.replace("known_trip_count", "something_else")
    with pytest.raises(ValueError, match="loop of unknown length: %looped"):
        hlo.collectives(unknown, 8)
    assert len(hlo.collectives(unknown.replace("%inner = f32[3,4]{1,0} all-reduce", "%inner = f32[3,4] add"), 8)) == 7


def test_instructions_are_found_by_their_kind():
    assert list(hlo.shapes(PROGRAM, ["copy", "copy-start"])) == [
        ("copy", "f32[8,16,4]"),
        ("copy-start", "f32[8,16,4]"),
    ]


@pytest.mark.parametrize("classes", [6, 7, 40])
def test_every_group_of_the_stand_in_has_the_classes_asked_for(classes):
    keys = compiled.recipe_of("configs/cosplace.py:sf_xl").objective.partition
    places = compiled._cells(keys, classes)
    options = {key: keys[key] for key in ("M", "alpha", "N", "L", "groups", "min_images")}
    cells = cosplace_cells(places.east, places.north, places.heading, names=places.path, **options)
    assert len(cells) == 8 and set(cells.counts) == {-(-classes // 6) * 6}  # of 12 sectors every other is a group's


def test_the_devices_of_a_tiny_step_send_the_sum_of_all_gradients(tiny_config):
    """Of all parameters and of a group's prototypes; of each channel of a batch normalisation two sums forward and one
    backward, which its own parameters do not need; and a few numbers."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.objective.partition.min_images = 1
    with jax.numpy_dtype_promotion("standard"):
        made = compiled.step(config.lock(), jax.devices()[:2], classes=30)
        variables = jax.eval_shape(model(config).init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.uint8))
    count = {part: sum(leaf.size for leaf in jax.tree.leaves(tree)) for part, tree in variables.items()}
    found = hlo.collectives(made.text, 2)
    assert {one.kind for one in found} == {"all-reduce"} and {one.group for one in found} == {2}
    gradients = 4 * (count["params"] + 32 * 32)  # 30 classes are 32 prototypes of 32 numbers
    channels = count["batch_stats"] // 2
    assert 0 < sum(one.size for one in found) - gradients - 4 * 3 * channels < 64
    state = 3 * (count["params"] + 2 * 32 * 32)  # with both moments of Adam, and of the heads those of both groups
    assert 0 < made.memory["argument"] - 4 * state - 4 * count["batch_stats"] - 8 // 2 * 32 * 32 * 3 < 128


@pytest.fixture
def sent(monkeypatch):
    """What the devices of a compiled step send: sent(recipe, devices, classes) -> ({kind: bytes of each}, program).

    Compiled quickly, whatever the other tests do: the collectives are the same.
    """
    slow = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)

    def of(recipe, devices, classes=4000):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            made = compiled.step(compiled.recipe_of(recipe), jax.devices()[:devices], classes)
        kinds = defaultdict(list)
        for one in hlo.collectives(made.text, devices):
            assert one.times == 1
            kinds[one.kind].append(one.size)
        return kinds, made.text

    yield of
    jax.config.update("jax_disable_most_optimizations", slow)


@pytest.mark.long
@pytest.mark.parametrize("devices", [2, 8])
def test_cosplace_sums_its_gradients_and_the_statistics_of_its_batch(sent, devices):
    """ResNet-50 on SF-XL: 96.3 MiB whatever the batch. 49 of the 80 sums are small: statistics, on the way forward."""
    kinds, text = sent("configs/cosplace.py:sf_xl,model.backbone=resnet50,batch=32", devices)
    assert set(kinds) == {"all-reduce"} and len(kinds["all-reduce"]) == 80
    assert sum(kinds["all-reduce"]) == 100_955_669  # 96.3 MiB
    copies = [shape for _, shape in hlo.shapes(text, ["copy"]) if shape == "f32[8,4008,512]"]
    assert copies, "XLA no longer copies the idle groups on a CPU: say so where docs/scaling.md says it does"


@pytest.mark.long
@pytest.mark.parametrize("devices", [2, 8])
def test_salad_gathers_its_descriptors_beside_the_sum_of_its_gradients(sent, devices):
    """3 gathers (descriptors, labels, masks) and 4 sums, one of them the gradient by all descriptors: linear in the
    images of the global batch; and the gradients, 113.6 MiB."""
    images = 8 * devices
    kinds, _ = sent(f"configs/salad.py:salad,batch={images},objective.P={images // 4}", devices)
    assert sorted(kinds["all-gather"]) == [images, 4 * images, 4 * 8448 * images]
    assert sorted(kinds["all-reduce"]) == [1, 4, 4 * 8448 * images, 119_080_716]
    assert set(kinds) == {"all-gather", "all-reduce"}


@pytest.mark.long
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_netvlad_sums_its_gradients_and_gathers_where_devices_share_a_query(sent, devices):
    """8.2 MiB whatever the devices. 4 queries of 12 images on 8 devices are split by image: then the descriptors of a
    batch, and on the way back their gradients, go to all that share a query."""
    kinds, _ = sent("configs/netvlad.py:pitts30k", devices)
    assert sum(kinds.pop("all-reduce")) == 8_552_973 + (devices == 8)
    descriptors = 4 * 12 * 64 * 256 * 4
    assert dict(kinds) == ({"all-gather": [descriptors] * 2} if devices == 8 else {})
