"""FixMatch for segmentation: confident pseudo-labels of the weak view teach the strong view.

Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence",
NeurIPS 2020; per pixel and with CutMix as in Yang et al., "Revisiting Weak-to-Strong Consistency
in Semi-Supervised Semantic Segmentation", CVPR 2023. One network is its own teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from pixelcontrast.core.types import Batch, LossReport
from pixelcontrast.methods.base import LABELED
from pixelcontrast.methods.contrast import ContrastChoice
from pixelcontrast.methods.segmentation import SegmentationLossConfig
from pixelcontrast.methods.semi import SemiSupervised, unlabeled
from pixelcontrast.sampling import confident


@dataclass(frozen=True, slots=True)
class FixMatchConfig:
    """Settings of FixMatch, with the values of UniMatch's comparison."""

    segmentation: SegmentationLossConfig = field(default_factory=SegmentationLossConfig)
    threshold: float = 0.95
    """Least confidence of a pseudo-label (FixMatch, UniMatch on Pascal and COCO: 0.95)."""
    supervised_weight: float = 0.5
    """Weight of the labelled loss: the released code halves both."""
    weight: float = 0.5
    """Weight of the strong view's loss."""
    contrast: ContrastChoice | None = None
    """A contrast term on the weak views; none in the paper."""


class FixMatch(SemiSupervised):
    """Cross-entropy plus the confident pseudo-labels of the network itself."""

    Config: ClassVar[type] = FixMatchConfig
    config: FixMatchConfig
    streams = (LABELED, unlabeled(strong_views=1))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.segmentation = self.segmentation_loss(self.config.segmentation)

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """L = (L_x + masked(p_s)) / 2, pseudo-labels from the weak views in training mode."""
        config = self.config
        labeled, rest = batch["labeled"], batch["unlabeled"]
        assert labeled.mask is not None  # the stream is a labelled one
        count = len(labeled.image)
        clean = self.segmentor(torch.cat([labeled.image, rest.image]), embed=self.embeds)
        pseudo = self.pseudo_labels(clean.rows(count, count + len(rest.image)), rest)
        trusted = confident(pseudo, config.threshold)
        view = self.mix(rest.strong[0], pseudo, self.cutmix_keep(rest, "cutmix"))
        strong = self.segmentor(view.image)
        supervised = self.segmentation(clean.rows(0, count), labeled.mask)
        terms = {name: config.supervised_weight * term for name, term in supervised.items()}
        terms["strong"] = config.weight * self.masked(strong, view.pseudo, config.threshold)
        contrast = self.contrasted(clean, labeled, pseudo, trusted)
        return LossReport(
            {**terms, **contrast.terms},
            {**self.statistics(pseudo, trusted, rest), **contrast.stats},
        )
