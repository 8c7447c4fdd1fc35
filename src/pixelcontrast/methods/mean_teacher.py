"""Mean teacher with CutMix: the student follows the averaged network's class probabilities.

Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017; for segmentation, with
mixed images, French et al., "Semi-supervised semantic segmentation needs strong, varied
perturbations", BMVC 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from pixelcontrast.core.distributed import all_reduce_sum
from pixelcontrast.core.types import Batch, LossReport
from pixelcontrast.data.mixing import partners, paste
from pixelcontrast.losses import squared_consistency
from pixelcontrast.methods.base import LABELED
from pixelcontrast.methods.contrast import ContrastChoice
from pixelcontrast.methods.segmentation import SegmentationLossConfig
from pixelcontrast.methods.semi import TeacherConfig, TeacherStudent, unlabeled
from pixelcontrast.models import upsample_logits
from pixelcontrast.sampling import confident


@dataclass(frozen=True, slots=True)
class MeanTeacherConfig:
    """Settings of the mean teacher."""

    segmentation: SegmentationLossConfig = field(default_factory=SegmentationLossConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    threshold: float = 0.97
    """Probability from which the teacher counts as sure (French et al.: 0.97). The share of such
    pixels weights the loss of all pixels."""
    weight: float = 1.0
    """Weight of the squared distance, summed over classes (French et al.: 1)."""
    contrast: ContrastChoice | None = None
    """A contrast term on the labelled and the mixed images; none in the papers."""


class MeanTeacher(TeacherStudent):
    """Cross-entropy plus the squared distance to the teacher on mixed images."""

    Config: ClassVar[type] = MeanTeacherConfig
    config: MeanTeacherConfig
    streams = (LABELED, unlabeled(strong_views=1))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.segmentation = self.segmentation_loss(self.config.segmentation)

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """L = L_x + w (share of sure pixels) |p_student - p_teacher|^2 on the mixed views."""
        config = self.config
        labeled, rest = batch["labeled"], batch["unlabeled"]
        assert labeled.mask is not None  # the stream is a labelled one
        count = len(labeled.image)
        told = self.teacher(rest.image)
        pseudo = self.pseudo_labels(told, rest)
        keep = self.cutmix_keep(rest, "cutmix")
        view = self.mix(rest.strong[0], pseudo, keep)
        images = torch.cat([labeled.image, view.image])
        output = self.segmentor(images, embed=self.embeds)
        terms = self.segmentation(output.rows(0, count), labeled.mask)

        size = (rest.valid.shape[-2], rest.valid.shape[-1])
        corners = self.segmentor.align_corners
        soft = upsample_logits(told.logits, size, align_corners=corners).softmax(1)
        trusted, shown = confident(view.pseudo, config.threshold), view.pseudo.valid
        sums = all_reduce_sum(torch.stack([trusted.sum(), shown.sum()]).float())
        distance = squared_consistency(
            output.rows(count, len(images)).logits,
            paste(keep, soft, soft[partners(len(soft), soft.device)]),
            shown,
            align_corners=corners,
        )
        terms["consistency"] = config.weight * sums[0] / sums[1].clamp_min(1) * distance
        contrast = self.contrasted(output, labeled, view.pseudo, trusted, teacher=self.told(images))
        stats = self.statistics(pseudo, confident(pseudo, config.threshold), rest)
        return LossReport({**terms, **contrast.terms}, {**stats, **contrast.stats})
