"""UniMatch V1 and V2: weak-to-strong consistency, the non-contrastive yardstick.

V1: Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation",
CVPR 2023. V2: Yang, Zhao and Zhao, "UniMatch V2: Pushing the Limit of Semi-Supervised Semantic
Segmentation", TPAMI 2025.

V1 is its own teacher: confident labels of the weak view teach two strong views and a copy of the
weak view whose features lost half of their channels. V2 asks an averaged network instead, as V1
does with `method.teacher`, and drops complementary halves of the channels in its two strong views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from pixelcontrast.core.distributed import world_size
from pixelcontrast.core.types import Batch, LossReport, SegOutput
from pixelcontrast.methods.base import LABELED
from pixelcontrast.methods.contrast import ContrastChoice
from pixelcontrast.methods.segmentation import SegmentationLossConfig
from pixelcontrast.methods.semi import (
    MixedView,
    SemiSupervised,
    TeacherConfig,
    TeacherStudent,
    own_share,
    unlabeled,
)
from pixelcontrast.sampling import PseudoLabels, confident

Stages = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class UniMatchConfig:
    """Settings of UniMatch V1; weights as the released code, which halves everything."""

    segmentation: SegmentationLossConfig = field(default_factory=SegmentationLossConfig)
    threshold: float = 0.95
    """Least confidence of a pseudo-label (Pascal, COCO: 0.95; Cityscapes: 0)."""
    supervised_weight: float = 0.5
    """Weight of the labelled loss."""
    strong_weight: float = 0.25
    """Weight of the mean over the two strong views."""
    feature_weight: float = 0.25
    """Weight of the feature-dropout branch."""
    feature_dropout: float = 0.5
    """Share of the channels of every encoder stage that this branch loses."""
    contrast: ContrastChoice | None = None
    """A contrast term on the labelled and the weak images; none in the paper."""
    teacher: TeacherConfig | None = None
    """A mean teacher labels (in RankMatch: and ranks) the weak views. None: the network (paper)."""


class Passes(NamedTuple):
    """What the network says about the images of a step."""

    clean: SegOutput
    """The labelled images, the weak ones, and copies of the weak ones with dropped features."""
    weak: SegOutput
    """The output behind the pseudo-labels."""
    pseudo: PseudoLabels
    keeps: list[Tensor]
    """(B, H, W) bool for every strong view, false where another image shows."""
    views: list[MixedView]
    strong: SegOutput
    """The mixed strong views, one after the other."""


class UniMatch(SemiSupervised):
    """UniMatch V1."""

    Config: ClassVar[type] = UniMatchConfig
    config: UniMatchConfig
    streams = (LABELED, unlabeled(strong_views=2))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.segmentation = self.segmentation_loss(self.config.segmentation)

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """L = (L_x + 0.25 (L_s1 + L_s2) + 0.5 L_fp) / 2."""
        return self.consistency(self.passes(batch), batch)

    def passes(self, batch: Mapping[str, Batch], *, tap: str | None = None) -> Passes:
        """Runs the network on the images of a step; `tap` names a map to hand out with them."""
        labeled, rest = batch["labeled"], batch["unlabeled"]
        count = len(labeled.image)
        # One pass gives the labelled, the weak and, from the same features, the dropped-out logits.
        clean = self.segmentor(
            torch.cat([labeled.image, rest.image]),
            embed=self.embeds,
            perturb=self._with_dropped_copies(count),
            tap=tap,
        )
        if self.teacher is None:
            weak = clean.rows(count, count + len(rest.image))
        else:
            weak = self.teacher(rest.image, tap=tap)
        pseudo = self.pseudo_labels(weak, rest)
        keeps = draw_keeps(self, rest)
        views = mixed_views(self, rest, pseudo, keeps)
        strong = self.segmentor(torch.cat([view.image for view in views]), tap=tap)
        return Passes(clean, weak, pseudo, keeps, views, strong)

    def consistency(self, passes: Passes, batch: Mapping[str, Batch]) -> LossReport:
        """The losses of UniMatch for what the network said."""
        config, (clean, _, pseudo, _, views, strong) = self.config, passes
        labeled, rest = batch["labeled"], batch["unlabeled"]
        assert labeled.mask is not None  # the stream is a labelled one
        count, both = len(labeled.image), len(labeled.image) + len(rest.image)
        trusted = confident(pseudo, config.threshold)
        supervised = self.segmentation(clean.rows(0, count), labeled.mask)
        terms = {name: config.supervised_weight * term for name, term in supervised.items()}
        terms["strong"] = config.strong_weight * strong_loss(self, strong, views, config.threshold)
        dropped = clean.rows(both, both + len(rest.image))
        terms["features"] = config.feature_weight * self.masked(dropped, pseudo, config.threshold)
        told = self.told(torch.cat([labeled.image, rest.image]))
        contrast = self.contrasted(clean.rows(0, both), labeled, pseudo, trusted, teacher=told)
        stats = self.statistics(pseudo, trusted, rest)
        return LossReport({**terms, **contrast.terms}, {**stats, **contrast.stats})

    def _with_dropped_copies(self, start: int) -> Callable[[Stages], Stages]:
        """Appends copies of the images from `start` on with channels of every stage dropped."""
        generator = self.random("feature dropout")
        share = self.config.feature_dropout

        def perturb(stages: Stages) -> Stages:
            changed = []
            for stage in stages:
                rows = stage[start:]
                drawn = torch.rand(
                    len(rows) * world_size(),
                    stage.shape[1],
                    generator=generator,
                    device=generator.device,
                )
                factor = own_share((drawn >= share).to(stage.dtype) / (1 - share))
                changed.append(torch.cat([stage, rows * factor[:, :, None, None]]))
            return tuple(changed)

        return perturb


@dataclass(frozen=True, slots=True)
class UniMatchV2Config:
    """Settings of UniMatch V2; weights as the released code, which halves everything."""

    segmentation: SegmentationLossConfig = field(default_factory=SegmentationLossConfig)
    teacher: TeacherConfig = field(
        default_factory=lambda: TeacherConfig(decay=0.996, buffers="average")
    )
    threshold: float = 0.95
    """Least confidence of the teacher (0.95 on all data sets)."""
    supervised_weight: float = 0.5
    """Weight of the labelled loss."""
    strong_weight: float = 0.5
    """Weight of the mean over the two strong views."""
    complementary_dropout: bool = True
    """Drop complementary halves of the channels in the two strong views of half the images."""
    contrast: ContrastChoice | None = None
    """A contrast term on the labelled images and the first strong views; none in the paper."""


class UniMatchV2(TeacherStudent):
    """UniMatch V2."""

    Config: ClassVar[type] = UniMatchV2Config
    config: UniMatchV2Config
    streams = (LABELED, unlabeled(strong_views=2))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.segmentation = self.segmentation_loss(self.config.segmentation)

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """L = (L_x + (L_s1 + L_s2) / 2) / 2, pseudo-labels from the teacher."""
        config = self.config
        labeled, rest = batch["labeled"], batch["unlabeled"]
        assert labeled.mask is not None  # the stream is a labelled one
        count, both = len(labeled.image), len(labeled.image) + len(rest.image)
        pseudo = self.pseudo_labels(self.teacher(rest.image), rest)
        views = mixed_views(self, rest, pseudo, draw_keeps(self, rest))
        images = torch.cat([labeled.image, *(view.image for view in views)])
        output = self.segmentor(
            images,
            embed=self.embeds,
            perturb=self._dropped(count) if config.complementary_dropout else None,
        )

        supervised = self.segmentation(output.rows(0, count), labeled.mask)
        terms = {name: config.supervised_weight * term for name, term in supervised.items()}
        strong = output.rows(count, len(images))
        terms["strong"] = config.strong_weight * strong_loss(self, strong, views, config.threshold)
        trusted = confident(views[0].pseudo, config.threshold)
        contrast = self.contrasted(
            output.rows(0, both),
            labeled,
            views[0].pseudo,
            trusted,
            teacher=self.told(images[:both]),
        )
        stats = self.statistics(pseudo, confident(pseudo, config.threshold), rest)
        return LossReport({**terms, **contrast.terms}, {**stats, **contrast.stats})

    def _dropped(self, start: int) -> Callable[[Stages], Stages]:
        """Multiplies the two strong views, from row `start` on, with complementary masks.

        Stages of equal width, as those of a plain transformer, share their masks (released code);
        others have masks of their own (the author's advice for convolutional encoders).
        """
        generator = self.random("complementary dropout")

        def perturb(stages: Stages) -> Stages:
            masks: dict[int, Tensor] = {}
            changed = []
            for stage in stages:
                width = stage.shape[1]
                if width not in masks:
                    masks[width] = _draw_masks((len(stage) - start) // 2, width, generator)
                factor = masks[width].to(stage.dtype)[:, :, None, None]
                changed.append(torch.cat([stage[:start], stage[start:] * factor]))
            return tuple(changed)

        return perturb


def complementary_masks(draws: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Channel factors of two views that sum to 2: what one view loses the other has twice.

    Half of the images, rounded down, keep all channels in both views.

    Args:
        draws: (B, F) 0 or 1, a fair coin a channel.
        order: (B,) a permutation of the images; the first half of it is left alone.

    Returns:
        Two (B, F) float32 factors: 0 and 2, or 1.
    """
    first = 2.0 * draws.float()
    first = first.index_fill(0, order[: len(order) // 2], 1.0)
    return first, 2.0 - first


def _draw_masks(count: int, width: int, generator: Generator) -> Tensor:
    """`complementary_masks` for the images of this process, those of the two views in a row."""
    total = count * world_size()
    drawn = torch.rand(total, width + 1, generator=generator, device=generator.device)
    masks = complementary_masks(drawn[:, 1:] < 0.5, drawn[:, 0].argsort())
    return torch.cat([own_share(mask) for mask in masks])


def draw_keeps(method: SemiSupervised, rest: Batch) -> list[Tensor]:
    """A CutMix box for every strong view."""
    return [method.cutmix_keep(rest, f"cutmix {number}") for number in range(len(rest.strong))]


def mixed_views(
    method: SemiSupervised, rest: Batch, pseudo: PseudoLabels, keeps: list[Tensor]
) -> list[MixedView]:
    """Every strong view with a CutMix box of its own."""
    return [method.mix(image, pseudo, keep) for image, keep in zip(rest.strong, keeps, strict=True)]


def strong_loss(
    method: SemiSupervised, output: SegOutput, views: list[MixedView], threshold: float
) -> Tensor:
    """Mean over the strong views, whose outputs lie one after the other."""
    losses = []
    start = 0
    for view in views:
        stop = start + len(view.image)
        losses.append(method.masked(output.rows(start, stop), view.pseudo, threshold))
        start = stop
    return torch.stack(losses).mean()
