"""The host side of a run: what decides its results and lives on no device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_pipelines.draws import Draw
from jaxvpr.objectives.objective import Memory, Plan
from jaxvpr.training.checkpoint import Restored
from jaxvpr.training.early_stop import Patience
from jaxvpr.training.plateau import Watch


@dataclass
class Host:
    """Saved with every checkpoint, beside the state of the devices.

    Attributes:
      step: updates made.
      plan, memory: the objective's; None has not been made yet.
      watch: over the learning rate, from one validation to the next.
      patience: with validations that are no better, likewise.
      log_offset: bytes of the log that belong to the steps before this one.
      seconds: of training and validation so far; planning_seconds: those of them that making plans took.
    """

    step: int = 0
    plan: Plan | None = None
    memory: Memory = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)
    patience: Patience = field(default_factory=Patience)
    log_offset: int = 0
    seconds: float = 0.0
    planning_seconds: float = 0.0

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps as arrays."""
        named = {f"memory.{name}": array for name, array in self.memory.items()}
        if self.plan:
            draws = self.plan.draws.items()
            named |= {f"plan.{stream}.{column}": v for stream, d in draws for column, v in d._asdict().items()}
        return named | {"step": np.asarray(self.step)}  # orbax refuses an empty tree

    def meta(self) -> dict[str, Any]:
        """What a checkpoint keeps as JSON."""
        numbers = {key: getattr(self, key) for key in ("log_offset", "seconds", "planning_seconds")}
        if self.plan:
            numbers |= {"slot": self.plan.slot, "heads_only": self.plan.heads_only}
        return numbers | {"watch": self.watch._asdict(), "patience": self.patience._asdict()}

    @classmethod
    def of(cls, restored: Restored) -> Host:
        """The host side that a checkpoint holds."""
        meta, columns, memory = restored.meta, dict[str, dict[str, np.ndarray]](), {}
        for name, array in restored.host.items():
            kind, _, rest = name.partition(".")
            if kind == "plan":
                stream, _, column = rest.rpartition(".")
                columns.setdefault(stream, {})[column] = array
            elif kind == "memory":
                memory[rest] = array
        draws = {stream: Draw(**parts) for stream, parts in columns.items()}
        return cls(
            step=restored.step,
            plan=Plan(draws, meta["slot"], meta["heads_only"]) if draws else None,
            memory=memory,
            watch=Watch(**meta["watch"]),
            patience=Patience(**meta["patience"]),
            log_offset=meta["log_offset"],
            seconds=meta["seconds"],
            planning_seconds=meta["planning_seconds"],
        )
