"""U2PL: semi-supervised segmentation that also learns from unreliable pseudo-labels.

Wang et al., "Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels", CVPR 2022.

A mean teacher labels the unlabelled images. Pixels it is sure of teach the student; those it is
unsure of still tell which classes they do not belong to and become negatives of these in a pixel
contrast. The share of unsure pixels falls during training. The representation head is dropped
afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.labels import resize_labels
from pixelcontrast.core.types import Batch, LossReport, SegOutput
from pixelcontrast.data.mixing import MixInput, MixKind, cut_out, draw_keep, mix, partners, paste
from pixelcontrast.losses import reweighted_consistency
from pixelcontrast.methods.base import LABELED
from pixelcontrast.methods.segmentation import SegmentationLossConfig
from pixelcontrast.methods.semi import TeacherConfig, TeacherStudent, unlabeled
from pixelcontrast.methods.u2pl_contrast import U2PLContrast, U2PLContrastConfig, shared_threshold
from pixelcontrast.models import EmbeddingConfig
from pixelcontrast.sampling import PseudoLabels


@dataclass(frozen=True, slots=True)
class U2PLConfig(U2PLContrastConfig):
    """Settings of U2PL: the contrast term and the two segmentation losses."""

    segmentation: SegmentationLossConfig = field(default_factory=SegmentationLossConfig)
    teacher: TeacherConfig = field(default_factory=lambda: TeacherConfig(buffers="own"))
    unsupervised_weight: float = 1.0
    """lambda_u (code: 1)."""
    supervised_epochs: float = 1.0
    """Epochs with labelled images alone (code: 1, on Cityscapes 0). An epoch shows each image of
    the longer stream once."""
    anchor_reliability: Literal["paper", "lowest_alpha"] = "paper"
    """Which pseudo-labels make anchors and centres: all reliable ones, or, as in the code, as many
    of the surest as there are unreliable ones, so that they vanish during training."""
    uncertainty_pass: Literal["clean", "mixed"] = "clean"
    """Entropy and ranks from the prediction behind the pseudo-label, or, as in the code, from the
    teacher's second pass over the mixed images, with dropout."""
    strong_view: bool = False
    """The student sees strongly distorted unlabelled images. Not in the paper, where both networks
    see the same ones; helps with few labels and a network from scratch."""
    mix: MixKind = "cutmix"
    """How unlabelled images are mixed (paper: CutMix)."""
    mix_probability: float = 0.5
    """How often the images of a step are mixed (code: 0.5)."""


class Seen(NamedTuple):
    """The unlabelled images as the student sees them."""

    image: Tensor
    """(B, 3, H, W)."""
    pseudo: PseudoLabels
    """Labels and entropy, mixed like the image."""
    scores: Tensor
    """(B, C, h, w) class scores behind them, mixed like the image."""


class Split(NamedTuple):
    """What pixels are used for, each (B, H, W) bool."""

    learnt: Tensor
    """Their pseudo-labels teach the student."""
    trusted: Tensor
    """They are anchors and make up centres."""
    unreliable: Tensor
    """They are negatives."""


