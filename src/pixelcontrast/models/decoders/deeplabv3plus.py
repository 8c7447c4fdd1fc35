"""DeepLabV3+: ASPP features sharpened by a shallow stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from pixelcontrast.models.blocks import conv_bn_relu, resize, separable_conv_bn_relu, size_of
from pixelcontrast.models.decoders.aspp import ASPP
from pixelcontrast.models.decoders.base import Decoded, Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class DeepLabV3Plus(Decoder):
    """ASPP, up-sampled to the shallowest stage and fused with it (Chen et al., 1802.02611).

    The shallow stage is reduced to 48 channels (table 1) and the fusion refined by two plain 3x3
    convolutions of 256 channels (table 2), as the semi-supervised methods use them.

    Taps: `features` (default), `fusion` (the concatenation before the 3x3 convolutions), `aspp`,
    `encoder`.
    """

    default_stride = 16
    low_width = 48
    separable: ClassVar[bool] = False

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        width: int | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__(channels, strides)
        self.channels = width or 256
        self.align_corners = align_corners
        fused = self.channels + self.low_width
        self.tap_channels = {"aspp": self.channels, "fusion": fused}
        self.aspp = ASPP(channels[-1], self.channels, strides[-1], separable=self.separable)
        self.low = conv_bn_relu(channels[0], self.low_width)
        fine = separable_conv_bn_relu if self.separable else conv_bn_relu
        self.refine = nn.Sequential(
            fine(fused, self.channels, 3), fine(self.channels, self.channels, 3)
        )

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> features at the shallowest stage's resolution."""
        pooled = self.aspp(stages[-1])
        wide = resize(pooled, size_of(stages[0]), align_corners=self.align_corners)
        fusion = torch.cat([wide, self.low(stages[0])], dim=1)
        return Decoded(self.refine(fusion), {"aspp": pooled, "fusion": fusion})


class DeepLabV3PlusSeparable(DeepLabV3Plus):
    """The same with depthwise separable convolutions in place of the 3x3 ones.

    1802.02611, section 3.1: ASPP and decoder taken apart, as in the paper's fast models.
    """

    separable = True
