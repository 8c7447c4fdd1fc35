"""Point at a pixel: where in other images does the network see the same?

Letters: H W image, h w feature map.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.data import read_image
from pixelcontrast.engine.contact_sheets import write_sheet
from pixelcontrast.engine.predict import find_images
from pixelcontrast.evaluation import NearestImages
from pixelcontrast.evaluation.inference import resized

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from pixelcontrast.engine.predict import Predictor


@dataclass(frozen=True, slots=True)
class Similar:
    """The pixel of an image that is most like the one pointed at."""

    image: Path
    row: int
    """In pixels of the image; the middle of a cell of the feature map."""
    column: int
    similarity: float
    """Cosine of the features."""


def find_similar(
    predictor: Predictor,
    image: str | Path,
    at: tuple[int, int],
    among: Iterable[str | Path],
    *,
    count: int = 8,
) -> list[Similar]:
    """The images with the pixels most like one of `image`, the most similar first.

    Every image is ranked by its single best pixel and named once. Features are those before the
    classifier, at the first scale of the network's inference; `image` itself is left out.

    Args:
        predictor: the network.
        image: the file that is pointed at.
        at: row and column in its pixels.
        among: images and folders.
        count: images that are returned at most.

    Raises:
        ConfigError: `at` lies outside of the image, or `count` is below 1.
        DataError: an image cannot be read, or there is none to look into.
    """
    if count < 1:
        raise ConfigError(f"count = {count}", fix="ask for 1 image or more")
    pixels = read_image(image)
    for place, side in zip(at, pixels.shape[:2], strict=True):
        if not 0 <= place < side:
            raise ConfigError(
                f"row {at[0]}, column {at[1]} is outside of the image",
                where=image,
                fix=f"rows go from 0 to {pixels.shape[0] - 1}, columns to {pixels.shape[1] - 1}",
            )
    query = _features(predictor, pixels)
    row, column = (
        place * cells // side
        for place, cells, side in zip(at, query.shape[2:], pixels.shape[:2], strict=True)
    )
    search = NearestImages(query[:, :, row, column], count)
    scales: dict[str, tuple[float, float]] = {}
    for path, _ in find_images(among):
        if path.resolve() == Path(image).resolve():
            continue
        other = read_image(path)
        features = _features(predictor, other)
        height, width = features.shape[2:]
        scales[str(path)] = (other.shape[0] / height, other.shape[1] / width)
        search.add(features, [str(path)])
    if not scales:
        raise DataError("there is no other image to look into", where=image)
    return [
        Similar(
            Path(hit.image),
            int((hit.row + 0.5) * scales[hit.image][0]),
            int((hit.column + 0.5) * scales[hit.image][1]),
            hit.similarity,
        )
        for hit in search.hits()[0]
    ]


def write_similar(
    path: Path, image: str | Path, at: tuple[int, int], found: Sequence[Similar]
) -> None:
    """One picture: the image pointed at, then those found, each with its pixel encircled."""
    places = [(Path(image), at), *((one.image, (one.row, one.column)) for one in found)]
    write_sheet(path, [encircled(read_image(file), place) for file, place in places])


def encircled(image: NDArray[np.uint8], at: tuple[int, int]) -> NDArray[np.uint8]:
    """The image (H, W, 3) with a white circle in a black one around a pixel."""
    marked = image.copy()
    radius = max(2, min(image.shape[:2]) // 16)
    for colour, width in ((0, 3), (255, 1)):
        thick = width * max(1, radius // 6)
        cv2.circle(marked, (at[1], at[0]), radius, (colour,) * 3, thick, cv2.LINE_AA)
    return marked


@torch.no_grad()
def _features(predictor: Predictor, pixels: NDArray[np.uint8]) -> Tensor:
    """(1, D, h, w)."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    shown = resized(image.to(predictor.device), predictor.inference.scales[0])
    features: Tensor = predictor.segmentor(shown).features
    return features
