"""Contrastive pretraining with labels: within one image, across two, over the batch.

Zhao et al., "Contrastive Learning for Label Efficient Semantic Segmentation" (ICCV 2021;
arXiv 2012.06985). An image and its colour-distorted copy share their geometry and so their
labels: anchors are pixels of the image, the pixels they are contrasted with those of the copies.
Pixels without a label leave every role and every count. Memory is linear in the number of
pixels, so maps need not shrink.
Letters: B batch, D embedding, H W image, h w feature map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.losses.maps import subsample_labels
from pixelcontrast.losses.pixel_info_nce import pixel_info_nce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixelcontrast.losses.problem import Backend, Denominator

TEMPERATURE = 0.07
"""Value of the paper and of the released code."""


def within_image_loss(
    embeddings_BDhw: Tensor,
    distorted_BDhw: Tensor,
    labels_BHW: Tensor,
    *,
    temperature: float = TEMPERATURE,
    denominator: Denominator = "all",
    symmetric: bool = False,
    ignore_index: int | None = 255,
    backend: Backend = "auto",
) -> Tensor:
    """Pixels of each image against those of its distorted copy ("single image" in arXiv v2).

    The mean over images with a labelled pixel of the mean over their pixels.

    Args:
        embeddings_BDhw: unit vectors of the images.
        distorted_BDhw: unit vectors of the copies.
        labels_BHW: class ids, sub-sampled to (h, w) with corners kept.
        temperature: 0.07 in the paper.
        denominator: "all" as in the paper; "negatives" as in the released code, where a
            positive meets the negatives alone and the infimum is 0.
        symmetric: average with anchors and keys exchanged.
        ignore_index: class id without a role, besides negative ones.
        backend: see `pixel_info_nce`.

    Raises:
        ConfigError: maps that do not fit.
    """
    partners = torch.arange(len(embeddings_BDhw))
    return cross_image_loss(
        embeddings_BDhw,
        distorted_BDhw,
        labels_BHW,
        partners,
        temperature=temperature,
        denominator=denominator,
        symmetric=symmetric,
        ignore_index=ignore_index,
        backend=backend,
    )


def cross_image_loss(
    embeddings_BDhw: Tensor,
    distorted_BDhw: Tensor,
    labels_BHW: Tensor,
    partners_B: Tensor,
    *,
    own_images: Sequence[int] | None = None,
    temperature: float = TEMPERATURE,
    denominator: Denominator = "all",
    symmetric: bool = False,
    ignore_index: int | None = 255,
    backend: Backend = "auto",
) -> Tensor:
    """Pixels of each image against its distorted copy and that of a partner image.

    Positives come from both copies, negatives from the own one alone: the authors saw a drop
    with negatives of other images. Where the partner lacks the class, or an image is its own
    partner, this is `within_image_loss`.

    Args:
        embeddings_BDhw: unit vectors of the images.
        distorted_BDhw: unit vectors of the copies.
        labels_BHW: class ids, sub-sampled to (h, w) with corners kept.
        partners_B: number of the partner of each image, on the host (`draw_partners`).
        own_images: images whose share of the mean is returned, for one of several processes
            that share the work; None: all.
        temperature: 0.07 in the paper.
        denominator: see `within_image_loss`.
        symmetric: average with anchors and keys exchanged.
        ignore_index: class id without a role, besides negative ones.
        backend: see `pixel_info_nce`.

    Raises:
        ConfigError: maps that do not fit.
    """
    labels = _labels_like(embeddings_BDhw, distorted_BDhw, labels_BHW, ignore_index)
    anchors, copies = _rows(embeddings_BDhw), _rows(distorted_BDhw)
    directions = [(anchors, copies), (copies, anchors)] if symmetric else [(anchors, copies)]
    losses, partners = [], partners_B.tolist()
    for rows, keys in directions:
        for own in range(len(partners_B)) if own_images is None else own_images:
            # A loop over images, each a quadratic problem of its own.
            partner = partners[own]
            sources = [own] if own == partner else [own, partner]
            images = torch.arange(len(sources), device=labels.device)
            losses.append(
                pixel_info_nce(
                    rows[own],
                    labels[own],
                    torch.cat([keys[k] for k in sources]),
                    torch.cat([labels[k] for k in sources]),
                    temperature=temperature,
                    denominator=denominator,
                    anchor_images_N=torch.zeros_like(labels[own]),
                    key_images_K=images.repeat_interleave(labels.shape[1]),
                    negatives="all" if own == partner else "own_image",
                    backend=backend,
                )
            )
    used = (labels >= 0).any(1).sum() * len(directions)
    return torch.stack(losses).sum() / used.clamp_min(1)


def released_pair_loss(
    first_ND: Tensor,
    first_labels_N: Tensor,
    second_KD: Tensor | None = None,
    second_labels_K: Tensor | None = None,
    *,
    temperature: float = TEMPERATURE,
    ignore_index: int | None = 255,
    backend: Backend = "auto",
) -> Tensor:
    """The loss of the released code for one image or for a pair of images.

    Every pixel of both is an anchor, positives (the pixel itself among them) come from both,
    negatives from the own image, and each positive has a denominator of its own.

    Args:
        first_ND: vectors of one image.
        first_labels_N: their class ids.
        second_KD: vectors of the other image; None: within one image.
        second_labels_K: their class ids.
        temperature: 0.07 in the released code.
        ignore_index: class id without a role, besides negative ones.
        backend: see `pixel_info_nce`.
    """
    rows, labels, images = first_ND, first_labels_N, torch.zeros_like(first_labels_N)
    if second_KD is not None and second_labels_K is not None:
        rows = torch.cat([rows, second_KD])
        labels = torch.cat([labels, second_labels_K])
        images = torch.cat([images, torch.ones_like(second_labels_K)])
    return pixel_info_nce(
        rows,
        labels,
        rows,
        labels,
        temperature=temperature,
        denominator="negatives",
        anchor_images_N=images,
        key_images_K=images,
        negatives="all" if second_KD is None else "own_image",
        ignore_index=ignore_index,
        backend=backend,
    )


def batch_loss(
    embeddings_BDhw: Tensor,
    distorted_BDhw: Tensor,
    labels_BHW: Tensor,
    *,
    samples: int | None = 10_000,
    generator: torch.Generator | None = None,
    temperature: float = TEMPERATURE,
    denominator: Denominator = "all",
    symmetric: bool = False,
    ignore_index: int | None = 255,
    backend: Backend = "auto",
) -> Tensor:
    """All pixels of the batch as one bag, or a random choice of them.

    Args:
        embeddings_BDhw: unit vectors of the images.
        distorted_BDhw: unit vectors of the copies.
        labels_BHW: class ids, sub-sampled to (h, w) with corners kept.
        samples: labelled pixels drawn from the whole batch, 10,000 in the paper because of its
            quadratic memory; None takes all.
        generator: draws the pixels; on the device of the embeddings.
        temperature: 0.07 in the paper.
        denominator: see `within_image_loss`.
        symmetric: average with anchors and keys exchanged.
        ignore_index: class id without a role, besides negative ones.
        backend: see `pixel_info_nce`.

    Raises:
        ConfigError: maps that do not fit.
    """
    labels = _labels_like(embeddings_BDhw, distorted_BDhw, labels_BHW, ignore_index).flatten()
    rows, keys = _rows(embeddings_BDhw).flatten(0, 1), _rows(distorted_BDhw).flatten(0, 1)
    if samples is not None and samples < len(labels):
        # Labelled pixels first, in random order; a fixed size, so nothing waits for the device.
        luck = torch.rand(len(labels), generator=generator, device=labels.device)
        chosen = luck.masked_fill(labels < 0, -1.0).topk(samples).indices
        rows, keys, labels = rows[chosen], keys[chosen], labels[chosen]
    losses = [
        pixel_info_nce(
            left,
            labels,
            right,
            labels,
            temperature=temperature,
            denominator=denominator,
            backend=backend,
        )
        for left, right in ([(rows, keys), (keys, rows)] if symmetric else [(rows, keys)])
    ]
    return torch.stack(losses).mean()


def draw_partners(batch: int, generator: torch.Generator | None = None) -> Tensor:
    """(B,) a random partner for each image, never itself unless it is alone.

    Deviation: the released code permutes freely, so that an image may meet itself.

    Args:
        batch: number of images.
        generator: of the CPU.
    """
    order = torch.randperm(batch, generator=generator)
    partners = torch.empty_like(order)
    partners[order] = order.roll(1)
    return partners


def _rows(maps_BDhw: Tensor) -> Tensor:
    """(B, h w, D) from (B, D, h, w)."""
    return maps_BDhw.flatten(2).transpose(1, 2)


def _labels_like(
    embeddings: Tensor, distorted: Tensor, labels: Tensor, ignore_index: int | None
) -> Tensor:
    """(B, h w) int64 labels of the pixels of the maps, -1 for those without a role."""
    fits = embeddings.dim() == 4 and embeddings.shape == distorted.shape and labels.dim() == 3
    if not fits or len(labels) != len(embeddings):
        raise ConfigError(
            f"embeddings {tuple(embeddings.shape)}, distorted {tuple(distorted.shape)} and labels "
            f"{tuple(labels.shape)} do not fit",
            fix="pass two maps (B, D, h, w) of one shape and labels (B, H, W)",
        )
    size = (embeddings.shape[2], embeddings.shape[3])
    ids = subsample_labels(labels, size).flatten(1).long()
    return ids if ignore_index is None else ids.masked_fill(ids == ignore_index, -1)
