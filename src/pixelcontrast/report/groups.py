"""Runs that differ in nothing but the seed belong together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from pixelcontrast.report.run import Run, mapping
from pixelcontrast.report.words import run_title

COLOURS = 8
"""Series colours that the style sheet defines."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A value over the seeds of a group."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """Mean, None without values."""
        return mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation, None below two values."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, slots=True)
class Group:
    """Repetitions of one setting."""

    label: str
    colour: str
    runs: tuple[Run, ...]

    @property
    def representative(self) -> Run:
        """The run of highest mIoU, whose pictures are shown."""
        return max(self.runs, key=lambda run: -1.0 if run.miou is None else run.miou)

    def spread(self, value: Callable[[Run], float | None]) -> Spread:
        """A number of each run that has it."""
        found = (value(run) for run in self.runs)
        return Spread(tuple(number for number in found if number is not None))

    def run_label(self, run: Run) -> str:
        """The group's name, with the seed where that tells its runs apart."""
        if len(self.runs) == 1:
            return self.label
        return f"{self.label}, seed {run.seed}" if run.seed is not None else run.folder.name


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Groups in the order of their first run, with names that tell them apart."""
    members: dict[str, list[Run]] = {}
    for place, run in enumerate(runs):
        members.setdefault(_setting(run) or f"run {place}", []).append(run)
    labels = _distinct_labels(list(members.values()))
    return [
        Group(label, f"var(--s{i % COLOURS})", tuple(same))
        for i, (label, same) in enumerate(zip(labels, members.values(), strict=True))
    ]


def reference_of(groups: Sequence[Group]) -> Group:
    """What the others are compared with: the first supervised group, else the first one."""
    plain = [group for group in groups if group.runs[0].method == "supervised"]
    return (plain or groups)[0]


def _setting(run: Run) -> str | None:
    """Everything but the seed and the name, as text; None without a configuration."""
    if not run.config:
        return None
    rest = {key: value for key, value in run.config.items() if key not in ("name", "seed")}
    # How many workers read images changes the speed, not the result.
    data = {key: value for key, value in mapping(rest.get("data")).items() if key != "workers"}
    return json.dumps({**rest, "data": data}, sort_keys=True, default=str)


def _distinct_labels(members: Sequence[Sequence[Run]]) -> list[str]:
    firsts = [same[0] for same in members]
    choices: tuple[Callable[[Run], str], ...] = (
        run_title,
        lambda run: run.name,
        lambda run: run.folder.name,
        lambda run: str(run.folder),
    )
    for choose in choices:
        labels = [choose(run) for run in firsts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{run.name} ({i + 1})" for i, run in enumerate(firsts)]
