"""Heads: class scores, auxiliary scores, pixel embeddings and their variances."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelcontrast.models.blocks import conv_bn_relu


class Classifier(nn.Sequential):
    """Channel dropout and a 1x1 convolution: (B, F, h, w) -> (B, C, h, w).

    Args:
        features: F.
        num_classes: C.
        dropout: share of dropped channels.
        unit: bring each pixel's features to unit length first.
    """

    def __init__(
        self, features: int, num_classes: int, dropout: float = 0.1, *, unit: bool = False
    ) -> None:
        super().__init__(nn.Dropout2d(dropout), nn.Conv2d(features, num_classes, 1))
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of every position."""
        scores: Tensor = super().forward(  # type: ignore[no-untyped-call]
            F.normalize(x.float(), dim=1, eps=1e-12).to(x) if self.unit else x
        )
        return scores


class AuxiliaryHead(nn.Sequential):
    """Class scores from an encoder stage: 3x3 convolution to a quarter of the width, classifier.

    The FCN head of torchvision; after Zhao et al., 1612.01105, section 3.3. Its loss weight
    belongs to the method.

    Args:
        inputs: channels of the stage.
        num_classes: C.
        dropout: share of dropped channels.
    """

    def __init__(self, inputs: int, num_classes: int, dropout: float = 0.1) -> None:
        inner = max(1, inputs // 4)
        super().__init__(conv_bn_relu(inputs, inner, 3), Classifier(inner, num_classes, dropout))


class ProjectionHead(nn.Module):
    """Convolutions and L2 normalisation: (B, F, h, w) -> (B, D, h, w) of unit length.

    PiCo's head (2101.11939): 1x1 convolution F -> F, batch norm, ReLU, 1x1 convolution
    F -> 256. Those of U2PL (2203.03884) and PRCL (2210.14670) begin with two and one 3x3
    convolutions of width 256. The norm is taken in float32 under any autocast, with its length
    bounded below by 1e-12 as in PiCo's code, so that a zero vector stays finite.

    Args:
        inputs: F.
        dim: D.
        layers: number of convolutions.
        hidden: width between them; None for F.
        batch_norm: whether batch norm precedes each ReLU.
        kernel: size of all convolutions but the last. Those larger than 1 have no bias where a
            batch norm follows, which would cancel it.
        dropout: share of channels dropped after each ReLU.
        normalise: whether embeddings have unit length.
    """

    def __init__(
        self,
        inputs: int,
        dim: int = 256,
        *,
        layers: int = 2,
        hidden: int | None = None,
        batch_norm: bool = True,
        kernel: int = 1,
        dropout: float = 0.0,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        width = hidden or inputs
        bias = kernel == 1 or not batch_norm
        parts: list[nn.Module] = []
        for index in range(layers - 1):
            before = inputs if index == 0 else width
            parts.append(nn.Conv2d(before, width, kernel, padding=kernel // 2, bias=bias))
            if batch_norm:
                parts.append(nn.BatchNorm2d(width))
            parts.append(nn.ReLU(inplace=True))
            if dropout:
                parts.append(nn.Dropout2d(dropout))
        parts.append(nn.Conv2d(width if layers > 1 else inputs, dim, 1))
        self.net = nn.Sequential(*parts)
        self.dim = dim
        self.normalise = normalise

    def forward(self, x: Tensor) -> Tensor:
        """Float32 embeddings of every position."""
        raw = self.net(x)
        with torch.autocast(raw.device.type, enabled=False):
            return F.normalize(raw.float(), dim=1, eps=1e-12) if self.normalise else raw.float()


class VarianceHead(nn.Module):
    """How sure each component of an embedding is: (B, F, h, w) -> (B, D, h, w) in (1e-6, 1).

    The probability head of PRCL (Xie et al., 2210.14670): two linear maps with rows of unit
    length, each followed by batch norm, and `sigmoid(log(exp(x) + 1e-6))` with
    `x = gamma z + beta`. The last step is written with `logaddexp` and computed in float32 under
    any autocast, so that neither value nor gradient overflows for large |x|.

    Args:
        inputs: F.
        dim: D.
        hidden: width between the maps; None for F.
    """

    smallest = 1e-6

    def __init__(self, inputs: int, dim: int = 256, *, hidden: int | None = None) -> None:
        super().__init__()
        width = hidden or inputs
        self.first = nn.Parameter(torch.empty(width, inputs))
        self.second = nn.Parameter(torch.empty(dim, width))
        nn.init.kaiming_normal_(self.first)
        nn.init.kaiming_normal_(self.second)
        self.first_norm = nn.BatchNorm2d(width)
        self.second_norm = nn.BatchNorm2d(dim, affine=False)
        self.gamma = nn.Parameter(torch.ones(1))
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Variances of every position, in float32 (or float64)."""
        hidden = F.relu(self.first_norm(_unit_rows(x, self.first)), inplace=True)
        z = _unit_rows(hidden, self.second)
        with torch.autocast(z.device.type, enabled=False):
            wide = torch.promote_types(z.dtype, torch.float32)
            z = self.second_norm(z.to(wide))
            return bounded_sigmoid(self.gamma * z + self.beta, self.smallest)


def bounded_sigmoid(x: Tensor, smallest: float) -> Tensor:
    """`sigmoid(log(exp(x) + smallest))`: between about `smallest` and 1, finite for every x."""
    bound = torch.full((), math.log(smallest), dtype=x.dtype, device=x.device)
    return torch.logaddexp(x, bound).sigmoid()


def _unit_rows(x: Tensor, matrix: Tensor) -> Tensor:
    """A linear map of every pixel by `matrix` (outputs, inputs), its rows brought to length 1."""
    return F.conv2d(x, F.normalize(matrix, dim=1)[:, :, None, None])