class U2PL(TeacherStudent):
    """Mean teacher, entropy split with a weight for what it leaves, and contrast with the rest."""

    Config: ClassVar[type] = U2PLConfig
    config: U2PLConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        if config.strong_view:
            self.streams = (LABELED, unlabeled(strong_views=1))  # type: ignore[misc]
        self.segmentation = self.segmentation_loss(config.segmentation)
        self.term = U2PLContrast(
            config, self.task, self.random, align_corners=self.segmentor.align_corners
        )
        self.contrast = self.term
        self.supervised_steps = round(config.supervised_epochs * self.task.epoch_steps)
        if self.supervised_steps >= self.task.total_steps:
            raise ConfigError(
                f"{config.supervised_epochs} epochs with labelled images alone are "
                f"{self.supervised_steps} steps, all of the run's {self.task.total_steps}",
                where="method.supervised_epochs",
                fix="set method.supervised_epochs=0, or train for longer",
            )

    @classmethod
    def embedding_head(cls, config: U2PLConfig) -> EmbeddingConfig:
        """The representation head."""
        return config.embedding

    def trust_setting(self) -> str:
        """The share of pixels that are left out, which are all if the teacher is equally unsure."""
        return f"method.unreliable_percent = {self.config.unreliable_percent}"

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """L = L_s + lambda_u L_u + lambda_c L_c (equation 1)."""
        config, labeled, rest = self.config, batch["labeled"], batch["unlabeled"]
        assert labeled.mask is not None  # the stream is a labelled one
        if self.global_step < self.supervised_steps:
            return self._supervised(labeled, labeled.mask)
        count = len(labeled.image)
        clean = self.teacher(rest.image)
        pseudo = self.pseudo_labels(clean, rest, entropy=True)
        seen = self._mixed(rest, pseudo, clean.logits)
        images = torch.cat([labeled.image, seen.image])
        student = self.segmentor(images, embed=True)
        teacher = self._second_pass(images)
        if config.uncertainty_pass == "mixed":
            seen = self._reconsidered(seen, teacher.rows(count, len(images)), rest)
        split, threshold = self._split(seen.pseudo)

        supervised = student.rows(0, count)
        terms = self.segmentation(supervised, labeled.mask)
        terms["unsupervised"] = config.unsupervised_weight * reweighted_consistency(
            student.rows(count, len(images)).logits,
            seen.pseudo.labels,
            split.learnt,
            align_corners=self.segmentor.align_corners,
        )
        contrast = self.contrasted(
            student,
            labeled,
            seen.pseudo,
            seen.pseudo.valid,
            teacher=teacher,
            scores=seen.scores,
            trusted=split.trusted,
            unreliable=split.unreliable,
        )
        assert pseudo.entropy is not None  # it was asked for
        kept = pseudo.valid & (pseudo.entropy < threshold)
        stats = {"entropy_threshold": threshold, **self.statistics(pseudo, kept, rest)}
        return LossReport({**terms, **contrast.terms}, {**stats, **contrast.stats})

    def _supervised(self, labeled: Batch, mask: Tensor) -> LossReport:
        """L_s alone, with the representation head in the graph."""
        output = self.segmentor(labeled.image)
        terms = self.segmentation(output, mask)
        zero = self.segmentor.idle_heads(output)
        nothing = torch.zeros_like(zero)
        return LossReport({**terms, "unsupervised": nothing, "contrast": zero}, {})

    @torch.no_grad()
    def _second_pass(self, images: Tensor) -> SegOutput:
        """The teacher on what the student sees: centres and keys come from here.

        In training mode, where it collects batch-norm statistics of its own.
        """
        network = self.teacher.module
        network.train(self.config.teacher.buffers == "own")
        output: SegOutput = self.teacher(images, embed=True)
        network.eval()
        return output

    @torch.no_grad()
    def _mixed(self, rest: Batch, pseudo: PseudoLabels, scores: Tensor) -> Seen:
        """The unlabelled images, in half of the steps mixed, and all that is known about them."""
        config, count = self.config, len(rest.image)
        image = rest.strong[0] if config.strong_view else rest.image
        own = MixInput(image, pseudo.labels, pseudo.confidence, pseudo.valid)
        if config.mix == "none" or (count < 2 and config.mix != "cutout"):
            return Seen(image, pseudo, scores)  # a single image has no partner
        keep = draw_keep(
            config.mix, own, num_classes=self.task.num_classes, generator=self.random("mix")
        )
        luck = torch.rand((), generator=self.random("whether"), device=keep.device)
        keep = keep | (luck >= config.mix_probability)
        assert pseudo.entropy is not None  # it was asked for
        entropy = pseudo.entropy
        if config.mix == "cutout":
            mixed = cut_out(own, keep, fill=(124, 116, 104), ignore_index=self.task.ignore_index)
        else:
            mixed = mix(own, keep)
            other = partners(count, keep.device)
            entropy = paste(keep, entropy, entropy[other])
            small = resize_labels(keep, (scores.shape[-2], scores.shape[-1]))
            scores = paste(small, scores, scores[other])
        assert mixed.label is not None  # parts that go in come out
        assert mixed.confidence is not None
        assert mixed.valid is not None
        labels = PseudoLabels(mixed.label, mixed.confidence, mixed.valid, entropy)
        return Seen(mixed.image, labels, scores)

    def _reconsidered(self, seen: Seen, again: SegOutput, rest: Batch) -> Seen:
        """The same labels with entropy and scores of the second pass."""
        second = self.pseudo_labels(again, rest, entropy=True)
        valid = seen.pseudo.valid & second.valid
        labels = PseudoLabels(seen.pseudo.labels, seen.pseudo.confidence, valid, second.entropy)
        return Seen(seen.image, labels, again.logits)

    @torch.no_grad()
    def _split(self, pseudo: PseudoLabels) -> tuple[Split, Tensor]:
        """Reliable and unreliable pixels, and the entropy gamma_t between them (equation 4)."""
        assert pseudo.entropy is not None  # it was asked for
        share = self.term.unreliable_share(self.global_step)
        threshold = shared_threshold(pseudo.entropy, pseudo.valid, 100 - share)
        reliable = pseudo.valid & (pseudo.entropy < threshold)
        unreliable = pseudo.valid & ~reliable
        trusted = reliable
        if self.config.anchor_reliability == "lowest_alpha":
            surest = shared_threshold(pseudo.entropy, pseudo.valid, share)
            trusted = pseudo.valid & (pseudo.entropy <= surest)
        return Split(reliable, trusted, unreliable), threshold

    def after_step(self) -> None:
        """Move the teacher, which is the student itself while that learns from labels alone."""
        if self.global_step < self.supervised_steps:
            self.teacher.restart(self.segmentor)
        else:
            super().after_step()
