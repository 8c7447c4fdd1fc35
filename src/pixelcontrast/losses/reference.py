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
    vectors, key_labels, key_images = [], [], []
    if contrast.mutual:
        vectors.append(anchors)
        key_labels.append(contrast.labels)
        key_images.append(contrast.images)
    if contrast.keys is not None:
        vectors.append(contrast.keys.vectors.to(anchors.dtype))
        key_labels.append(contrast.keys.labels)
        key_images.append(contrast.keys.images)
    labels, of_key = contrast.labels[:, None], torch.cat(key_labels)
    same = labels == of_key
    positive = same & (labels >= 0)
    negative = ~same & (labels >= 0) & (of_key >= 0)
    if contrast.images is not None:
        images = torch.cat([ids for ids in key_images if ids is not None])
        negative = negative & (contrast.images[:, None] == images)
    if contrast.mutual:
        positive.diagonal().fill_(False)
    if contrast.keys is not None and contrast.keys.own is not None:
        first = len(contrast.labels) if contrast.mutual else 0
        at = torch.arange(len(of_key), device=labels.device) - first
        apart = (contrast.keys.own[:, None] != at) | (at < 0)
        positive, negative = positive & apart, negative & apart
    return torch.cat(vectors), positive, negative
