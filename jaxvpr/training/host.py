"""The host side of a run: what decides its results and lives on no device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxvpr.objectives.objective import Memory, Plan
from jaxvpr.training.checkpoint import Restored
from jaxvpr.training.early_stop import Patience
from jaxvpr.training.plateau import Watch


@dataclass
class Host:
    """Saved with every checkpoint, beside the state of the devices.

    Attributes:
      step: updates made.
      plan, memory: the objective's; an empty plan has not been made yet.
      watch: over the learning rate, from one validation to the next.
      patience: with validations that are no better, likewise.
      log_offset: bytes of the log that belong to the steps before this one.
      seconds: of training and validation so far; planning_seconds: those of them that making plans took.
    """

    step: int = 0
    plan: Plan = field(default_factory=dict)
    memory: Memory = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)
    patience: Patience = field(default_factory=Patience)
    log_offset: int = 0
    seconds: float = 0.0
    planning_seconds: float = 0.0

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps as arrays."""
        named = {f"plan.{k}": v for k, v in self.plan.items()} | {f"memory.{k}": v for k, v in self.memory.items()}
        return named | {"step": np.asarray(self.step)}  # orbax refuses an empty tree

    def meta(self) -> dict[str, Any]:
        """What a checkpoint keeps as JSON."""
        numbers = {key: getattr(self, key) for key in ("log_offset", "seconds", "planning_seconds")}
        return numbers | {"watch": self.watch._asdict(), "patience": self.patience._asdict()}

    @classmethod
    def of(cls, restored: Restored) -> Host:
        """The host side that a checkpoint holds."""
        part = {
            kind: {k.removeprefix(kind): v for k, v in restored.host.items() if k.startswith(kind)}
            for kind in ("plan.", "memory.")
        }
        meta = restored.meta
        return cls(
            step=restored.step,
            plan=part["plan."],
            memory=part["memory."],
            watch=Watch(**meta["watch"]),
            patience=Patience(**meta.get("patience", {})),
            log_offset=meta["log_offset"],
            seconds=meta.get("seconds", 0.0),
            planning_seconds=meta.get("planning_seconds", 0.0),
        )
