"""SegFormer's head: linear maps of all stages, fused by another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from pixelcontrast.models.blocks import conv_bn_relu, resize, size_of
from pixelcontrast.models.decoders.base import Decoded, Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class SegFormerHead(Decoder):
    """All-MLP decoder (Xie et al., 2105.15203, section 3.2 and equation 4).

    Every stage is mapped to 256 channels, brought to the finest resolution, and the concatenation,
    deep to shallow, mapped to 256 channels again. The paper takes 256 for MiT-B0 and B1 and 768 for
    B2 to B5, whose stages are as wide as B1's: set `decoder_channels` to 768 for those.

    Taps: `features` (default), `fusion` (the concatenation, 4 times as wide), `encoder`.
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
        self.channels = width or 256
        self.align_corners = align_corners
        fused = len(channels) * self.channels
        self.tap_channels = {"fusion": fused}
        self.linears = nn.ModuleList(nn.Conv2d(c, self.channels, 1) for c in channels)
        self.fuse = conv_bn_relu(fused, self.channels)

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> features at the shallowest stage's resolution."""
        size = size_of(stages[0])
        maps = [linear(stage) for linear, stage in zip(self.linears, stages, strict=True)]
        resized = [resize(x, size, align_corners=self.align_corners) for x in maps[:0:-1]]
        fusion = torch.cat([*resized, maps[0]], dim=1)
        return Decoded(self.fuse(fusion), {"fusion": fusion})
