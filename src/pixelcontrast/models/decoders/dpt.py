"""Dense prediction transformer: a pyramid made of the equally fine stages of a plain ViT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models.blocks import resize, size_of
from pixelcontrast.models.decoders.base import Decoded, Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

_LARGE = 1024  # width of a ViT-L, from which on the published widths stop growing with it


class DPT(Decoder):
    """Four token maps at 4, 2, 1 and 1/2 times their resolution, fused from deep to shallow.

    Ranftl et al., "Vision Transformers for Dense Prediction" (2103.13413), in the form without
    batch norm of Depth Anything and UniMatch V2: projections to 1/8, 1/4, 1/2 and 1 of the ViT's
    width (ViT-L: 256, 512, 1024, 1024), residual fusion at 64, 128 or 256 channels for ViT-S, B and
    L, output at 8 times the token grid. Tokens are brought to zero mean and unit variance first,
    where the released code applies the ViT's last layer norm with its learnt scale.

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
        if len(set(strides)) != 1:
            raise ConfigError(
                f"decoder 'dpt' is made for a plain vision transformer, the stages of this encoder "
                f"have strides {tuple(strides)}",
                where="model.decoder=dpt",
                fix="use model.decoder=fpn, or an encoder such as vit_small_patch14_dinov2",
            )
        own = channels[-1]
        self.channels = width or (256 if own >= _LARGE else 128 if own > 384 else 64)
        self.tap_channels = {}
        self.align_corners = align_corners
        inner = (
            [own // 4, own // 2, own, own] if own >= _LARGE else [own >> k for k in (3, 2, 1, 0)]
        )
        self.projections = nn.ModuleList(
            nn.Conv2d(given, made, 1) for given, made in zip(channels, inner, strict=True)
        )
        self.scalings = nn.ModuleList(
            [
                nn.ConvTranspose2d(inner[0], inner[0], 4, stride=4),
                nn.ConvTranspose2d(inner[1], inner[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(inner[3], inner[3], 3, stride=2, padding=1),
            ]
        )
        self.laterals = nn.ModuleList(
            nn.Conv2d(made, self.channels, 3, padding=1, bias=False) for made in inner
        )
        self.skips = nn.ModuleList(_Residual(self.channels) for _ in inner[:-1])
        self.fusions = nn.ModuleList(_Residual(self.channels) for _ in inner)
        self.mixers = nn.ModuleList(nn.Conv2d(self.channels, self.channels, 1) for _ in inner)
        self.smooth = nn.Conv2d(self.channels, self.channels, 3, padding=1)

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> features at 8 times their resolution."""
        levels = [
            lateral(scaling(projection(_normalised(stage))))
            for lateral, scaling, projection, stage in zip(
                self.laterals, self.scalings, self.projections, stages, strict=True
            )
        ]
        top = levels[-1]
        for place in range(len(levels) - 1, -1, -1):
            if place < len(levels) - 1:
                top = top + self.skips[place](levels[place])
            top = self.fusions[place](top)
            below = size_of(levels[place - 1]) if place else None
            height, width = size_of(top)
            size = below or (2 * height, 2 * width)
            top = self.mixers[place](resize(top, size, align_corners=self.align_corners))
        return Decoded(self.smooth(top).relu())


class _Residual(nn.Module):
    """Two convolutions, each after a ReLU, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(self.first(x.relu()).relu())
        return out


def _normalised(stage: Tensor) -> Tensor:
    """Every position to zero mean and unit variance over its channels."""
    channels_last = stage.permute(0, 2, 3, 1)
    return F.layer_norm(channels_last, channels_last.shape[-1:]).permute(0, 3, 1, 2)
