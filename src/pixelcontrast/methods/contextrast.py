"""Contextrast: contextual contrastive learning over the levels of an encoder.

Sung, Kim, An, Lee, Lim, Myung, "Contextrast: Contextual Contrastive Learning for Semantic
Segmentation", CVPR 2024 (2404.10633). Equation numbers are those of the authors' restatement in
"Contextrast++" (2608.22679).

Beside the cross-entropy, every encoder level has a representative anchor for each class, mixed
with the anchor of the deepest level, and its pixels are drawn to the anchor of their class. The
negatives of an anchor are pixels the network gets wrong, near the edge of the error. Heads and
anchors are dropped after training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.class_sums import class_sums
from pixelcontrast.core.distributed import all_reduce_sum, gather_rows_with_grad, rank, world_size
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.labels import resize_labels
from pixelcontrast.core.types import Batch, LossReport
from pixelcontrast.losses import pixel_anchor_loss
from pixelcontrast.methods.base import Method
from pixelcontrast.methods.contrast import ContrastBatch, ContrastTerm
from pixelcontrast.methods.segmentation import SegmentationLossConfig
from pixelcontrast.models import LevelHeadsConfig
from pixelcontrast.sampling import BaneError, boundary_negatives
from pixelcontrast.sampling.boundaries import LOTTERY_BITS


@dataclass(frozen=True, slots=True)
class ContextrastContrastConfig:
    """Settings of the multi-level contrast."""

    heads: LevelHeadsConfig = field(default_factory=LevelHeadsConfig)
    weight: float = 0.1
    """Factor alpha of the contrast (2608.22679: best of a sweep)."""
    level_weights: tuple[float, ...] = (0.1, 0.3, 0.7, 1.0)
    """lambda of each level, shallow to deep (2608.22679: best of eight settings)."""
    temperature: float = 0.1
    """tau. Not published; 0.1 is that of the multi-scale contrast Contextrast builds on (Pissas
    et al., ECCV 2022)."""
    own_weight: float = 0.5
    """w_l, share of a level's own anchor in the fused one. Only w_l + w_h = 1 is published."""
    deep_weight: float = 0.5
    """w_h, share of the deepest level's anchor."""
    normalize_anchor: bool = True
    """Bring fused anchors to unit length. Without it, a class whose pixels differ has a short
    anchor, which acts like a higher temperature."""
    anchor_gradient: Literal["full", "own", "none"] = "full"
    """Whether the gradient flows through the anchors to the pixels they are the means of; `own`
    stops it in the share of the deepest level."""
    bane_error: BaneError = "false_positive"
    """Which errors are negatives of class n: pixels wrongly predicted as n (`false_positive`),
    pixels of n predicted otherwise (`literal`, as equation 13 is printed), or all wrong pixels of
    other classes (`other_class_errors`)."""
    bane_ratio: float = 0.5
    """K_s, share of an error region that is kept, nearest to its edge (paper: 50 %)."""
    fallback: Literal["none", "random"] = "none"
    """What a class without any error contributes: nothing, or its contrast with random pixels of
    other classes, about one C-th of them."""
    across_devices: bool = True
    """Anchors, positives and negatives of all processes form one batch, so that the result does
    not depend on their number; otherwise each process stays with its own images."""
    warmup_steps: int = 0
    """Steps before the contrast counts (paper: none)."""

    def __post_init__(self) -> None:
        if abs(self.own_weight + self.deep_weight - 1) > 1e-6 or self.own_weight < 0:
            raise ConfigError(
                f"own_weight and deep_weight are shares, {self.own_weight} + {self.deep_weight} "
                "is not 1",
                where="method.own_weight",
            )
        if not 0 < self.bane_ratio <= 1:
            raise ConfigError(
                "bane_ratio is a share in (0, 1]", where=f"method.bane_ratio={self.bane_ratio}"
            )
        levels = self.heads.levels
        if levels is not None and len(levels) != len(self.level_weights):
            raise ConfigError(
                f"{len(self.level_weights)} level weights for {len(levels)} levels",
                where="method.level_weights",
                fix="give one weight per level, shallow to deep",
            )


