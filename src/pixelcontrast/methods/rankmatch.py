"""RankMatch: UniMatch V1, and both strong views rank the landmarks of an image as the weak view.

Mai, Sun, Zhang and Wu, "RankMatch: Exploring the Better Consistency Regularization for
Semi-supervised Semantic Segmentation", CVPR 2024.

A few pixels of each unlabelled image, as different as possible, are its landmarks (the paper:
agents). Every pixel of the weak view ranks the landmarks most similar to it, as a distribution over
their orders; the strong views, on the same landmarks, must give the same distribution. It needs no
labels, no memory and no head. The landmarks and rankings of a mixed view are found on weak features
that are mixed alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pixelcontrast.core.distributed import world_size
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.types import Batch, LossReport
from pixelcontrast.data.mixing import partners, paste
from pixelcontrast.losses import RankMode, rank_consistency
from pixelcontrast.losses.maps import subsample_labels
from pixelcontrast.losses.rank_distribution import check_ranked
from pixelcontrast.methods.base import Task
from pixelcontrast.methods.optim import OptimConfig
from pixelcontrast.methods.semi import own_share
from pixelcontrast.methods.unimatch import Passes, UniMatch, UniMatchConfig
from pixelcontrast.models import Segmentor
from pixelcontrast.sampling import Landmarks, draw_pixels, select_landmarks


@dataclass(frozen=True, slots=True)
class RankMatchConfig(UniMatchConfig):
    """Settings of RankMatch: those of UniMatch V1 and the rank loss."""

    weight: float = 0.1
    """lambda (paper: 0.1). The released code multiplies the divergence by 0.1 / k!, 0.1 / 24."""
    landmarks: int = 64
    """Landmarks an image (code: 64, paper: 128)."""
    ranked: int = 4
    """k, how many of them every pixel ranks, 2 to 8 (paper: 4)."""
    mode: RankMode = "rank"
    """"correlation" compares softmaxes over all landmarks, which the paper improves on."""
    tap: str | None = None
    """The map whose features are compared. None: `aspp` (paper) where the decoder has one, else
    `features`."""
    temperature: float = 1.0
    """Divides the similarities (paper: none)."""
    normalise: bool = False
    """Cosines in place of dot products (paper: no)."""
    exclude_self: bool = False
    """Keep landmarks from ranking themselves first (paper: no)."""
    detach_landmarks: bool = False
    """No gradient through the landmarks' own features (code: there is)."""


class RankMatch(UniMatch):
    """UniMatch V1 with the rank loss on both strong views."""

    Config: ClassVar[type] = RankMatchConfig
    config: RankMatchConfig

    def __init__(
        self,
        config: RankMatchConfig,
        segmentor: Segmentor,
        task: Task,
        optim: OptimConfig | None = None,
    ) -> None:
        super().__init__(config, segmentor, task, optim)
        check_ranked(config.ranked)
        if config.landmarks < config.ranked:
            raise ConfigError(
                f"{config.ranked} of {config.landmarks} landmarks cannot be ranked",
                where="method.landmarks",
                fix=f"use {config.ranked} or more",
            )
        offered = "aspp" if "aspp" in segmentor.decoder.tap_channels else "features"
        self.tap, _ = segmentor.find_tap(config.tap or offered)

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """UniMatch's L + lambda (L_rank of the first + L_rank of the second view) / 2."""
        passes = self.passes(batch, tap=self.tap)
        base, ranks = self.consistency(passes, batch), self._ranks(passes)
        return LossReport({**base.terms, **ranks.terms}, {**base.stats, **ranks.stats})

    def _ranks(self, passes: Passes) -> LossReport:
        """The rank loss over the images of both strong views."""
        config, strong, weak = self.config, passes.strong.tapped, passes.weak.tapped
        assert strong is not None  # it was asked for
        assert weak is not None
        size = (strong.shape[-2], strong.shape[-1])
        features = torch.cat([mixed_features(weak.detach(), keep) for keep in passes.keeps])
        valid = subsample_labels(torch.cat([view.pseudo.valid for view in passes.views]), size)
        landmarks = self._landmarks(features, valid)
        found = rank_consistency(
            strong,
            features,
            landmarks.index,
            present=landmarks.present,
            valid=valid,
            k=config.ranked,
            mode=config.mode,
            temperature=config.temperature,
            normalise=config.normalise,
            exclude_self=config.exclude_self,
            detach_landmarks=config.detach_landmarks,
        )
        return LossReport({"rank": config.weight * found.loss}, {"rank_agreement": found.agreement})

    def _landmarks(self, features: Tensor, valid: Tensor) -> Landmarks:
        """Landmarks of the images of both views, with first ones drawn alike on all processes."""
        generator = self.random("landmarks")
        count = len(features) // 2
        drawn = torch.rand(2, count * world_size(), generator=generator, device=generator.device)
        draws = torch.cat([own_share(view) for view in drawn])
        allowed = valid & (features != 0).any(1)
        first = draw_pixels(draws, allowed.where(allowed.any(2).any(1)[:, None, None], valid))
        return select_landmarks(features, self.config.landmarks, first, valid)


def mixed_features(features: Tensor, keep: Tensor) -> Tensor:
    """CutMix on the coarse grid: the partner image's features where `keep` is false.

    Equals bringing the features to the size of the image, pasting, and back, where the crop is a
    multiple of the output stride plus 1, at a thousandth of the cost.

    Args:
        features: (B, F, h, w).
        keep: (B, H, W) bool.
    """
    small = subsample_labels(keep, (features.shape[-2], features.shape[-1]))
    return paste(small, features, features[partners(len(features), features.device)])
