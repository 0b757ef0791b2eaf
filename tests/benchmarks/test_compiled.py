"""Compiled steps: what is read from a program's text, and what the devices of three recipes send to one another."""

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
