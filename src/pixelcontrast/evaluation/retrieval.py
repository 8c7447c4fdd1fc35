"""Where in a set of images are the pixels most like a given one?"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


class Hit(NamedTuple):
    """The pixel of an image that is most like a query."""

    image: str
    row: int
    """On the feature map."""
    column: int
    similarity: float
    """Cosine."""


class NearestImages:
    """For every query vector the images with the most similar pixels; one pixel speaks for each.

    Images are ranked by their single best pixel over the whole set; of equal ones the image that
    came first is kept.

    Args:
        queries: (Q, D); their direction counts.
        count: images kept for each query.
    """

    def __init__(self, queries: Tensor, count: int) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        self.count = count
        self._queries = _unit(queries, dim=1)
        self._names: list[str] = []
        empty = torch.empty(len(queries), 0, device=queries.device)
        self._similarity = empty
        self._image, self._place = empty.long(), empty.long()
        self._width: list[int] = []

    def add(self, features: Tensor, images: Sequence[str]) -> None:
        """Offer the pixels of some images.

        Args:
            features: (B, D, h, w); their direction counts.
            images: B names.
        """
        pixels = _unit(features, dim=1).flatten(2)
        if len(images) != len(pixels):
            raise ValueError(f"{len(images)} names for {len(pixels)} images")
        best = [(self._queries @ image).max(dim=1) for image in pixels]
        if not best:
            return
        number = torch.arange(len(best), device=pixels.device) + len(self._names)
        self._names += images
        self._width += [features.shape[-1]] * len(best)
        similarity = torch.cat([self._similarity, torch.stack([b.values for b in best], 1)], 1)
        place = torch.cat([self._place, torch.stack([b.indices for b in best], 1)], 1)
        image = torch.cat([self._image, number.expand(len(self._queries), -1)], 1)
        order = similarity.argsort(dim=1, descending=True, stable=True)[:, : self.count]
        self._similarity = similarity.gather(1, order)
        self._place, self._image = place.gather(1, order), image.gather(1, order)

    def hits(self) -> list[list[Hit]]:
        """For every query its images, the most similar first; fewer if there were fewer."""
        columns = (self._image, self._place, self._similarity)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [
            [
                Hit(self._names[i], place // self._width[i], place % self._width[i], similarity)
                for i, place, similarity in zip(*row, strict=True)
            ]
            for row in rows
        ]


def _unit(vectors: Tensor, dim: int) -> Tensor:
    return F.normalize(vectors.detach().float(), dim=dim, eps=1e-12)
