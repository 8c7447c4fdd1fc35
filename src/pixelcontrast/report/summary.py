"""The top of the report: headline, key numbers, comparison of runs, warnings, reproduction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pixelcontrast.report.groups import Group, Spread
from pixelcontrast.report.run import Run, mapping, number
from pixelcontrast.report.text import MISSING, duration, joined, percent, points
from pixelcontrast.report.words import hardware_name, headline_sentence, run_title

_STATUS = {
    "running": "had not ended when this report was written",
    "stopped": "was stopped before its planned end",
    "failed": "ended with an error",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One of the large numbers."""

    value: str
    unit: str
    label: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the comparison table."""

    group: Group
    miou: Spread
    accuracy: Spread
    boundary: Spread
    """mIoU over the pixels near a boundary."""
    seconds: Spread
    delta: float | None
    """mIoU against the reference; None for the reference itself."""
    reference: bool
    labelled: int | None
    parameters: float | None


def title_of(groups: Sequence[Group]) -> str:
    """The title of the page."""
    data = groups[0].runs[0].data_name
    on = f" on {data}" if data else ""
    if len(groups) == 1:
        return f"{run_title(groups[0].runs[0])}{on}"
    labels = [group.label for group in groups]
    if len(labels) <= 3:
        return " against ".join(labels[::-1]) + on
    return f"{len(labels)} methods compared{on}"


def lead_of(groups: Sequence[Group], reference: Group) -> str:
    """The result in words."""
    if len(groups) == 1:
        group = groups[0]
        count = len(group.runs)
        repeats = f" {count} seeds; values are means." if count > 1 else ""
        return headline_sentence(group.runs[0]) + repeats
    rows = [row for row in comparisons(groups, reference) if row.miou.mean is not None]
    base = next((row for row in rows if row.reference), None)
    others = [row for row in rows if not row.reference]
    if base is None or not others:
        return "The runs below have no scores to compare yet."
    best = max(others, key=lambda row: row.miou.mean or 0.0)
    return (
        f"{best.group.label} reaches {_with_std(best.miou)} % mean IoU, "
        f"{_difference(best.delta)} {reference.label} ({_with_std(base.miou)} %). "
        f"{_trust(best, base)}"
    )


def facts_of(run: Run) -> list[Fact]:
    """Key numbers of a single run."""
    facts = [Fact(percent(run.miou), "" if run.miou is None else "%", f"mean IoU{_where(run)}")]
    if run.result is not None:
        scores = run.result.scores
        facts.append(Fact(percent(scores.pixel_accuracy), "%", "pixels right"))
        counted = scores.num_classes - len(scores.absent)
        label = f"of {scores.num_classes} classes scored"
        if scores.absent:
            label += f"; absent: {joined([run.result.names[c] for c in scores.absent])}"
        facts.append(Fact(str(counted), "", label))
    seconds = number(run.record.get("seconds"))
    if seconds is not None:
        facts.append(Fact(duration(seconds), "", "training time"))
    if run.record.get("hardware"):
        facts.append(Fact(hardware_name(run), "", "machine"))
    return facts


def comparisons(groups: Sequence[Group], reference: Group) -> list[Comparison]:
    """One line a group."""
    base = reference.spread(lambda run: run.miou).mean
    rows = []
    for group in groups:
        first = group.runs[0]
        miou = group.spread(lambda run: run.miou)
        known = group is not reference and base is not None and miou.mean is not None
        splits = mapping(first.dataset.get("splits"))
        labelled = mapping(splits.get("labeled") or splits.get("train")).get("count")
        rows.append(
            Comparison(
                group=group,
                miou=miou,
                accuracy=group.spread(
                    lambda run: run.result.scores.pixel_accuracy if run.result else None
                ),
                boundary=group.spread(_boundary_miou),
                seconds=group.spread(lambda run: number(run.record.get("seconds"))),
                delta=(miou.mean or 0.0) - (base or 0.0) if known else None,
                reference=group is reference,
                labelled=labelled if isinstance(labelled, int) else None,
                parameters=number(mapping(first.record.get("model")).get("parameters_inference")),
            )
        )
    return rows


def boundary_of(groups: Sequence[Group]) -> str:
    """How near to a boundary the boundary scores look; empty without any."""
    edges = [run.result.boundary for g in groups for run in g.runs if run.result]
    distances = sorted({edge.distance for edge in edges if edge is not None})
    return joined([f"{distance:g}" for distance in distances]) if distances else ""


def _boundary_miou(run: Run) -> float | None:
    edges = run.result.boundary if run.result else None
    return edges.scores.miou if edges else None


def warnings_of(groups: Sequence[Group]) -> list[str]:
    """What a reader must know before trusting the numbers."""
    found = []
    runs = [run for group in groups for run in group.runs]
    for run in runs:
        prefix = f"{run.folder.name}: " if len(runs) > 1 else ""
        if not run.finished:
            status = str(run.record.get("status") or "")
            ended = _STATUS.get(status, "did not record how it ended")
            steps = _progress(run)
            found.append(f"{prefix}this run {ended}{steps}. Its scores are not final.")
        if not run.results and not run.val:
            found.append(f"{prefix}this run has no scores yet: nothing was validated.")
        found += [f"{prefix}{problem}." for problem in run.problems]
    if len({run.data_name for run in runs}) > 1:
        found.append("The runs were trained on different data sets: their scores do not compare.")
    if len({tuple(run.classes) for run in runs}) > 1:
        found.append("The runs have different classes: their scores do not compare.")
    if len({run.result.split for run in runs if run.result}) > 1:
        found.append("The runs were scored on different splits.")
    if len(groups) > 1 and len({_split_hash(run, "val") for run in runs}) > 1:
        found.append("The validation splits differ between the runs.")
    return found


def notes_of(run: Run) -> list[str]:
    """What the run noted: values chosen automatically, oddities of the data."""
    notes = run.record.get("notes")
    return [str(note) for note in notes] if isinstance(notes, list) else []


def reproduction_of(run: Run) -> list[tuple[str, str]]:
    """Everything needed to run it again, as names and values."""
    git = mapping(run.record.get("git"))
    commit = str(git.get("commit") or "")
    rows = [
        ("seed", "" if run.seed is None else str(run.seed)),
        ("source", commit + (" with local changes" if commit and git.get("dirty") else "")),
        ("versions", ", ".join(f"{k} {v}" for k, v in mapping(run.record.get("versions")).items())),
        ("data", str(run.dataset.get("root") or "")),
    ]
    for name, split in mapping(run.dataset.get("splits")).items():
        digest = mapping(split).get("sha256")
        if digest:
            rows.append((f"split {name}", f"{mapping(split).get('count')} images, sha256 {digest}"))
    rows += [
        ("started", str(run.record.get("started") or "")),
        ("finished", str(run.record.get("finished") or "")),
        ("folder", str(run.folder)),
    ]
    return [(name, value) for name, value in rows if value]


def spread_text(spread: Spread) -> str:
    """A share over seeds in percent: mean, and the standard deviation where there are several."""
    return _with_std(spread)


def _with_std(spread: Spread) -> str:
    if spread.std is None:
        return percent(spread.mean)
    return f"{percent(spread.mean)} ± {percent(spread.std)}"


def _difference(delta: float | None) -> str:
    if delta is None:
        return f"{MISSING} against"
    size = points(abs(delta)).lstrip("+±")
    if size == "0.0":
        return "the same as"
    return f"{size} points {'above' if delta > 0 else 'below'}"


def _trust(best: Comparison, base: Comparison) -> str:
    """How far the difference can be trusted, said plainly."""
    if best.miou.std is None or base.miou.std is None:
        return "From single seeds: small differences can be chance."
    counts = len(best.miou.values), len(base.miou.values)
    seeds = f"{counts[0]} and {counts[1]} seeds" if counts[0] != counts[1] else f"{counts[0]} seeds"
    if best.delta is not None and abs(best.delta) < best.miou.std + base.miou.std:
        return f"Over {seeds} this is within the spread of the seeds."
    return f"Over {seeds} this is more than the spread of the seeds."


def _where(run: Run) -> str:
    if run.result is not None:
        return f", split “{run.result.split}”"
    return ", best validation" if run.miou is not None else ""


def _progress(run: Run) -> str:
    lines = [line for line in (*run.train, *run.val) if "stage" not in line]
    done = max((int(line["step"]) for line in lines), default=None)
    planned = number(run.get("train.steps"))
    if done is None:
        return " (no step was logged)"
    return f" (step {done:,} of {planned:,.0f})" if planned else f" (step {done:,})"


def _split_hash(run: Run, name: str) -> str:
    return str(mapping(mapping(run.dataset.get("splits")).get(name)).get("sha256"))
