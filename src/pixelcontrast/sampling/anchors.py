"""Which pixels become anchors or memory entries, balanced over images and classes.

Positions are chosen first, as numbers; `gather_pixels` then fetches all embeddings at once. No
step depends on a value the host would have to read back, so the device never has to wait.
One sort serves everything that is drawn from the same labels: see `PixelPool`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True, slots=True)
class AnchorSample:
    """Chosen pixels; a fixed number of rows, of which the valid ones are meant.

    Rows that are not valid point to some pixel, which must not be used.
    """

    index: Tensor
    """(N,) int64 flat position image * h * w + row * w + column."""
    labels: Tensor
    """(N,) int64 class; -1 where not valid, so that losses leave the row out."""
    part: Tensor | None
    """(N,) int64, odd: the pixel was predicted wrongly; None: nobody asked."""
    pixels: int
    """h * w"""

    @property
    def valid(self) -> Tensor:
        """(N,) bool."""
        return self.labels >= 0

    @property
    def image(self) -> Tensor:
        """(N,) int64 number of the image within the batch."""
        return self.index // self.pixels

    @property
    def hard(self) -> Tensor:
        """(N,) bool: the row is valid and its pixel was predicted wrongly."""
        if self.part is None:
            return torch.zeros_like(self.labels, dtype=torch.bool)
        return self.part % 2 > (self.labels < 0)


@dataclass(frozen=True, slots=True)
class PixelPool:
    """All usable pixels, sorted by class, image and easy before hard, in random order within.

    What is drawn from one pool is drawn from the same random order.
    """

    order: Tensor
    """(B * P,) int64 flat positions, ignored pixels first and last."""
    starts: Tensor
    """(2 * C * B + 1,) int64 where each part (class, image, easy or hard) starts in `order`."""
    images: int
    """B"""

    @classmethod
    def build(
        cls,
        labels: Tensor,
        predictions: Tensor | None,
        *,
        num_classes: int,
        ignore_index: int = 255,
        generator: Generator,
    ) -> PixelPool:
        """Sort the pixels once, by their part and 32 random bits.

        Where the parts start is found in the sorted result, so that nothing is counted with
        atomic additions.

        Args:
            labels: (B, h, w) or (B, P) class ids of any integer type; values outside [0, C)
                count as ignored.
            predictions: the same shape, predicted class ids; None takes every pixel as easy.
            num_classes: C.
            ignore_index: the label that is never drawn.
            generator: source of randomness, on the device of `labels`.
        """
        images, parts = labels.shape[0], 2 * labels.shape[0] * num_classes
        # Outside [0, C) lie pixels before the first part and after the last.
        label = labels.flatten(1).long().clamp(-1, num_classes)
        if 0 <= ignore_index < num_classes:
            label = label.masked_fill(label == ignore_index, num_classes)
        first = torch.arange(0, 2 * images, 2, device=label.device)[:, None]
        part = first.add(label, alpha=2 * images)
        if predictions is not None:
            part += predictions.reshape(label.shape) != label
        noise = torch.randint(1 << 32, part.shape, generator=generator, device=part.device)
        ordered, order = noise.add_(part, alpha=1 << 32).flatten().sort(stable=True)
        borders = torch.arange(0, (parts + 1) << 32, 1 << 32, device=part.device)
        return cls(order, torch.searchsorted(ordered, borders), images)

    def anchors(
        self,
        *,
        max_anchors: int = 1024,
        max_views: int = 100,
        min_pixels: int | None = None,
        hard_fraction: float = 0.5,
        generator: Generator,
    ) -> AnchorSample:
        """Segmentation-aware anchors; see `sample_anchors`."""
        easy, hard = self.starts.diff().view(-1, 2).unbind(1)
        parts = 2 * easy.numel()
        size = easy + hard
        if min_pixels is not None:
            size = size * (size >= min_pixels)
        total = size.count_nonzero()
        n_view = (max_anchors // total.clamp(min=1)).clamp(1, max_views)
        amount = torch.minimum(size, n_view)
        # Rounding down, for which 0.29 * 100 must not be 28.999; by chance for one view.
        extra = torch.rand(size.shape, generator=generator, device=size.device)
        wanted = extra.masked_fill_(n_view > 1, 1e-4).add_(amount, alpha=hard_fraction).long()
        take_hard = wanted.clamp(amount - easy, hard)
        take = torch.stack([amount - take_hard, take_hard], dim=1).flatten()

        # Row r belongs to the part into whose share of the rows it falls, the surplus to none.
        rows = min(max(max_anchors, parts // 2), parts // 2 * max_views, self.order.numel())
        row = torch.arange(rows, device=take.device)
        ends = take.cumsum(0)
        source = torch.searchsorted(ends, row, right=True)
        position = row + (self.starts - F.pad(ends, (1, 0)))[source]
        return AnchorSample(
            index=self._look_up(position),
            labels=(source // (2 * self.images)).masked_fill(source == parts, -1),
            part=source,
            pixels=self.order.numel() // self.images,
        )

    def per_class(self, amount: int, *, generator: Generator) -> AnchorSample:
        """Random pixels of every class of every image; see `sample_per_class`.

        They are taken at equal distances from a random start on, over easy and hard pixels: all
        are equally likely, none is taken twice, both kinds in proportion.
        """
        starts = self.starts[::2, None]
        size = starts.diff(dim=0)
        place = torch.arange(amount, device=size.device)
        shift = torch.rand(size.shape, generator=generator, device=size.device)
        # In whole numbers: over all shifts and places, every pixel is met equally often.
        spread = (place * size + (shift * size).long()) // size.clamp(1, amount)
        group = torch.arange(spread.numel(), device=size.device)
        labels = (group // (amount * self.images)).masked_fill((place >= size).flatten(), -1)
        return AnchorSample(
            index=self._look_up((starts[:-1] + spread).flatten()),
            labels=labels,
            part=None,
            pixels=self.order.numel() // self.images,
        )

    def _look_up(self, position: Tensor) -> Tensor:
        """Rows that are not valid may point past the end; what they find is not used."""
        return self.order[position.clamp(max=self.order.numel() - 1)]


def sample_anchors(
    labels: Tensor,
    predictions: Tensor | None,
    *,
    num_classes: int,
    ignore_index: int = 255,
    max_anchors: int = 1024,
    max_views: int = 100,
    min_pixels: int | None = None,
    hard_fraction: float = 0.5,
    generator: Generator,
) -> AnchorSample:
    """Segmentation-aware anchors: per image and class equally many, half of them mispredicted.

    Wang et al., "Exploring Cross-Image Pixel Contrast" (ICCV 2021), with the quotas of the
    authors' code. A group is one class in one image, `total` the number of groups with at least
    `min_pixels` pixels. Each contributes `n_view = max_anchors // total` pixels, at least 1 and
    at most `max_views`: `floor(hard_fraction * n_view)` of them hard, the rest easy, and where
    one kind runs short the other fills up. A group with fewer than n_view pixels contributes
    all. With n_view = 1 the pixel is hard with probability `hard_fraction`. Pixels are drawn
    without replacement.

    Without any group, no row is valid.

    Args:
        labels: (B, h, w) or (B, P) class ids, of any integer type.
        predictions: the same shape, predicted class ids; None takes every pixel as easy, that
            is, draws uniformly within a group.
        num_classes: C.
        ignore_index: the label that is never sampled.
        max_anchors: budget of the batch; 1024 in the authors' configurations. It is exceeded
            only when there are more groups than that, for each gives one.
        max_views: most pixels of a group; 100 in the authors' configurations.
        min_pixels: groups with fewer pixels are left out; None leaves out nothing, since small
            objects need the contrast most. The authors' code has `max_views + 1`.
        hard_fraction: share of hard pixels; 0.5 in the paper, 1 takes as many as there are.
        generator: source of randomness, on the device of `labels`.

    Returns:
        Valid rows first, sorted by class, then image, easy before hard.
    """
    pool = PixelPool.build(
        labels,
        predictions,
        num_classes=num_classes,
        ignore_index=ignore_index,
        generator=generator,
    )
    return pool.anchors(
        max_anchors=max_anchors,
        max_views=max_views,
        min_pixels=min_pixels,
        hard_fraction=hard_fraction,
        generator=generator,
    )


def sample_per_class(
    labels: Tensor,
    per_class: int,
    *,
    num_classes: int,
    ignore_index: int = 255,
    generator: Generator,
) -> AnchorSample:
    """Up to `per_class` random pixels of every class of every image, to be remembered.

    Args:
        labels: (B, h, w) or (B, P) class ids, of any integer type.
        per_class: V of Wang et al. (ICCV 2021), 10 there.
        num_classes: C.
        ignore_index: the label that is never sampled.
        generator: source of randomness, on the device of `labels`.

    Returns:
        C * B * per_class rows sorted by class and image, `hard` nowhere set.
    """
    pool = PixelPool.build(
        labels, None, num_classes=num_classes, ignore_index=ignore_index, generator=generator
    )
    return pool.per_class(per_class, generator=generator)


def gather_pixels(maps: Tensor, index: Tensor) -> Tensor:
    """The vectors of the chosen pixels, by one gather whose backward is one scatter.

    Args:
        maps: (B, D, h, w) or (B, D, P).
        index: (N,) flat positions as in `AnchorSample.index`.

    Returns:
        (N, D)
    """
    flat = maps.flatten(2)
    pixels = flat.shape[2]
    return flat[index // pixels, :, index % pixels]
