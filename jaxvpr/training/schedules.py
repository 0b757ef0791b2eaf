"""Learning rates over a run, by name, with torch's semantics. Reduction on a plateau is in `plateau`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvpr.errors import UserError

Schedule = Callable[[jax.Array], jax.Array]
SCHEDULES = ("constant", "cosine", "linear", "multi_step")
PER = ("step", "epoch")


def schedule(
    name: str,
    rate: float,
    *,
    total: int,
    period: int = 1,
    per: str = "step",
    warmup: int = 0,
    warmup_epochs: int = 0,
    warmup_start: float = 0.0,
    length: int = 0,
    start: float = 1.0,
    final: float = 0.0,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
) -> Schedule:
    """Learning rate by the step of the run: a linear warm-up, and a schedule.

    - `constant`: the peak.
    - `cosine`: torch's CosineAnnealingLR, from the peak to `final * rate` in `length` (its T_max), and up again
      after that. Without `length` it falls to the end of the run and stays there.
    - `linear`: torch's LinearLR, from `start * rate` to `final * rate` in `length` or to the end of the run.
    - `multi_step`: torch's MultiStepLR, times `gamma` at each of `milestones`.

    A schedule per step begins where the warm-up ends (torch's SequentialLR). One per epoch counts the epochs of the
    run from its beginning, and the warm-up multiplies it (torch's ChainedScheduler), as in GSV-Cities and BoQ: their
    milestones are epochs of the run.

    Args:
      name: one of `SCHEDULES`.
      rate: the peak.
      total: steps of the whole run.
      period: steps of an epoch.
      per: "step" or "epoch": what `length` and `milestones` count, and how often the schedule moves.
      warmup, warmup_epochs: steps and epochs that the warm-up takes, added up; it moves at each step.
      warmup_start: the share of the peak that the warm-up begins with.

    Raises:
      UserError: for an unknown name, and for a schedule that the run would end before.
    """
    rises = warmup + warmup_epochs * period
    _check_names(name, per)
    _check_warmup(rises, total)
    span = max(total - rises, 1) if per == "step" else max(total // period, 1)
    _check_end(name, span, per, length, milestones, gamma)
    if name == "constant":
        after = optax.constant_schedule(rate)
    elif name == "cosine":
        after = _cosine(rate, length, final) if length else optax.cosine_decay_schedule(rate, span, alpha=final)
    elif name == "linear":
        after = optax.linear_schedule(start * rate, final * rate, length or span)
    else:
        after = optax.piecewise_constant_schedule(rate, dict.fromkeys(milestones, gamma))
    if per == "epoch":
        return _per_epoch(after, period, rises, warmup_start)
    if not rises:
        return after
    return optax.join_schedules([optax.linear_schedule(warmup_start * rate, rate, rises), after], [rises])


def _cosine(rate: float, length: int, final: float) -> Schedule:
    def at(step: jax.Array) -> jax.Array:
        turn = jnp.asarray(step % (2 * length), jnp.float32) * np.float32(np.pi / length)
        return rate * (final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(turn)))

    return at


def _per_epoch(schedule: Schedule, period: int, rises: int, warmup_start: float) -> Schedule:
    ramp = optax.linear_schedule(warmup_start, 1.0, rises) if rises else optax.constant_schedule(1.0)
    return lambda step: ramp(step) * schedule(step // period)


def _check_names(name: str, per: str) -> None:
    if name not in SCHEDULES:
        raise UserError(f"optimiser schedule {name!r} does not exist; there are {list(SCHEDULES)}")
    if per not in PER:
        raise UserError(f"an optimiser schedule moves per 'step' or per 'epoch', not per {per!r}")


def _check_warmup(rises: int, total: int) -> None:
    if rises < 0:
        raise UserError(f"a warm-up of {rises} steps: it takes 0 steps or more")
    if rises >= total:
        raise UserError(
            f"the warm-up of {rises} steps never ends: the run has {total} steps; shorten warmup or train for longer"
        )


def _check_end(name: str, span: int, per: str, length: int, milestones: Sequence[int], gamma: float) -> None:
    run = f"the run has {span} {per}s" + " after the warm-up" * (per == "step")
    if name in ("cosine", "linear") and length < 0:
        raise UserError(f"a {name} schedule of length={length}: it takes 1 {per} or more, 0 is the whole run")
    if name in ("cosine", "linear") and length > span:
        raise UserError(f"the {name} schedule of length={length} {per}s never ends: {run}; length=0 fits it to them")
    if name != "multi_step":
        return
    listed = list(milestones)
    if any(isinstance(one, bool) or not isinstance(one, int | np.integer) for one in listed):
        raise UserError(f"milestones={listed} of a multi_step schedule must be whole numbers of {per}s")
    if not listed or listed[0] < 1 or any(a >= b for a, b in pairwise(listed)):
        raise UserError(f"milestones={listed} of a multi_step schedule must be {per}s from 1 on, each after the other")
    if listed[-1] >= span:
        raise UserError(f"the multi_step schedule never ends: milestone {listed[-1]} is not reached, {run}")
    if gamma <= 0:
        raise UserError(f"gamma={gamma} of a multi_step schedule must be above 0")
