"""PRCL: semi-supervised segmentation with probabilistic pixel contrast.

Xie et al., "Boosting Semi-Supervised Semantic Segmentation with Probabilistic Representations",
AAAI 2023 (2210.14670); Xie et al., "PRCL: Probabilistic Representation Contrastive Learning for
Semi-Supervised Semantic Segmentation", IJCV 2024 (2402.18117).

A mean teacher labels unlabelled images, the student learns these labels on strong and mixed
views, and the pixels of both kinds of images are contrasted as Gaussians: a pixel that is unsure
of its embedding moves prototypes and loss little. Both heads of the contrast are dropped after
training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from pixelcontrast.core.types import Batch, LossReport, SegOutput
from pixelcontrast.data.mixing import MixInput, MixKind, random_mix
from pixelcontrast.losses import image_weighted_consistency
from pixelcontrast.methods.base import LABELED
from pixelcontrast.methods.prcl_contrast import PRCLContrast, PRCLContrastConfig
from pixelcontrast.methods.segmentation import SegmentationLossConfig
from pixelcontrast.methods.semi import MixedView, TeacherConfig, TeacherStudent, unlabeled
from pixelcontrast.models import EmbeddingConfig
from pixelcontrast.sampling import PseudoLabels, confident


@dataclass(frozen=True, slots=True)
class PRCLConfig(PRCLContrastConfig):
    """Settings of PRCL: the contrast term and the two segmentation losses."""

    segmentation: SegmentationLossConfig = field(default_factory=SegmentationLossConfig)
    teacher: TeacherConfig = field(default_factory=lambda: TeacherConfig(buffers="own"))
    mix: MixKind = "classmix"
    """How unlabelled views and their labels are mixed (released code: ClassMix)."""
    image_threshold: float = 0.97
    """An image's weight is its share of pixels with this confidence (released code: 0.97)."""
    unsupervised_weight: float = 1.0
    """Factor on the loss of the unlabelled images (released code: 1)."""


class PRCL(TeacherStudent):
    """Mean teacher, image-weighted pseudo-labels on mixed views, and probabilistic contrast."""

    Config: ClassVar[type] = PRCLConfig
    config: PRCLConfig
    streams = (LABELED, unlabeled(strong_views=1))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.segmentation = self.segmentation_loss(self.config.segmentation)
        self.contrast = PRCLContrast(
            self.config, self.task, self.random, align_corners=self.segmentor.align_corners
        )

    @classmethod
    def embedding_head(cls, config: PRCLConfig) -> EmbeddingConfig:
        """A mean and a variance for every pixel."""
        return config.embedding

    def trust_setting(self) -> str:
        """The threshold behind the weight of an image."""
        return f"method.image_threshold = {self.config.image_threshold}"

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """L = L_s + L_u + lambda_c L_c."""
        config = self.config
        labeled, rest = batch["labeled"], batch["unlabeled"]
        assert labeled.mask is not None  # the stream is a labelled one
        count = len(labeled.image)
        pseudo = self.pseudo_labels(self._teach(rest), rest)
        view = self._mixed(rest, pseudo)
        output = self.segmentor(torch.cat([labeled.image, view.image]), embed=self.embeds)
        terms = self.segmentation(output.rows(0, count), labeled.mask)
        terms["unsupervised"] = config.unsupervised_weight * image_weighted_consistency(
            output.rows(count, len(output.logits)).logits,
            view.pseudo.labels,
            confident(view.pseudo, config.image_threshold),
            view.pseudo.valid,
            align_corners=self.segmentor.align_corners,
        )
        contrast = self.contrasted(output, labeled, view.pseudo, view.pseudo.valid)
        trusted = self.statistics(pseudo, confident(pseudo, config.image_threshold), rest)
        return LossReport({**terms, **contrast.terms}, {**trusted, **contrast.stats})

    @torch.no_grad()
    def _teach(self, rest: Batch) -> SegOutput:
        """The teacher's scores; with statistics of its own it normalises by those of the batch."""
        network = self.teacher.module
        network.train(self.config.teacher.buffers == "own")
        output: SegOutput = self.teacher(rest.image)
        network.eval()
        return output

    def _mixed(self, rest: Batch, pseudo: PseudoLabels) -> MixedView:
        """The strong views with parts of each other, and their labels mixed alike."""
        mixed = random_mix(
            self.config.mix,
            MixInput(rest.strong[0], pseudo.labels, pseudo.confidence, pseudo.valid),
            num_classes=self.task.num_classes,
            ignore_index=self.task.ignore_index,
            generator=self.random("mix"),
        )
        assert mixed.label is not None  # parts that go in come out
        assert mixed.confidence is not None
        assert mixed.valid is not None
        return MixedView(mixed.image, PseudoLabels(mixed.label, mixed.confidence, mixed.valid))
