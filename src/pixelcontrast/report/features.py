"""What the report says about features: alignment, uniformity, and which classes lie close."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from pixelcontrast.evaluation import FeatureScores
from pixelcontrast.report.classes import LARGEST_NUMBERS, LARGEST_TABLE
from pixelcontrast.report.groups import Group, Spread
from pixelcontrast.report.run import Run
from pixelcontrast.report.text import MISSING, joined


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of the table."""

    text: str
    better: bool | None = None
    """Against the reference group; None where there is nothing to compare."""


@dataclass(frozen=True, slots=True)
class LayerRow:
    """The scores of one layer of one group."""

    layer: str
    width: int
    label: str
    colour: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Alignment and uniformity of every layer, a row a group."""

    heads: tuple[str, ...]
    rows: tuple[LayerRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Similarity:
    """Cosines of the class centres of one group."""

    label: str
    colour: str
    layer: str
    names: tuple[str, ...]
    cosines: tuple[tuple[float | None, ...], ...]
    """Empty where there are too many classes for a table."""
    numbers: bool
    cell: int
    closest: tuple[tuple[str, str, float], ...]
    """Pairs of classes with the most similar centres, most similar first."""


def feature_table(groups: Sequence[Group], reference: Group) -> FeatureTable | None:
    """A row for each layer of each group, layer by layer; None where nothing was measured."""
    layers = dict.fromkeys(
        layer.layer for group in groups for run in group.runs for layer in _layers(run)
    )
    if not layers:
        return None
    near = sorted({n for g in groups for r in g.runs for s in _layers(r) for n in s.neighbourhood})
    scores: list[tuple[str, Callable[[FeatureScores], float], int]] = [
        ("A", lambda layer: layer.alignment, -1),
        ("U", lambda layer: layer.uniformity, 1),
    ]
    scores += [(f"U{_subscript(n)}", _neighbourhood(n), 1) for n in near]
    rows, notes = [], []
    for name in layers:
        base = _layer_of(reference.representative, name)
        widths = set()
        for group in groups:
            layer = _layer_of(group.representative, name)
            if layer is None:
                continue
            widths.add(layer.width)
            same = base is not None and base.width == layer.width and group is not reference
            cells = [_bounds_cell(layer)]
            for _, value, sign in scores:
                spread = group.spread(_of_layer(name, value))
                against = reference.spread(_of_layer(name, value)).mean if same else None
                error = layer.alignment_error if value is scores[0][1] else None
                cells.append(_cell(spread, against, sign, error))
            cells = [cells[1], cells[0], *cells[2:]]
            rows.append(LayerRow(name, layer.width, group.label, group.colour, tuple(cells)))
        if len(widths) > 1:
            notes.append(f"The layers “{name}” differ in width: their numbers do not compare.")
    heads = ("A", "bounds of A", *(head for head, _, _ in scores[1:]))
    return FeatureTable(heads, tuple(rows), (*notes, *_remarks(groups)))


def similarities(groups: Sequence[Group], *, most: int = 8) -> list[Similarity]:
    """The matrix of each group's representative, of the layer before the classifier."""
    found = []
    for group in groups:
        result = group.representative.result
        if result is None or not result.features:
            continue
        layer, names = result.features[0], result.names
        count = len(names)
        pairs = [
            (names[a], names[b], cosine)
            for a in range(count)
            for b in range(a)
            if (cosine := layer.similarity[a][b]) is not None
        ]
        found.append(
            Similarity(
                label=group.label,
                colour=group.colour,
                layer=layer.layer,
                names=names,
                cosines=layer.similarity if count <= LARGEST_TABLE else (),
                numbers=count <= LARGEST_NUMBERS,
                cell=max(34, min(54, 640 // count)) if count <= LARGEST_NUMBERS else 16,
                closest=tuple(sorted(pairs, key=lambda pair: -pair[2])[:most]),
            )
        )
    return found


def _layers(run: Run) -> tuple[FeatureScores, ...]:
    return run.result.features if run.result else ()


def _layer_of(run: Run, name: str) -> FeatureScores | None:
    return next((layer for layer in _layers(run) if layer.layer == name), None)


def _of_layer(name: str, value: Callable[[FeatureScores], float]) -> Callable[[Run], float | None]:
    """A score of one layer of a run; None where it is missing or not defined."""

    def read(run: Run) -> float | None:
        layer = _layer_of(run, name)
        found = None if layer is None else value(layer)
        return found if found is not None and isfinite(found) else None

    return read


def _neighbourhood(n: int) -> Callable[[FeatureScores], float]:
    return lambda layer: layer.neighbourhood.get(n, float("nan"))


def _cell(spread: Spread, against: float | None, sign: int, error: float | None) -> Cell:
    if spread.mean is None:
        return Cell(MISSING)
    text = f"{spread.mean:.3f}"
    if spread.std is not None:
        text += f" ± {spread.std:.3f}"
    elif error:
        text += f" ± {error:.3f}"
    better = (
        None if against is None or against == spread.mean else (sign * (spread.mean - against) > 0)
    )
    return Cell(text, better)


def _bounds_cell(layer: FeatureScores) -> Cell:
    low, high = layer.alignment_bounds
    return Cell(f"{low:.2f} to {high:.2f}" if isfinite(low) else MISSING)


def _remarks(groups: Sequence[Group]) -> list[str]:
    """What flatters or distorts the numbers, by class names."""
    found: dict[str, None] = {}
    for group in groups:
        run = group.representative
        names = run.result.names if run.result else ()
        for layer in _layers(run):
            for classes, text in (
                (layer.single, "a single feature, so that their alignment is 0"),
                (layer.excluded, "too few features and are left out"),
                (layer.undirected, "no mean direction and are left out of U"),
            ):
                if classes:
                    listed = joined([names[c] for c in classes])
                    found[f"{layer.layer}: {listed} have {text}."] = None
    return list(found)


def _subscript(n: int) -> str:
    return "".join(chr(0x2080 + int(digit)) for digit in str(n))
