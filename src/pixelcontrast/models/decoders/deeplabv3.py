"""DeepLabV3: atrous spatial pyramid pooling on the deepest stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelcontrast.models.blocks import conv_bn_relu
from pixelcontrast.models.decoders.aspp import ASPP
from pixelcontrast.models.decoders.base import Decoded, Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class DeepLabV3(Decoder):
    """ASPP and a 3x3 convolution (Chen et al., 1706.05587; layout of torchvision).

    Taps: `encoder` (default: the backbone output before ASPP, PiCo's choice), `aspp`, `features`.
    """

    default_stride = 16
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
        self.channels = width or 256
        self.tap_channels = {"aspp": self.channels}
        self.aspp = ASPP(channels[-1], self.channels, strides[-1])
        self.smooth = conv_bn_relu(self.channels, self.channels, 3)

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> features at the deepest stage's resolution."""
        pooled = self.aspp(stages[-1])
        return Decoded(self.smooth(pooled), {"aspp": pooled})