@dataclass(frozen=True, slots=True)
class ContextrastConfig(ContextrastContrastConfig):
    """Settings of the method."""

    segmentation: SegmentationLossConfig = field(default_factory=SegmentationLossConfig)


class Contextrast(Method):
    """Cross-entropy plus pixel-anchor contrast on every level: L = L_CE + alpha L_PA."""

    Config: ClassVar[type] = ContextrastConfig
    config: ContextrastConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.segmentation = self.segmentation_loss(self.config.segmentation)
        self.contrast = ContextrastContrast(
            self.config, self.task, self.random, align_corners=self.segmentor.align_corners
        )

    @classmethod
    def embedding_head(cls, config: ContextrastConfig) -> LevelHeadsConfig:
        """The projections pi_i."""
        return config.heads

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """Cross-entropy and contrast of the labelled batch."""
        labeled = batch["labeled"]
        assert labeled.mask is not None  # the stream is a labelled one
        step = self.global_step
        output = self.segmentor(labeled.image, embed=self.contrast.needs_embedding(step))
        terms = self.segmentation(output, labeled.mask)
        if not output.levels:
            return LossReport({**terms, "contrast": self.segmentor.idle_heads(output)}, {})
        report = self.contrast(ContrastBatch(output, labeled.mask, len(labeled.image), step))
        return LossReport({**terms, **report.terms}, report.stats)


class ContextrastContrast(ContrastTerm):
    """The contrast of all levels; `ContrastBatch.student` must come from heads on levels."""

    Config: ClassVar[type] = ContextrastContrastConfig
    config: ContextrastContrastConfig

    @classmethod
    def embedding_head(cls, config: ContextrastContrastConfig) -> LevelHeadsConfig:
        """One projection for each level."""
        return config.heads

    def needs_embedding(self, step: int) -> bool:
        """From the end of the warm-up on."""
        return self.config.weight != 0 and step >= self.config.warmup_steps

    def forward(self, batch: ContrastBatch) -> LossReport:
        """L_PA = sum over levels of lambda_i times the mean loss of the level's classes (eq. 5)."""
        config, levels = self.config, batch.student.levels
        if len(levels) != len(config.level_weights):
            raise ConfigError(
                f"{len(config.level_weights)} level weights for {len(levels)} encoder levels",
                where="method.level_weights",
                fix="give one weight per level, shallow to deep, or choose method.heads.levels",
            )
        labels = [self._labels(batch.labels, z) for z in levels]
        anchors = self._anchors(levels, labels)
        predictions = batch.student.logits.detach().argmax(1)
        draw = self.random("negatives")
        total = levels[-1].new_zeros(())
        negatives, found = [], []
        for weight, z, label, anchor in zip(
            config.level_weights, levels, labels, anchors.fused, strict=True
        ):
            prediction = resize_labels(predictions, (z.shape[-2], z.shape[-1]))
            negative = self._negatives(label, prediction, draw)
            result = pixel_anchor_loss(
                anchor,
                z,
                label,
                negative,
                temperature=config.temperature,
                across_devices=config.across_devices,
            )
            total = total + weight * result.loss
            negatives.append(self._over_devices(negative.sum((0, 2, 3))))
            found.append(result)
        stats = _statistics(anchors.present, torch.stack(negatives))
        for name in ("positive_similarity", "negative_similarity"):
            stats[name] = torch.stack([getattr(level, name) for level in found]).mean()
        return LossReport({"contrast": config.weight * total}, stats)

    def _labels(self, labels: Tensor, z: Tensor) -> Tensor:
        """Y_i: labels at the resolution of a level, -1 where there is none."""
        small = resize_labels(labels, (z.shape[-2], z.shape[-1])).long()
        return small.masked_fill(small == self.task.ignore_index, -1)

    def _anchors(self, levels: tuple[Tensor, ...], labels: list[Tensor]) -> _Anchors:
        """Representative anchors of all levels (eq. 1), fused with the deepest one's (eq. 2)."""
        config = self.config
        parts = [
            class_sums(z.flatten(2).mT, label.flatten(1), self.task.num_classes)
            for z, label in zip(levels, labels, strict=True)
        ]
        sums = torch.stack([total.sum(0) for total, _ in parts])
        counts = self._over_devices(torch.stack([count.sum(0) for _, count in parts]))
        if config.across_devices:
            sums = gather_rows_with_grad(sums[None], same_rows=True).sum(0)
        own = sums / counts.clamp_min(1)[:, :, None]
        present = counts > 0
        deep = own[-1:]
        if config.anchor_gradient == "none":
            own, deep = own.detach(), deep.detach()
        elif config.anchor_gradient == "own":
            deep = deep.detach()
        fused = fuse_anchors(own, deep, present, present[-1:], deep_weight=config.deep_weight)
        if config.normalize_anchor:
            fused = F.normalize(fused, dim=-1, eps=1e-12)
        return _Anchors(fused, present)

    @torch.no_grad()
    def _negatives(self, label: Tensor, prediction: Tensor, draw: torch.Generator) -> Tensor:
        """Z-: (B, C, h, w), the pixels that BANE chooses for every class (eqs. 13 and 14)."""
        config, classes = self.config, self.task.num_classes
        negative = boundary_negatives(
            label,
            prediction,
            _draw_for_images(1 << LOTTERY_BITS, label, draw),
            num_classes=classes,
            ratio=config.bane_ratio,
            error=config.bane_error,
        )
        if config.fallback == "random":
            empty = self._over_devices(negative.sum((0, 2, 3))) == 0
            # Every pixel is offered to one class drawn at random.
            offered = _draw_for_images(classes, label, draw)
            usable = (label >= 0) & (label < classes) & (offered != label) & empty[offered]
            one_hot = offered[:, None] == torch.arange(classes, device=label.device)[:, None, None]
            negative = negative | (one_hot & usable[:, None])
        return negative

    def _over_devices(self, counts: Tensor) -> Tensor:
        return all_reduce_sum(counts) if self.config.across_devices else counts


