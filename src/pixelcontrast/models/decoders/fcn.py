"""Fully convolutional head: one 3x3 convolution on the deepest stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelcontrast.models.blocks import conv_bn_relu
from pixelcontrast.models.decoders.base import Decoded, Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class FCN(Decoder):
    """A 3x3 convolution to a quarter of the width (after Long et al., 1411.4038).

    The layout of torchvision's `fcn_resnet50` (512 channels for a ResNet-50), on an encoder dilated
    to output stride 8; the paper's own VGG network with learnt up-sampling is no longer in use.

    Taps: `encoder` (default: the backbone output, as for DeepLabV3), `features`.
    """

    default_stride = 8
    default_tap = "encoder"

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        width: int | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__(channels, strides)
        self.channels = width or max(1, channels[-1] // 4)
        self.tap_channels = {}
        self.mix = conv_bn_relu(channels[-1], self.channels, 3)

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> features at the deepest stage's resolution."""
        return Decoded(self.mix(stages[-1]))
