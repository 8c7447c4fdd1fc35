"""The supervised part every method with labels shares: cross-entropy plus auxiliary heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.types import SegOutput
from pixelcontrast.losses.cross_entropy import segmentation_cross_entropy
from pixelcontrast.losses.mask_classification import mask_classification_loss


@dataclass(frozen=True, slots=True)
class SegmentationLossConfig:
    """Pixel-wise cross-entropy."""

    class_weights: tuple[float, ...] | Literal["median_frequency"] | None = None
    """Weight per class; `median_frequency` (SegNet) is computed from the training masks."""
    ohem_threshold: float | None = None
    """Only pixels whose true class has a lower probability count; HRNet 0.9, U2PL 0.7."""
    ohem_min_kept: int = 100_000
    """Least number of pixels per batch that are kept by hard-example mining."""
    auxiliary_weight: float = 0.4
    """Weight of the auxiliary head, if the model has one (PSPNet, DeepLab: 0.4)."""


class SegmentationLoss(nn.Module):
    """Cross-entropy of the main and the auxiliary scores against full-size labels.

    A network that classifies masks (MaskFormer) learns by its own matching loss instead.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        config: SegmentationLossConfig,
        num_classes: int,
        ignore_index: int,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.ignore_index = ignore_index
        self.align_corners = align_corners
        weights = config.class_weights
        if isinstance(weights, str):
            raise ConfigError(f"class_weights={weights!r} was not resolved from the data")
        if weights is not None and len(weights) != num_classes:
            raise ConfigError(
                f"{len(weights)} class weights for {num_classes} classes",
                where="method.segmentation.class_weights",
                fix="give one weight per class, in the order of the classes",
            )
        buffer = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("class_weights", buffer, persistent=False)

    def forward(self, output: SegOutput, mask: Tensor) -> dict[str, Tensor]:
        """Weighted loss terms `ce` (or those of masks) and, with auxiliary heads, `auxiliary`."""
        if output.query_masks:
            terms = self._mask_classification(output, mask)
        else:
            terms = {"ce": self._cross_entropy(output.logits, mask)}
        if output.auxiliary:
            extra = torch.stack([self._cross_entropy(a, mask) for a in output.auxiliary]).sum()
            terms["auxiliary"] = self.config.auxiliary_weight * extra
        return terms

    def _mask_classification(self, output: SegOutput, mask: Tensor) -> dict[str, Tensor]:
        if self.config.ohem_threshold is not None:
            raise ConfigError(
                "hard-example mining chooses pixels, and this decoder is trained by whole masks",
                where=f"method.segmentation.ohem_threshold={self.config.ohem_threshold}",
                fix="set it to null, or choose another decoder",
            )
        return mask_classification_loss(
            output.query_classes,
            output.query_masks,
            mask,
            ignore_index=self.ignore_index,
            class_weights=self.class_weights,
            align_corners=self.align_corners,
        )

    def _cross_entropy(self, logits: Tensor, mask: Tensor) -> Tensor:
        return segmentation_cross_entropy(
            logits,
            mask,
            ignore_index=self.ignore_index,
            class_weights=self.class_weights,
            ohem_threshold=self.config.ohem_threshold,
            ohem_min_kept=self.config.ohem_min_kept,
            align_corners=self.align_corners,
        )
