"""Images with ground truth, prediction and errors, small enough to travel inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelcontrast.report.groups import Group
from pixelcontrast.report.run import ImageEntry, Run, number

Bytes = NDArray[np.uint8]
Palette = Sequence[tuple[int, int, int]]

WIDTHS = ((16, 480), (40, 360), (80, 280))
"""Width of a picture in pixels by how many pictures the page holds; beyond that SMALLEST."""
SMALLEST = 200
CRISP_WIDTH = 200
"""Below this width a page shows a picture enlarged."""
IGNORED = (128, 132, 140)
"""Colour of pixels without a label."""
WRONG = (229, 57, 70)
"""Colour of wrong pixels in error maps."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One tile."""

    caption: str
    data: str
    """A data URI."""
    crisp: bool = False
    """Drawn with hard pixel edges: a label map smaller than its place on the page."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image: itself and its ground truth, then prediction and errors of each run."""

    id: str
    score: str
    miou: float | None
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """The pictures of the page."""

    panel: tuple[Row, ...]
    worst: tuple[Row, ...]
    columns: int
    """Pairs of tiles in a row of the panel."""
    problems: tuple[str, ...]


def gallery(groups: Sequence[Group], palette: Palette, *, most_runs: int = 4) -> Gallery:
    """The fixed panel under all groups, and the worst images of the best group.

    Args:
        groups: the runs; of each group the best run is shown.
        palette: colour of each class.
        most_runs: groups that fit beside each other.
    """
    shown = [g for g in groups if g.representative.result is not None][:most_runs]
    if not shown:
        return Gallery((), (), 0, ())
    problems: list[str] = []
    named = [(group.label if len(shown) > 1 else "", group.representative) for group in shown]
    panel = _entries(named[0][1], "panel")
    best = max(named, key=lambda pair: -1.0 if pair[1].miou is None else pair[1].miou)
    worst = sorted(_entries(best[1], "worst"), key=lambda e: 2.0 if e.miou is None else e.miou)
    width = _width(len(panel) * 2 * (1 + len(shown)) + len(worst) * 4)
    rows = [_row(entry, named, palette, width, problems) for entry in panel]
    low = [_row(entry, [("", best[1])], palette, width, problems) for entry in worst]
    return Gallery(
        tuple(row for row in rows if row),
        tuple(row for row in low if row),
        1 + len(shown),
        tuple(dict.fromkeys(problems)),
    )


def colour_css(colour: tuple[int, int, int]) -> str:
    """An RGB colour as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def error_map(image: Bytes, truth: Bytes, prediction: Bytes, ignore_index: int) -> Bytes:
    """The pale grey image with wrong pixels in `WRONG` and unlabelled ones in `IGNORED`.

    Args:
        image: (H, W, 3).
        truth: (H, W) class ids.
        prediction: (H, W) class ids.
        ignore_index: label that is not scored.
    """
    grey = image.astype(np.float32).mean(axis=2, keepdims=True)
    picture = np.repeat(150 + 0.36 * grey, 3, axis=2)
    labelled = truth != ignore_index
    picture[~labelled] = 0.35 * picture[~labelled] + 0.65 * np.array(IGNORED)
    picture[labelled & (truth != prediction)] = WRONG
    return picture.round().astype(np.uint8)


def _entries(run: Run, role: str) -> list[ImageEntry]:
    images = run.result.images if run.result else ()
    return [entry for entry in images if entry.role == role and entry.files]


def _row(
    entry: ImageEntry,
    named: Sequence[tuple[str, Run]],
    palette: Palette,
    width: int,
    problems: list[str],
) -> Row | None:
    pictures: list[Picture] = []
    scores = []
    for label, run in named:
        images = run.result.images if run.result else ()
        own = next((e for e in images if e.id == entry.id and e.files), None)
        if own is None:
            continue
        stored = number(run.dataset.get("ignore_index"))
        ignore_index = 255 if stored is None else int(stored)
        try:
            image, truth, prediction = _read(own, width)
        except (OSError, ValueError, SyntaxError):
            problems.append(f"pictures of {own.id} in {run.folder.name} cannot be read")
            continue
        small = image.shape[1] < CRISP_WIDTH
        if not pictures:
            pictures.append(Picture("Image", jpeg(image)))
            pictures.append(Picture("Ground truth", _png(truth, palette), small))
        name = f"{label}: " if label else ""
        errors = error_map(image, truth, prediction, ignore_index)
        pictures.append(Picture(f"{name}prediction", _png(prediction, palette), small))
        pictures.append(Picture(f"{name}errors", jpeg(errors), small))
        if own.miou is not None:
            scores.append(f"{name}{100 * own.miou:.1f} %")
    if not pictures:
        return None
    if not named[0][0]:
        pictures = [replace(p, caption=p.caption.capitalize()) for p in pictures]
    return Row(entry.id, ", ".join(scores), entry.miou, tuple(pictures))


def _read(entry: ImageEntry, width: int) -> tuple[Bytes, Bytes, Bytes]:
    """Image, ground truth and prediction at one size, at most `width` wide."""
    with Image.open(entry.files["image"]) as file:
        image = file.convert("RGB")
    size = (min(width, image.width), max(1, round(image.height * min(1, width / image.width))))
    labels = []
    for kind in ("truth", "pred"):
        with Image.open(entry.files[kind]) as file:
            if file.mode not in ("L", "P"):
                raise ValueError("a label map has one byte a pixel")
            labels.append(np.asarray(file.resize(size, Image.Resampling.NEAREST)))
    pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS))
    return pixels, labels[0], labels[1]


def jpeg(pixels: Bytes) -> str:
    """A photograph (H, W, 3) as a data URI."""
    stream = io.BytesIO()
    # Full colour resolution, or the edges of wrong regions smear.
    Image.fromarray(pixels).save(stream, "JPEG", quality=80, subsampling=0, optimize=True)
    return _data_uri("image/jpeg", stream)


def _png(labels: Bytes, palette: Palette) -> str:
    colours = [*palette, *[IGNORED] * (256 - len(palette))][:256]
    picture = Image.fromarray(labels)
    picture.putpalette([level for colour in colours for level in colour])
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return _data_uri("image/png", stream)


def _data_uri(kind: str, stream: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _width(pictures: int) -> int:
    return next((width for most, width in WIDTHS if pictures <= most), SMALLEST)
