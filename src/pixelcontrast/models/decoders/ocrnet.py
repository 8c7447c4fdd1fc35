"""OCRNet: every pixel is described together with the object it probably belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pixelcontrast.models.blocks import conv_bn_relu, resize, size_of
from pixelcontrast.models.decoders.base import ClassHead, Decoded, Decoder, Scores
from pixelcontrast.models.heads import Classifier

if TYPE_CHECKING:
    from collections.abc import Sequence

_DILATED_STRIDE = 8


class OCRNet(Decoder):
    """Object-contextual representations (Yuan, Chen and Wang, 1909.11065, section 3.3).

    A multi-resolution encoder, such as HRNet, gives the concatenation of all stages (720 channels
    for W48), from which both the pixel representations and the soft object regions are computed. On
    an encoder dilated to output stride 8, such as the paper's ResNet-101, the regions come from the
    last but one stage and the pixels from the deepest. Pixels have 512 channels.

    The scores of the soft regions are `auxiliary` ones: the cross-entropy of section 3.3, with
    weight 0.4, is that of `SegmentationLossConfig.auxiliary_weight`.

    Taps: `fusion` (default: the concatenation, before any convolution, PiCo's choice; the deepest
    stage where the encoder is dilated), `features` (the pixels), `encoder`.
    """

    default_stride = 32
    default_tap = "fusion"

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        width: int | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__(channels, strides)
        self.channels = width or 512
        self.align_corners = align_corners
        self.dilated = strides[-1] <= _DILATED_STRIDE
        source = channels[-1] if self.dilated else sum(channels)
        self.region_channels = channels[-2] if self.dilated else source
        self.tap_channels = {"fusion": source}
        self.smooth = conv_bn_relu(source, self.channels, 3)

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> features at the resolution of the finest (dilated: deepest) stage."""
        if self.dilated:
            fusion, regions = stages[-1], stages[-2]
        else:
            size = size_of(stages[0])
            deeper = (resize(x, size, align_corners=self.align_corners) for x in stages[1:])
            fusion = regions = torch.cat([stages[0], *deeper], dim=1)
        return Decoded(self.smooth(fusion), {"fusion": fusion}, context=regions)

    def build_classifier(self, num_classes: int, dropout: float) -> ObjectContext:
        """Soft regions, their representations, and the class scores."""
        # The released heads: 1x1 of equal width for HRNet, 3x3 to 512 channels for ResNet.
        inner, kernel = (self.channels, 3) if self.dilated else (self.region_channels, 1)
        regions = nn.Sequential(
            conv_bn_relu(self.region_channels, inner, kernel), nn.Conv2d(inner, num_classes, 1)
        )
        return ObjectContext(regions, self.channels, num_classes, dropout)


class ObjectContext(ClassHead):
    """Pixels, augmented by the representations of soft object regions (equations 1 to 5).

    The key width is half the width of the pixels (released code: 256 of 512).

    Args:
        regions: region map to (B, C, h, w) scores of the soft object regions.
        width: F, channels of the pixels.
        num_classes: C.
        dropout: share of dropped channels before the classifier.
    """

    def __init__(self, regions: nn.Module, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        key = max(1, width // 2)
        self.regions = regions
        self.query = nn.Sequential(conv_bn_relu(width, key), conv_bn_relu(key, key))
        self.key = nn.Sequential(conv_bn_relu(width, key), conv_bn_relu(key, key))
        self.value = conv_bn_relu(width, key)
        self.context = conv_bn_relu(key, width)
        self.augment = conv_bn_relu(2 * width, width)
        self.classify = Classifier(width, num_classes, dropout)

    def forward(self, decoded: Decoded) -> Scores:
        """Class scores, and in training those of the soft regions."""
        pixels = decoded.features
        soft = self.regions(decoded.context)
        objects = region_means(pixels, soft)[..., None]  # a map, so that 1x1 convolutions apply
        query = self.query(pixels).flatten(2).transpose(1, 2)
        key, value = self.key(objects).flatten(2), self.value(objects).flatten(2)
        relation = (query @ key * key.shape[1] ** -0.5).float().softmax(2).to(value.dtype)
        mixed = value @ relation.transpose(1, 2)
        context = self.context(mixed.view(*mixed.shape[:2], *size_of(pixels)))
        logits = self.classify(self.augment(torch.cat([context, pixels], dim=1)))
        return Scores(logits, auxiliary=(soft,) if self.training else ())


def region_means(pixels: Tensor, scores: Tensor) -> Tensor:
    """Mean representation of each soft object region (equation 2).

    Args:
        pixels: (B, F, h, w).
        scores: (B, C, h, w); the softmax over all pixels weights them.

    Returns:
        (B, F, C).
    """
    weights = scores.flatten(2).float().softmax(2).to(pixels.dtype)
    return pixels.flatten(2) @ weights.transpose(1, 2)
