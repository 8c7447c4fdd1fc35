"""The HRNetV2 representation: all stages at the finest resolution, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pixelcontrast.models.blocks import conv_bn_relu, resize, size_of
from pixelcontrast.models.decoders.base import Decoded, Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class HRNetHead(Decoder):
    """Concatenation of all stages and one 1x1 convolution (Sun et al., 1904.04514, section 3.2).

    Taps: `fusion` (default: the concatenation, 720 channels for W48, PiCo's choice), `features`,
    `encoder`.
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
        fused = sum(channels)
        self.channels = width or fused
        self.tap_channels = {"fusion": fused}
        self.align_corners = align_corners
        self.mix = conv_bn_relu(fused, self.channels)

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> features at the shallowest stage's resolution."""
        size = size_of(stages[0])
        deeper = (resize(x, size, align_corners=self.align_corners) for x in stages[1:])
        fusion = torch.cat([stages[0], *deeper], dim=1)
        return Decoded(self.mix(fusion), {"fusion": fusion})
