"""How much a linear classifier can read from features that are not trained any further."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable


class LinearProbe:
    """A 1 x 1 convolution on frozen features, trained on labelled pixels.

    The protocol of Hamilton et al., "STEGO" (ICLR 2022): cross-entropy at the size of the labels,
    Adam with a rate of 5e-3, scored without any matching. The weights start at zero: the problem is
    convex, so no draw is needed and equal features give equal scores. It works in one process.

    Args:
        dim: D.
        num_classes: C.
        ignore_index: label of pixels that do not count.
        lr: learning rate (STEGO: 5e-3).
        device: of the features.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        ignore_index: int = 255,
        lr: float = 5e-3,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.weight = nn.Parameter(torch.zeros(num_classes, dim, device=device))
        self.bias = nn.Parameter(torch.zeros(num_classes, device=device))
        self._optimizer = torch.optim.Adam([self.weight, self.bias], lr=lr)

    def step(self, features: Tensor, target: Tensor) -> Tensor:
        """One step of training; the loss before it, () without gradient.

        Args:
            features: (B, D, h, w); no gradient reaches them.
            target: (B, H, W) class ids or the ignore index; without a label nothing changes.
        """
        with torch.inference_mode(False), torch.enable_grad():
            logits = self.logits(features.detach().clone())  # a copy: may be an inference tensor
            labels = target.detach().clone().long()
            scores = F.interpolate(logits, labels.shape[-2:], mode="bilinear")
            total = F.cross_entropy(scores, labels, ignore_index=self.ignore_index, reduction="sum")
            loss = total / (labels != self.ignore_index).sum().clamp(min=1)
            gradients = torch.autograd.grad(loss, [self.weight, self.bias])
            self.weight.grad, self.bias.grad = gradients
            if bool(loss.detach() > 0):  # Adam would move on from the past alone
                self._optimizer.step()
        return loss.detach()

    def fit(self, training: Iterable[tuple[Tensor, Tensor]], epochs: int = 10) -> None:
        """Steps through all of `training`, `epochs` times.

        Args:
            training: batches of features (B, D, h, w) and labels (B, H, W); gone through
                repeatedly, so no generator.
            epochs: how often.
        """
        for _ in range(epochs):
            for features, target in training:
                self.step(features, target)

    def logits(self, features: Tensor) -> Tensor:
        """(B, C, h, w) float32 scores."""
        with torch.autocast(features.device.type, enabled=False):
            return F.conv2d(features.float(), self.weight[:, :, None, None], self.bias)
