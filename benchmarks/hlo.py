"""What a compiled program says of itself: its memory, and what its devices send to one another, read from its HLO."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any, NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
PARTS = ("argument", "output", "alias", "temp")
HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
ISSUED = re.compile(rf"\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ({'|'.join(KINDS)})(-start)?\(")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
SEVERAL = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
ARRAY = re.compile(r"\b(pred|bf16|f8\w*|[sufc]\d+)\[([\d,]*)\]")
FUSED_SCATTER = "all-reduce-scatter"  # the name of computations in which a TPU keeps one share of a sum


class Collective(NamedTuple):
    """One collective of a program.

    Attributes:
      kind: one of `KINDS`.
      size: bytes of the whole array: what is summed, or put together from all shares.
      group: how many devices it joins. times: how often a step runs it.
    """

    kind: str
    size: int
    group: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a step, in a ring."""
        around = (self.group - 1) / self.group
        shares = {"all-reduce": 2 * around, "collective-permute": 1, "collective-broadcast": 1}
        return self.times * self.size * shares.get(self.kind, around)


def memory(compiled: Any) -> dict[str, int]:
    """Bytes that a compiled program takes on each device: arguments, outputs, those of them that share their memory
    with arguments (alias), and what it needs beside them at its worst moment (temp)."""
    found = compiled.memory_analysis()
    return {part: getattr(found, f"{part}_size_in_bytes") for part in PARTS}


def collectives(text: str, devices: int) -> list[Collective]:
    """The collectives of a program's HLO text, those of loops with their number of turns.

    Of a conditional all branches count. Reads the synchronous forms, the `-start` forms, and those that a TPU puts into
    fusions.

    Raises:
      ValueError: for a collective in a loop whose number of turns the program does not say.
    """
    bodies, entry = _computations(text)
    callers = _callers(bodies)

    def times(name: str) -> int:
        return 1 if name == entry else sum(_turns(line) * times(caller) for caller, line in callers[name])

    found = []
    for name, lines in bodies.items():
        for line in lines:
            if issued := ISSUED.match(line):
                kind, group = issued[2], _group(line, devices)
                size = _bytes(_result(issued[1], kind) if issued[3] else issued[1])
                if kind == "reduce-scatter":
                    size *= group
                if name.startswith(FUSED_SCATTER):
                    kind = "reduce-scatter"
                found.append(Collective(kind, size, group, times(name)))
    return found


def summary(found: Iterable[Collective]) -> dict[str, dict[str, float]]:
    """By kind: how many run in a step, MiB of the whole arrays, and MiB that each device sends."""
    kinds: dict[str, list[Collective]] = defaultdict(list)
    for one in found:
        kinds[one.kind].append(one)
    return {
        kind: {
            "count": sum(one.times for one in ones),
            "mib": round(sum(one.times * one.size for one in ones) / 2**20, 3),
            "sent_mib": round(sum(one.sent for one in ones) / 2**20, 3),
        }
        for kind, ones in sorted(kinds.items())
    }


def shapes(text: str, operations: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(operation, "f32[8,6016,512]") of every instruction of these kinds, such as "copy"; of a tuple its first array.

    Fused ones count too.
    """
    wanted = re.compile(rf"\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ({'|'.join(map(re.escape, operations))})\(")
    for line in text.splitlines():
        if (issued := wanted.match(line)) and (array := ARRAY.search(issued[1])):
            yield issued[2], array[0]


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of every computation by its name, and which one is the program itself."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", list[str]()
    for line in text.splitlines():
        if head := HEAD.match(line):
            lines = bodies.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith(" "):
            lines.append(line)
    return bodies, entry


def _callers(bodies: dict[str, list[str]]) -> dict[str, list[tuple[str, str]]]:
    """(computation, line) of every call, by what is called."""
    callers: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, lines in bodies.items():
        for line in lines:
            several = [one.strip().lstrip("%") for names in SEVERAL.findall(line) for one in names.split(",")]
            for called in (*CALLED.findall(line), *several):
                callers[called].append((name, line))
    return callers


def _turns(line: str) -> int:
    if " while(" not in line:
        return 1
    if not (found := TRIPS.search(line)):
        raise ValueError(f"a collective runs in a loop of unknown length: {line.strip()[:200]}")
    return int(found[1])


def _group(line: str, devices: int) -> int:
    """How many devices a collective joins; its groups are listed, given by their shape, or named as axes of a mesh."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(listed[1].split(","))
    if shaped := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(shaped[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = {axis: int(size) for axis, size in re.findall(r"('\w+')=(\d+)", named[1])}
        # A part of an axis is written 'axis':(elements before it)its size.
        axes = re.findall(r"('\w+')(?::\(\d+\)(\d+))?", named[2])
        return prod(int(part) if part else sizes[axis] for axis, part in axes)
    return devices


def _result(shape: str, kind: str) -> str:
    """What a `-start` puts out: gathers and permutes carry their operand before it, and marks behind it."""
    if kind not in ("all-gather", "collective-permute"):
        return shape
    parts, depth = [""], 0
    for character in shape.removeprefix("(").removesuffix(")"):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts[1]


def _bytes(shape: str) -> int:
    return sum(
        max(int((re.search(r"\d+", kind) or ["8"])[0]) // 8, 1) * prod(int(axis) for axis in axes.split(",") if axis)
        for kind, axes in ARRAY.findall(shape)
    )
