"""UPerNet: pooled context on the deepest stage, a feature pyramid over all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from pixelcontrast.models.blocks import conv_bn_relu, resize, size_of
from pixelcontrast.models.decoders.aspp import SmallBatchNorm
from pixelcontrast.models.decoders.base import Decoded, Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_GRIDS = (1, 2, 3, 6)


class UPerNet(Decoder):
    """Pyramid pooling and top-down fusion (Xiao et al., 1807.10221, section 3.1).

    Means over grids of 1, 2, 3 and 6 cells (Zhao et al., 1612.01105, section 3.2) join the deepest
    stage, then laterals are summed from deep to shallow, each level is smoothed by a 3x3
    convolution, and the levels are concatenated and fused by another one. 512 channels throughout,
    as Swin and ConvNeXt use it (2103.14030, 2201.03545). Stages of equal stride, such as those of a
    plain vision transformer, are fused without resampling.

    Taps: `features` (default), `fusion` (the concatenation of the levels), `pooled` (the deepest
    level), `encoder`.
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
        self.channels = inner = width or 512
        self.align_corners = align_corners
        self.tap_channels = {"pooled": inner, "fusion": len(channels) * inner}
        self.pooling = PyramidPooling(channels[-1], inner, align_corners=align_corners)
        self.laterals = nn.ModuleList(conv_bn_relu(c, inner) for c in channels[:-1])
        self.smooths = nn.ModuleList(conv_bn_relu(inner, inner, 3) for _ in channels[:-1])
        self.fuse = conv_bn_relu(len(channels) * inner, inner, 3)

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> features at the shallowest stage's resolution."""
        pooled = top = self.pooling(stages[-1])
        levels = [pooled]
        for place in range(len(stages) - 2, -1, -1):
            level = self.laterals[place](stages[place])
            top = level + resize(top, size_of(level), align_corners=self.align_corners)
            levels.insert(0, self.smooths[place](top))
        size = size_of(levels[0])
        wide = [resize(x, size, align_corners=self.align_corners) for x in levels[1:]]
        fusion = torch.cat([levels[0], *wide], dim=1)
        return Decoded(self.fuse(fusion), {"pooled": pooled, "fusion": fusion})


class PyramidPooling(nn.Module):
    """A map beside its means over coarse grids, fused by a 3x3 convolution.

    Args:
        inputs: channels of the map.
        width: channels of each mean and of the output.
        align_corners: convention of the up-samplings.
    """

    def __init__(self, inputs: int, width: int, *, align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, width, 1, bias=False),
                SmallBatchNorm(width) if grid == 1 else nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for grid in _GRIDS
        )
        self.fuse = conv_bn_relu(inputs + len(_GRIDS) * width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, width, h, w)."""
        size = size_of(x)
        means = [
            resize(branch(F.adaptive_avg_pool2d(x, grid)), size, align_corners=self.align_corners)
            for branch, grid in zip(self.branches, _GRIDS, strict=True)
        ]
        out: Tensor = self.fuse(torch.cat([x, *means], dim=1))
        return out
