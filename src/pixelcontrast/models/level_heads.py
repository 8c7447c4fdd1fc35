"""Projection heads on several encoder stages, for contrast at every scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelcontrast.core.errors import ConfigError


class LevelHead(nn.Sequential):
    """1x1 convolution F -> F without bias, ReLU, batch norm, 1x1 convolution F -> D, unit length.

    The projector of Pissas et al., "Multi-scale and Cross-scale Contrastive Learning for Semantic
    Segmentation" (ECCV 2022), authors' code; the parameter counts published for Contextrast
    (CVPR 2024) show that it uses the same one.

    Args:
        inputs: F.
        dim: D.
    """

    def __init__(self, inputs: int, dim: int = 256) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, h, w) -> (B, D, h, w) of unit length, in float32 under any autocast."""
        raw: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        with torch.autocast(raw.device.type, enabled=False):
            return F.normalize(raw.float(), dim=1, eps=1e-12)


class LevelHeads(nn.ModuleDict):
    """One head for each of the chosen encoder stages.

    Args:
        channels: widths of the encoder's stages, shallow to deep.
        dim: D.
        levels: which stages, counted from 1 at the shallowest, in rising order; None: all.

    Raises:
        ConfigError: a level the encoder does not have.
    """

    def __init__(
        self, channels: Sequence[int], dim: int = 256, *, levels: tuple[int, ...] | None = None
    ) -> None:
        self.levels = tuple(range(1, len(channels) + 1)) if levels is None else levels
        if self.levels[-1] > len(channels):
            raise ConfigError(
                f"the encoder has {len(channels)} stages",
                where=f"levels={list(self.levels)}",
                fix=f"choose levels from 1 to {len(channels)}",
            )
        super().__init__({str(n): LevelHead(channels[n - 1], dim) for n in self.levels})

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Embeddings (B, D, h_i, w_i) of the chosen levels, shallow to deep."""
        return tuple(head(stages[int(n) - 1]) for n, head in self.items())
