"""Atrous spatial pyramid pooling, the part the DeepLab decoders share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelcontrast.models.blocks import conv_bn_relu, separable_conv_bn_relu


class SmallBatchNorm(nn.BatchNorm2d):
    """Batch norm that falls back to its running statistics when a channel holds one value.

    A pooled map of a single image has one value per channel, whose variance does not exist and for
    which torch raises. The running statistics are used and left alone; wherever the statistics
    exist, and in synchronised batch norm on several processes, nothing changes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, 1, 1) -> (B, F, 1, 1)."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class ASPP(nn.Module):
    """Parallel dilated views of one map plus its global mean, projected to `width` channels.

    Chen et al., "Rethinking Atrous Convolution" (1706.05587), section 3.3: rates 6, 12, 18 at
    output stride 16, doubled at 8; other strides are scaled likewise, so that the field of view
    stays the same in pixels of the image.

    Args:
        inputs: channels of the input.
        width: channels of each branch and of the output.
        stride: stride of the input map.
        separable: take the dilated convolutions apart (1802.02611, section 3.1).
    """

    def __init__(self, inputs: int, width: int, stride: int, *, separable: bool = False) -> None:
        super().__init__()
        dilated = separable_conv_bn_relu if separable else conv_bn_relu
        self.rates = tuple(max(1, round(rate * 16 / stride)) for rate in (6, 12, 18))
        self.branches = nn.ModuleList(
            [
                conv_bn_relu(inputs, width),
                *(dilated(inputs, width, 3, dilation=rate) for rate in self.rates),
            ]
        )
        self.pooled = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False), SmallBatchNorm(width), nn.ReLU(inplace=True)
        )
        self.project = conv_bn_relu(5 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, width, h, w)."""
        # Bilinear up-sampling of a 1x1 map is a constant: expanding it costs no memory.
        mean = self.pooled(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        out: Tensor = self.project(torch.cat([*(b(x) for b in self.branches), mean], dim=1))
        return out
