"""What the report says class by class: IoU bars, confusion, how often each class occurs."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pixelcontrast.evaluation import SegScores
from pixelcontrast.report.groups import Group, Spread
from pixelcontrast.report.pictures import Palette, colour_css
from pixelcontrast.report.run import Run, mapping, number

LARGEST_TABLE = 40
"""Classes up to which the confusion matrix is a table; above it is a picture."""
LARGEST_NUMBERS = 21
"""Classes up to which its cells hold numbers."""


@dataclass(frozen=True, slots=True)
class Bar:
    """IoU of one class under one group."""

    label: str
    colour: str
    iou: Spread
    delta: float | None
    """Difference to the reference group; None for itself and where either is missing."""


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class of the per-class table."""

    name: str
    colour: str
    bars: tuple[Bar, ...]
    recall: float | None
    precision: float | None
    boundary: float | None
    """IoU over the pixels near a boundary."""
    share: float | None
    """Share of the labelled pixels of the evaluated split."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Row-normalised confusion matrix."""

    names: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]
    """Share of the row's true pixels predicted as the column; rows without pixels are zeros."""
    image: str
    """A data URI in place of the table where there are too many classes; else empty."""
    numbers: bool
    cell: int
    """Width of a cell in CSS pixels."""
    mistakes: tuple[tuple[str, str, float], ...]
    """True class, predicted class and share, most frequent first."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """How often one class occurs in the training labels."""

    name: str
    colour: str
    pixels: int
    share: float
    bar: float
    """Length of the bar: the share on a logarithmic scale from 0.001 % to 100 %."""
    images: int | None
    rare: bool


def palette_of(run: Run) -> Palette:
    """Colours of the classes: the data set's, else hues spread over the circle."""
    stored = run.dataset.get("palette")
    count = max(len(run.classes), run.result.scores.num_classes if run.result else 0)
    colours: list[tuple[int, int, int]] = []
    for place in range(count):
        colour = stored[place] if isinstance(stored, list) and place < len(stored) else None
        if isinstance(colour, list) and len(colour) == 3 and all(map(_is_level, colour)):
            colours.append((colour[0], colour[1], colour[2]))
        else:
            red, green, blue = colorsys.hls_to_rgb(place * 0.618 % 1, 0.55, 0.6)
            colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours


def class_rows(groups: Sequence[Group], reference: Group, palette: Palette) -> list[ClassRow]:
    """Classes by falling IoU of the last group that has scores; absent classes at the end."""
    scored = [group for group in groups if group.representative.result is not None]
    if not scored:
        return []
    main = scored[-1].representative
    assert main.result is not None
    scores, names = main.result.scores, main.result.names
    same = [group for group in scored if _names(group) == names]
    total = sum(scores.pixels)
    rare = set(_statistics_names(main, "rare"))
    rows = []
    for c, name in enumerate(names):
        base = _class_iou(reference, c).mean if reference in same else None
        notes = []
        if c in scores.absent:
            notes.append("absent: not in the mean")
        if c in scores.spurious:
            notes.append("never true, yet predicted: IoU 0")
        if name in rare:
            notes.append("rare")
        bars = []
        for group in same:
            iou = _class_iou(group, c)
            known = group is not reference and base is not None and iou.mean is not None
            delta = iou.mean - base if known and iou.mean is not None and base is not None else None
            bars.append(Bar(group.label, group.colour, iou, delta))
        rows.append(
            ClassRow(
                name=name,
                colour=colour_css(palette[c]),
                bars=tuple(bars),
                recall=scores.accuracy[c],
                precision=scores.precision[c],
                boundary=main.result.boundary.scores.iou[c] if main.result.boundary else None,
                share=scores.pixels[c] / total if total else None,
                notes=tuple(notes),
            )
        )
    return sorted(rows, key=lambda row: -1.0 if (m := row.bars[-1].iou.mean) is None else m)[::-1]


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """Plain and instance-weighted IoU of one class, category or mean, a pair a group."""

    name: str
    kind: str
    values: tuple[tuple[float | None, float | None], ...]


