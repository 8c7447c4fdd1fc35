"""Feature pyramid: a top-down sum of 1x1 laterals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from pixelcontrast.models.blocks import conv_bn_relu, resize, size_of
from pixelcontrast.models.decoders.base import Decoded, Decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor


class FPN(Decoder):
    """Laterals summed from deep to shallow, then smoothed once (Lin et al., 1612.03144, section 3).

    Only the finest level is kept, so only that one is smoothed; the smoothing convolution carries
    batch norm and ReLU because a classifier follows it directly. Stages of equal stride, such as
    those of a plain vision transformer, are summed without resampling.

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
        self.channels = width or 256
        self.tap_channels = {}
        self.align_corners = align_corners
        self.laterals = nn.ModuleList(nn.Conv2d(c, self.channels, 1) for c in channels)
        self.smooth = conv_bn_relu(self.channels, self.channels, 3)

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> features at the shallowest stage's resolution."""
        top = top_down_sum(self.laterals, stages, align_corners=self.align_corners)
        return Decoded(self.smooth(top))


def top_down_sum(
    laterals: Iterable[nn.Module], stages: Sequence[Tensor], *, align_corners: bool
) -> Tensor:
    """The laterals of all stages, summed from deep to shallow at the size of the first."""
    levels: list[Tensor] = [lateral(x) for lateral, x in zip(laterals, stages, strict=True)]
    top = levels.pop()
    while levels:
        level = levels.pop()
        top = level + resize(top, size_of(level), align_corners=align_corners)
    return top
