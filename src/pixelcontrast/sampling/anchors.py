"""Which pixels become anchors or memory entries, balanced over images and classes.

Positions are chosen first, as numbers; `gather_pixels` then fetches all embeddings at once. No
step depends on a value the host would have to read back, so the device never has to wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True, slots=True)
class AnchorSample:
    """Chosen pixels; a fixed number of rows, of which the valid ones are meant.

    Rows that are not valid point to some pixel of `image`, which must not be used.
    """

    index: Tensor
    """(N,) int64 flat position image * h * w + row * w + column."""
    labels: Tensor
    """(N,) int64 class; -1 where not valid, so that losses leave the row out."""
    valid: Tensor
    """(N,) bool."""
    image: Tensor
    """(N,) int64 number of the image within the batch."""
    hard: Tensor
    """(N,) bool: the pixel was predicted wrongly."""


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

    Labels outside [0, C) count as ignored. Without any group, no row is valid.

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
        Valid rows first, ordered by image, class, easy before hard.
    """
    images, groups = labels.shape[0], labels.shape[0] * num_classes
    wrong = None if predictions is None else predictions.reshape(images, -1) != labels.flatten(1)
    key = _group_of_pixel(labels, num_classes, ignore_index) * 2
    if wrong is not None:
        key = torch.where(key < 2 * groups, key + wrong.flatten(), key)
    order, starts = _shuffle_within_groups(key, 2 * groups, generator)

    easy, hard = starts.diff().view(groups, 2).unbind(1)
    size = easy + hard
    eligible = size >= max(min_pixels or 1, 1)
    n_view = (max_anchors // eligible.sum().clamp(min=1)).clamp(1, max_views)
    amount = torch.minimum(size, n_view) * eligible
    wanted = torch.floor(amount * hard_fraction + 1e-6).long()  # 0.29 * 100 is below 29 in binary
    coin = torch.rand(groups, generator=generator, device=labels.device) < hard_fraction
    wanted = torch.where(n_view == 1, coin.long(), wanted)
    take_hard = torch.minimum(torch.maximum(wanted, amount - easy), torch.minimum(hard, amount))
    take = torch.stack([amount - take_hard, take_hard], dim=1).flatten()

    rows = min(max(max_anchors, groups), groups * max_views, key.numel())
    ends = take.cumsum(0)
    slot = torch.arange(rows, device=labels.device)
    part = torch.searchsorted(ends, slot, right=True).clamp(max=2 * groups - 1)
    valid = slot < ends[-1]
    index = torch.where(valid, order[_inside(starts[part] + slot - (ends - take)[part], key)], 0)
    return AnchorSample(
        index=index,
        labels=torch.where(valid, part // 2 % num_classes, -1),
        valid=valid,
        image=index // (key.numel() // images),
        hard=valid & (part % 2 == 1),
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
        B * C * per_class rows ordered by image and class, `hard` nowhere set.
    """
    images, groups = labels.shape[0], labels.shape[0] * num_classes
    key = _group_of_pixel(labels, num_classes, ignore_index)
    order, starts = _shuffle_within_groups(key, groups, generator)
    slot = torch.arange(per_class, device=labels.device)
    valid = (slot < starts.diff()[:, None]).flatten()
    index = order[_inside(starts[:-1, None] + slot, key).flatten()]
    group = torch.arange(valid.numel(), device=labels.device) // per_class
    image = group // num_classes
    return AnchorSample(
        index=torch.where(valid, index, image * (key.numel() // images)),
        labels=torch.where(valid, group % num_classes, -1),
        valid=valid,
        image=image,
        hard=torch.zeros_like(valid),
    )


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


def _group_of_pixel(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """(B * P,) number image * C + class of every pixel; B * C where it is ignored."""
    label = labels.flatten(1).long()
    images = label.shape[0]
    usable = (label != ignore_index) & (label >= 0) & (label < num_classes)
    first = torch.arange(images, device=label.device)[:, None] * num_classes
    return torch.where(usable, first + label, images * num_classes).flatten()


def _shuffle_within_groups(key: Tensor, groups: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Pixels sorted by group, at random inside each, and the (groups + 1,) starts of the groups.

    One sort of group and 32 random bits; the starts are found in its result, so that nothing is
    counted with atomic additions.
    """
    noise = torch.randint(1 << 32, key.shape, generator=generator, device=key.device)
    ordered, order = torch.sort((key << 32) | noise, stable=True)
    starts = torch.searchsorted(ordered, torch.arange(groups + 1, device=key.device) << 32)
    return order, starts


def _inside(position: Tensor, key: Tensor) -> Tensor:
    """Positions of invalid rows may lie past the end; they are masked after the look-up."""
    return position.clamp(max=key.numel() - 1)
