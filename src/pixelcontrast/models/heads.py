"""Heads: class scores, auxiliary scores and unit-length pixel embeddings."""

from __future__ import annotations

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
    """

    def __init__(self, features: int, num_classes: int, dropout: float = 0.1) -> None:
        super().__init__(nn.Dropout2d(dropout), nn.Conv2d(features, num_classes, 1))


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
    """1x1 convolutions and L2 normalisation: (B, F, h, w) -> (B, D, h, w) of unit length.

    PiCo's head (2101.11939): convolution F -> F, batch norm, ReLU, convolution
    F -> 256. The norm is taken in float32 under any autocast, with its length bounded below by
    1e-12 as in PiCo's code, so that a zero vector stays finite.

    Args:
        inputs: F.
        dim: D.
        layers: number of convolutions.
        hidden: width between them; None for F.
        batch_norm: whether batch norm precedes each ReLU.
    """

    def __init__(
        self,
        inputs: int,
        dim: int = 256,
        *,
        layers: int = 2,
        hidden: int | None = None,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        width = hidden or inputs
        parts: list[nn.Module] = []
        for index in range(layers - 1):
            parts.append(nn.Conv2d(inputs if index == 0 else width, width, 1))
            if batch_norm:
                parts.append(nn.BatchNorm2d(width))
            parts.append(nn.ReLU(inplace=True))
        parts.append(nn.Conv2d(width if layers > 1 else inputs, dim, 1))
        self.net = nn.Sequential(*parts)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Unit-length float32 embeddings of every position."""
        raw = self.net(x)
        with torch.autocast(raw.device.type, enabled=False):
            return F.normalize(raw.float(), dim=1, eps=1e-12)
