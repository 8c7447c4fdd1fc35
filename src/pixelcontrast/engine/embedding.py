"""Features of an evaluation as points in the plane, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pixelcontrast.evaluation import principal_plane, tsne_plane

if TYPE_CHECKING:
    from torch import Tensor

EXTENT = 1000
"""Coordinates are whole numbers from 0 to this: finer than any picture on a page."""


def embedding_pictures(
    samples: Mapping[str, tuple[Tensor, Tensor]], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Two pictures of the first and the last layer: principal components and t-SNE.

    These are what the classifier sees and what a contrast compares. t-SNE needs scikit-learn.

    Args:
        samples: for each layer features (N, F) and their classes (N,); see `Evaluation.samples`.
        seed: of t-SNE.

    Returns:
        For each of the two with features its name, the classes, the coordinates and the share of
        the variance that the principal components hold, as plain values for JSON.
    """
    pictures = []
    for layer in dict.fromkeys([*samples][:1] + [*samples][-1:]):
        vectors, labels = samples[layer]
        if len(vectors) < 2:
            continue
        unit = vectors.float() / vectors.float().norm(dim=1, keepdim=True)
        plane, share = principal_plane(unit)
        near = tsne_plane(unit, seed=seed)
        pictures.append(
            {
                "layer": layer,
                "labels": labels.tolist(),
                "pca": _whole(plane),
                "pca_share": share,
                "tsne": None if near is None else _whole(near),
            }
        )
    return pictures


def _whole(plane: Tensor) -> list[list[int]]:
    """Coordinates moved and scaled, both axes alike, into a square of whole numbers."""
    low, high = plane.amin(dim=0), plane.amax(dim=0)
    size = float((high - low).max()) or 1.0
    centred = (plane - (low + high) / 2) / size + 0.5
    points: list[list[int]] = (centred * EXTENT).round().int().tolist()
    return points
