"""The contrast loss through the full similarity matrix: slow, obvious, the oracle of the tests.

Wang et al., "Exploring Cross-Image Pixel Contrast for Semantic Segmentation" (ICCV 2021), and
Zhao et al., "Contrastive Learning for Label Efficient Semantic Segmentation" (ICCV 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixelcontrast.losses.problem import AnchorTerms, Contrast, statistics_dtype
from pixelcontrast.losses.rowwise import row_terms


def naive_terms(contrast: Contrast) -> AnchorTerms:
    """Loss of each anchor by ordinary autograd; memory grows with anchors times keys."""
    dtype = statistics_dtype(contrast.anchors.dtype)
    with torch.autocast(contrast.anchors.device.type, enabled=False):
        anchors = contrast.anchors.to(dtype)
        keys, positive, negative = _pairs(contrast, anchors)
        logits = anchors @ keys.T * contrast.inv_temperature
        loss = row_terms(logits, positive, negative, contrast.denominator)
    return AnchorTerms(loss, positive.sum(1))


def _pairs(contrast: Contrast, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All keys, and which of them are positives and negatives of which anchor."""
    labels, images = contrast.labels, contrast.images
    vectors, key_labels, key_images, own = [], [], [], []
    if contrast.mutual:
        vectors.append(anchors)
        key_labels.append(labels)
        key_images.append(images)
        own.append(torch.eye(len(labels), dtype=torch.bool, device=labels.device))
    if contrast.keys is not None:
        vectors.append(contrast.keys.vectors.to(anchors.dtype))
        key_labels.append(contrast.keys.labels)
        key_images.append(contrast.keys.images)
        at = torch.arange(len(contrast.keys.labels), device=labels.device)
        mine = contrast.keys.own
        absent = torch.zeros(len(labels), len(at), dtype=torch.bool, device=labels.device)
        own.append(absent if mine is None else mine[:, None] == at)
    of_key = torch.cat(key_labels)
    pair = (labels[:, None] >= 0) & (of_key[None] >= 0) & ~torch.cat(own, 1)
    same = labels[:, None] == of_key[None]
    negative = pair & ~same
    if images is not None:
        negative = negative & (
            images[:, None] == torch.cat([i for i in key_images if i is not None])[None]
        )
    return torch.cat(vectors), pair & same, negative
