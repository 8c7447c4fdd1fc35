"""PiCIE's feature pyramid: laterals summed, nothing after them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from pixelcontrast.models.decoders.base import Decoded, Decoder
from pixelcontrast.models.decoders.fpn import top_down_sum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class PiCIEFPN(Decoder):
    """1x1 laterals with bias, summed from deep to shallow (Cho et al., CVPR 2021, released code).

    No smoothing, norm or activation: features may point in every direction, as clustering them by
    their angles needs. With a ResNet-18 and width 128 it has 123,392 parameters.

    Taps: `features` (default), `encoder`.
    """

    default_stride = 32

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        width: int | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__(channels, strides)
        self.channels = width or 128
        self.tap_channels = {}
        self.align_corners = align_corners
        self.laterals = nn.ModuleList(nn.Conv2d(c, self.channels, 1) for c in channels)

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> features at the shallowest stage's resolution."""
        return Decoded(top_down_sum(self.laterals, stages, align_corners=self.align_corners))
