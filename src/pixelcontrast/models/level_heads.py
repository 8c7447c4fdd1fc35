"""Projection heads on several encoder stages, for contrast at every scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
        return unit_length(raw)


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


def unit_length(x: Tensor, smallest: float = 1e-12) -> Tensor:
    """`x / max(|x|, smallest)` over dimension 1, in float32 (or float64).

    The gradient is computed from the result, which a contrast keeps anyway; PyTorch's own
    `normalize` keeps its input as well.

    Args:
        x: (B, D, h, w) of any floating type.
        smallest: length below which vectors are not stretched further; PiCo's code has 1e-12.
    """
    unit: Tensor = _UnitLength.apply(x, smallest)
    return unit


class _UnitLength(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, smallest: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        length = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        unit: Tensor = wide / length.clamp_min(smallest)
        ctx.dtype, ctx.smallest = x.dtype, smallest
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        unit, length = ctx.saved_tensors
        along = (gradients[0] * unit).sum(1, keepdim=True)
        # Shorter vectors are divided by a constant, so their gradient has no part to remove.
        along = along.masked_fill_(length <= ctx.smallest, 0.0)
        gradient = torch.addcmul(gradients[0], along, unit, value=-1.0)
        return gradient.div_(length.clamp_min(ctx.smallest)).to(ctx.dtype), None