class _Anchors(NamedTuple):
    fused: Tensor
    """(I, C, D) of I levels; rows of classes that do not occur are zero or not used."""
    present: Tensor
    """(I, C) bool: the class occurs at the level."""


def fuse_anchors(
    own: Tensor, deep: Tensor, own_present: Tensor, deep_present: Tensor, *, deep_weight: float
) -> Tensor:
    """Anchors mixed with those of the deepest level, where a class occurs at both (eq. 2).

    Small objects vanish at the deepest level; their anchors stay what they are.

    Args:
        own: (..., C, D) anchors of a level.
        deep: (..., C, D) anchors of the deepest level.
        own_present: (..., C) bool: the class occurs at the level.
        deep_present: (..., C) bool: the class occurs at the deepest level.
        deep_weight: w_h; the level's own share is w_l = 1 - w_h.
    """
    mixed = (1 - deep_weight) * own + deep_weight * deep
    return torch.where((own_present & deep_present)[..., None], mixed, own)


def _draw_for_images(high: int, label: Tensor, generator: torch.Generator) -> Tensor:
    """Integers below `high` in the shape of `label`, as one process with all images draws them."""
    images = len(label)
    shape = (world_size() * images, *label.shape[1:])
    drawn = torch.randint(high, shape, generator=generator, device=label.device)
    return drawn[rank() * images : (rank() + 1) * images]


def _statistics(present: Tensor, negatives: Tensor) -> dict[str, Tensor]:
    """How many anchors there are, and how many errors stand against them.

    Args:
        present: (I, C) bool: the class occurs at the level.
        negatives: (I, C) number of negatives of the class at the level.
    """
    anchors = present.sum().float()
    empty = (present & (negatives == 0)).sum()
    return {
        "class_anchors": anchors,
        "negatives": negatives.sum().float(),
        "empty_negative_share": empty / anchors.clamp_min(1),
    }
