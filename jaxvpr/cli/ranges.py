"""Which numbers make sense, key by key. An error far inside the program would not name the key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import objectives

MOST_INTEGER = 2**32 - 1  # JAX takes no larger seed, and nothing else comes near it
MOST_STEPS = 2**31 - 1  # a step is counted in 32 bits
Test = Callable[[float], bool]

# What a number must be, in words and as a test, and the keys it holds for; in a tuple it holds for each number.
RANGES: tuple[tuple[str, Test, str], ...] = (
    ("at least 0", lambda n: n >= 0, """
        seed epochs eval.sequence.window mesh.model mesh.fsdp_mib ema.warmup plateau.patience plateau.options.threshold
        plateau.options.cooldown plateau.options.min_rate best.patience checkpoint.every_steps clusters.images
        profile.first profile.steps
        pca.dim log_seconds domain.weight domain.gamma augment.brightness augment.contrast augment.saturation
        augment.randaugment objective.partition.groups objective.groups objective.margin objective.head_steps
        objective.min_distance objective.weights objective.cliques.sets objective.memory objective.pool
        objective.reciprocal objective.soft_weight objective.generations objective.distance
        objective.loss_options.margin objective.loss_options.positive_margin objective.loss_options.negative_margin
        objective.queue objective.noise.queue objective.near
        objective.loss_options.eps objective.miner_options.epsilon"""),
    ("at least 1", lambda n: n >= 1, """
        eval.sequence.top eval.sequence.velocities
        steps_per_epoch every_epochs checkpoint.keep eval.recalls clusters.per_image clusters.iterations
        pca.images pca.memory_mib eval.host_mib domain.hidden objective.partition.N objective.partition.L
        objective.partition.min_images objective.N objective.min_images
        objective.cliques.similar objective.cliques.refresh objective.negatives objective.refresh
        objective.memory_mib objective.difficult objective.difficult_pool objective.views
        objective.loss_options.bins objective.loss_options.sub_centers model.position_options.cells
        model.position_options.dim model.position_options.features
        model.position_options.sectors model.position_options.components model.position_options.widths"""),
    ("at least 1 and at most 16384", lambda n: 1 <= n <= 16384, """
        image.size image.multiple panorama.size panorama.view objective.teacher_size"""),
    ("at least 1 and at most 1048576", lambda n: 1 <= n <= 2**20, """
        batch accumulate grad_cache steps_per_call eval.batch domain.source domain.target objective.P objective.K"""),
    ("at least 0 and at most 1024", lambda n: 0 <= n <= 1024, "loader.threads loader.workers"),
    ("at least 1 and at most 1024", lambda n: 1 <= n <= 1024, "loader.prefetch"),
    ("at least 1 and at most 1000000", lambda n: 1 <= n <= 1_000_000, "hosts.wait"),
    ("above 0", lambda n: n > 0, """
        image.std augment.ratio objective.partition.M objective.partition.radius objective.M objective.scale
        objective.cliques.distance objective.temperatures objective.loss_options.scale
        objective.loss_options.temperature objective.loss_options.gamma objective.loss_options.alpha
        objective.loss_options.beta model.position_options.temperature
        model.position_options.fourier_scale model.position_options.sigmas"""),
    ("above 0 and at most 1", lambda n: 0 < n <= 1, "augment.scale maps.crop"),
    ("above 0 and at most 360", lambda n: 0 < n <= 360, "objective.partition.alpha"),
    ("above 0 and at most 180", lambda n: 0 < n <= 180, "objective.cliques.angle objective.partition.angle"),
    ("from 0 to 1", lambda n: 0 <= n <= 1, """
        augment.flip augment.perspective augment.grey augment.erasing objective.margin_warmup objective.cliques.share
        objective.loss_options.margin_warmup"""),
    ("from 0 to below 1", lambda n: 0 <= n < 1, """
        ema.decay plateau.factor objective.smoothing model.position_options.dropout"""),
    ("from -100000000 to 100000000", lambda n: abs(n) <= 1e8, "model.position_options.area"),
    ("from 0 to 0.5", lambda n: 0 <= n <= 0.5, "augment.hue"),
    ("from 0 to 30", lambda n: 0 <= n <= 30, "augment.magnitude augment.blur"),
    ("from 0 to 180", lambda n: 0 <= n <= 180, "augment.rotation objective.turn"),
)  # fmt: skip
# The same, of each of the three optimisers.
OF_OPTIMISER: tuple[tuple[str, Test, str], ...] = (
    ("at least 0", lambda n: n >= 0, """
        rate warmup warmup_epochs warmup_start length start final milestones weight_decay clip options.eps
        options.lambd options.alpha options.t0"""),
    ("above 0", lambda n: n > 0, "gamma"),
    ("above 0 and at most 1", lambda n: 0 < n <= 1, "layer_decay"),
    ("from 0 to below 1", lambda n: 0 <= n < 1, "momentum options.b1 options.b2"),
)  # fmt: skip
OPTIMISERS = ("optimizer", "optimizer_extra", "optimizer_shared")
# Options of backbones and aggregators, at any depth, that count or measure something; none of the others is below 0.
SIZES = (
    "clusters", "cluster_dim", "token_dim", "hidden", "layers", "rows", "columns", "cells", "depth", "heads", "patch",
    "side", "width", "widths", "sizes", "stem_width", "queries", "cuts",
)  # fmt: skip
# key -> (words, test)
TESTS = {key: (words, test) for words, test, keys in RANGES for key in keys.split()} | {
    f"{group}.{key}": (words, test)
    for group in OPTIMISERS
    for words, test, keys in OF_OPTIMISER
    for key in keys.split()
}


def mistakes(config: ConfigDict) -> Iterator[str]:
    """Which numbers of a recipe make no sense: one line a key, with what it must be.

    Those of an objective are known where it is one of ours.
    """
    own = config.objective.get("name") in objectives.SHIPPED
    for key, value in leaves(config):
        found = list(numbers(value))
        if any(isinstance(n, int) and abs(n) > MOST_INTEGER for n in found):
            yield f"config.{key} must be at most {MOST_INTEGER}"  # without its value, which may have no end
            continue
        if "\0" in str(value):
            yield f"config.{key}={value!r} holds a NUL, which no name or path may"
        words, test = _range(key) if own or not key.startswith("objective.") else ("", None)
        if not all(isinstance(n, int) or math.isfinite(n) for n in found):
            yield f"config.{key}={value} must be finite" + f", and {words}" * bool(words)
        elif test and not all(map(test, found)):
            yield f"config.{key}={value} must be {words}"
    if 0 < config.epochs <= MOST_INTEGER and (steps := config.epochs * config.steps_per_epoch) > MOST_STEPS:
        yield f"config.epochs x config.steps_per_epoch = {steps} must be at most {MOST_STEPS} steps"


def _range(key: str) -> tuple[str, Test | None]:
    if key.startswith("model.position_options."):
        return TESTS.get(key, TESTS["seed"])
    if key.startswith("model."):
        return TESTS["every_epochs"] if key.rpartition(".")[2] in SIZES else TESTS["seed"]
    return TESTS.get(key, ("", None))


def leaves(group: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a group and of the groups in it, by their dotted keys."""
    for key, value in group.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield above + key, value


def numbers(value: Any) -> Iterator[float]:
    """The numbers of a value, those in tuples too; True and False are none."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
