"""Cross-entropy on the labelled images: the baseline, and the twin of every other recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pixelcontrast.core.types import Batch, LossReport
from pixelcontrast.methods.base import Method
from pixelcontrast.methods.segmentation import SegmentationLossConfig


@dataclass(frozen=True, slots=True)
class SupervisedConfig:
    """Settings of plain supervised training."""

    segmentation: SegmentationLossConfig = field(default_factory=SegmentationLossConfig)


class Supervised(Method):
    """Trains with pixel-wise cross-entropy alone."""

    Config: ClassVar[type] = SupervisedConfig
    config: SupervisedConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.segmentation = self.segmentation_loss(self.config.segmentation)

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """Cross-entropy of the labelled batch."""
        labeled = batch["labeled"]
        assert labeled.mask is not None  # the stream is a labelled one
        output = self.segmentor(labeled.image)
        return LossReport(self.segmentation(output, labeled.mask), {})
