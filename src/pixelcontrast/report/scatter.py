"""Features as coloured points in the plane, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup, escape

from pixelcontrast.report.classes import palette_of
from pixelcontrast.report.groups import Group
from pixelcontrast.report.pictures import Palette, colour_css
from pixelcontrast.report.run import Embedding
from pixelcontrast.report.text import percent

SIZE, MARGIN = 460, 16
LAYERS_OF_PAINT = 8
"""Classes are drawn in turns, so that none covers all others."""
MOST_NAMES = 24
"""Classes up to which names stand in the picture."""

Coordinates = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Scatter:
    """A picture with its caption."""

    title: str
    svg: Markup
    note: str


def scatters(groups: Sequence[Group]) -> list[Scatter]:
    """Every picture of a single group; of several the best picture of the classifier input."""
    found = []
    for group in groups:
        result = group.representative.result
        if result is None:
            continue
        palette = palette_of(group.representative)
        kept = result.embeddings if len(groups) == 1 else result.embeddings[:1]
        for embedding in kept:
            pictures = _pictures(embedding, result.names, palette)
            if len(groups) > 1:
                last = pictures[-1]
                pictures = [Scatter(f"{group.label}: {last.title}", last.svg, last.note)]
            found += pictures
    return found


def shown_classes(groups: Sequence[Group]) -> list[int]:
    """Classes with a point in any picture."""
    results = [group.representative.result for group in groups]
    return sorted({c for r in results if r for e in r.embeddings for c in e.labels})


def _pictures(embedding: Embedding, names: Sequence[str], palette: Palette) -> list[Scatter]:
    held = "" if embedding.pca_share is None else f"{percent(embedding.pca_share, 0)} % of"
    note = f"The two directions of largest spread; they hold {held} the variance." if held else ""
    pictures = [
        Scatter(
            f"Principal components of the {embedding.layer}",
            scatter(embedding.pca, embedding.labels, names, palette),
            note,
        )
    ]
    if embedding.tsne:
        pictures.append(
            Scatter(
                f"t-SNE of the {embedding.layer}",
                scatter(embedding.tsne, embedding.labels, names, palette),
                "Shows who is whose neighbour; sizes of clusters and distances between them mean "
                "nothing.",
            )
        )
    return pictures


def scatter(
    points: Coordinates, labels: Sequence[int], names: Sequence[str], palette: Palette
) -> Markup:
    """Points in the colours of their classes, each class named at its middle."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if not xs:
        return Markup("")
    span = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    scale = (SIZE - 2 * MARGIN) / span
    left, top = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    placed = [(SIZE / 2 + (x - left) * scale, SIZE / 2 - (y - top) * scale) for x, y in points]
    members: dict[int, list[tuple[float, float]]] = {}
    for point, label in zip(placed, labels, strict=True):
        members.setdefault(label, []).append(point)
    parts = [f'<svg class="scatter" viewBox="0 0 {SIZE} {SIZE}" role="img">']
    for turn in range(LAYERS_OF_PAINT):
        for label, own in sorted(members.items()):
            path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in own[turn::LAYERS_OF_PAINT])
            if path:
                colour = escape(colour_css(palette[label]))
                parts.append(f'<path class="dots" d="{path}" stroke="{colour}"/>')
    if len(members) <= MOST_NAMES:
        middles = {c: _middle(own) for c, own in members.items()}
        parts += [
            f'<text class="where" x="{x:.0f}" y="{y:.0f}">{escape(names[c])}</text>'
            for c, (x, y) in _spaced(middles).items()
        ]
    return Markup("".join([*parts, "</svg>"]))


def _middle(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The point nearest to the medians: a name stands on its class even if that is split."""
    x, y = median(p[0] for p in points), median(p[1] for p in points)
    return min(points, key=lambda p: (p[0] - x) ** 2 + (p[1] - y) ** 2)


def _spaced(
    middles: dict[int, tuple[float, float]], line: float = 15.0, wide: float = 64.0
) -> dict[int, tuple[float, float]]:
    """Names moved down where they would lie on one another, and into the picture."""
    placed: dict[int, tuple[float, float]] = {}
    for c, (x, y) in sorted(middles.items(), key=lambda item: item[1][1]):
        x, y = min(max(x, wide / 2), SIZE - wide / 2), min(max(y, line), SIZE - 6)
        near = sorted(v for u, v in placed.values() if abs(u - x) < wide)
        for taken in near:
            if abs(taken - y) < line:
                y = taken + line
        placed[c] = (x, y)
    return placed