def instance_rows(groups: Sequence[Group]) -> list[InstanceRow]:
    """Classes with instances, then categories, then the means; empty where none was scored."""
    tables = [g.representative.result.instances if g.representative.result else {} for g in groups]
    if not any(tables):
        return []
    rows = []
    for kind in ("class", "category"):
        plain, weighted = f"{kind}_iou", f"{kind}_iiou"
        names = dict.fromkeys(name for table in tables for name in table.get(weighted, {}))
        for name in names:
            values = tuple(
                (number(t.get(plain, {}).get(name)), number(t.get(weighted, {}).get(name)))
                for t in tables
            )
            if any(weight is not None for _, weight in values):
                rows.append(InstanceRow(name, kind, values))
        means = [t.get("means", {}) for t in tables]
        both = tuple((number(m.get(plain)), number(m.get(weighted))) for m in means)
        rows.append(InstanceRow(f"mean over all {kind}es".replace("yes", "ies"), "mean", both))
    return rows


def confusion_of(scores: SegScores, names: tuple[str, ...], *, most: int = 8) -> Confusion:
    """The matrix for the page, and the `most` frequent mistakes by share of the true class."""
    counts = scores.confusion.numpy().astype(np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    count = len(names)
    order = np.argsort(shares * (1 - np.eye(count)), axis=None)[::-1][:most]
    places = [divmod(int(place), count) for place in order]
    mistakes = [(names[t], names[p], float(shares[t, p])) for t, p in places if t != p]
    table = count <= LARGEST_TABLE
    return Confusion(
        names=names,
        shares=tuple(map(tuple, shares.tolist())) if table else (),
        image="" if table else _matrix_picture(shares),
        numbers=count <= LARGEST_NUMBERS,
        cell=max(34, min(54, 640 // count)) if count <= LARGEST_NUMBERS else 16,
        mistakes=tuple(mistake for mistake in mistakes if mistake[2] >= 0.005),
    )


def occurrences(run: Run, palette: Palette) -> list[Occurrence]:
    """Class statistics of the training labels, by falling share; empty where none were taken."""
    statistics = mapping(run.dataset.get("statistics"))
    pixels, images = statistics.get("pixels"), statistics.get("images")
    names = run.classes
    if not isinstance(pixels, list) or len(pixels) != len(names):
        return []
    counts = [int(number(value) or 0) for value in pixels]
    total = sum(counts)
    if not total:
        return []
    rare = set(_statistics_names(run, "rare"))
    has_images = isinstance(images, list) and len(images) == len(names)
    rows = [
        Occurrence(
            name=name,
            colour=colour_css(palette[c]),
            pixels=counts[c],
            share=counts[c] / total,
            bar=_log_bar(counts[c] / total),
            images=int(number(images[c]) or 0) if has_images and images else None,
            rare=name in rare,
        )
        for c, name in enumerate(names)
    ]
    return sorted(rows, key=lambda row: -row.pixels)


def _names(group: Group) -> tuple[str, ...]:
    result = group.representative.result
    return result.names if result else ()


def _class_iou(group: Group, c: int) -> Spread:
    """IoU of class c over the seeds whose evaluation has the same classes."""
    names = _names(group)
    return group.spread(
        lambda run: run.result.scores.iou[c] if run.result and run.result.names == names else None
    )


def _statistics_names(run: Run, key: str) -> list[str]:
    names = mapping(run.dataset.get("statistics")).get(key)
    return [str(name) for name in names] if isinstance(names, list) else []


def _is_level(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= 255


def _log_bar(share: float) -> float:
    return float(np.clip((np.log10(share) + 5) / 5, 0.0, 1.0)) if share > 0 else 0.0


def _matrix_picture(shares: np.ndarray) -> str:
    """White to deep blue, square root scale, so that small mistakes can be seen."""
    depth = np.sqrt(shares)[..., None]
    pixels = (1 - depth) * np.array([255, 255, 255]) + depth * np.array([16, 42, 110])
    size = max(1, 720 // len(shares))
    large = pixels.round().astype(np.uint8).repeat(size, 0).repeat(size, 1)
    stream = io.BytesIO()
    Image.fromarray(large).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
