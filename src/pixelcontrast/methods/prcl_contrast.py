"""The contrast term of PRCL: pixels are Gaussians, and unsure ones pull less.

Xie et al., "Boosting Semi-Supervised Semantic Segmentation with Probabilistic Representations",
AAAI 2023 (2210.14670); Xie et al., "PRCL: Probabilistic Representation Contrastive Learning for
Semi-Supervised Semantic Segmentation", IJCV 2024 (2402.18117), which adds the prototypes of the
whole training and the virtual negatives.

Letters: B batch, C classes, D embedding, G classes with anchors, M negatives of an anchor,
N anchors of a class, P pixels of all processes, h w feature map.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.distributed import (
    all_reduce_sum,
    all_reduce_sum_with_grad,
    gather_rows,
    rank,
    world_size,
)
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.labels import resize_labels
from pixelcontrast.core.types import LossReport, SegOutput
from pixelcontrast.losses import Distributions, distribution_info_nce, pairwise_likelihood
from pixelcontrast.losses.likelihood import ScoreReduction
from pixelcontrast.memory import GaussianPrototypes, Gaussians, GaussianSums
from pixelcontrast.methods.base import Task
from pixelcontrast.methods.contrast import ContrastBatch, ContrastTerm, labelled_first
from pixelcontrast.methods.kept import KeptWatch
from pixelcontrast.models import EmbeddingConfig
from pixelcontrast.sampling import (
    ClassPool,
    VirtualNoise,
    draw_classes,
    gather_pixels,
    other_class_weights,
    virtual_points,
)

_COPY = 0.999  # cosine above which a virtual negative is a copy of its prototype


@dataclass(frozen=True, slots=True)
class PRCLHeadConfig(EmbeddingConfig):
    """The representation head and the probability head, with the published values.

    Both read the concatenation inside DeepLabV3+ in the papers: `tap: fusion`.
    """

    hidden: int | None = 256
    kernel: Literal[1, 3] = 3
    normalise: bool = False
    """The score compares directions, prototypes average embeddings of their own lengths."""
    variance: bool = True
    variance_lr: float = 1 / 64
    """5e-5 beside 3.2e-3 in the released configuration."""


@dataclass(frozen=True, slots=True)
class PRCLContrastConfig:
    """The contrast term. Defaults: the journal version, with the released values."""

    embedding: PRCLHeadConfig = field(default_factory=PRCLHeadConfig)
    weight: float = 1.0
    """lambda_c at the start (released code: 1)."""
    weight_schedule: Literal["rampdown", "constant"] = "rampdown"
    """`rampdown` lowers the weight to exp(-5) of it (AAAI code); `constant` is the journal's."""
    temperature: float = 100.0
    """tau (released code: 100, with the mean form of the score; here with the sum)."""
    reduction: ScoreReduction = "sum"
    """Score summed over the D components as in the paper, or averaged as in the released code,
    which at temperature 100 leaves nearly no gradient."""
    num_anchors: int = 256
    """N, anchors of a class over all processes (released code: 256 a process)."""
    num_negatives: int = 512
    """M, negatives of an anchor (released code: 512)."""
    anchor_threshold: float = 0.8
    """delta_s: anchors are pixels whose class the student gives less probability (0.8)."""
    confidence_threshold: float = 0.7
    """delta_w: least confidence of a pseudo-labelled pixel that takes part (0.7)."""
    prototype: Literal["global", "local"] = "global"
    """Positive of a class: its distribution over the training (IJCV), or this batch (AAAI)."""
    prototype_decay: float = 1.0
    """Factor on the past of a global prototype whenever its class is seen. 1 is the published
    formula, whose newest batch counts 1/t; 0.99 to 0.999 follows features that drift (ours)."""
    sampling_temperature: float | None = None
    """Temperature of the choice of negative classes; None: `temperature`."""
    sampling_min_variance: float = 0.0
    """Least variance of a prototype in that choice. Global prototypes grow so sure that it
    becomes the nearest class alone; 1e-3 prevents that (ours), 0 is the released code."""
    virtual_negatives: int = 4
    """Points drawn around each other class's global prototype for every class with anchors
    (journal code: 4; AAAI: 0)."""
    virtual_noise: VirtualNoise = "variance"
    """Spread of these points: `variance` as published, `std` for true samples,
    `exp-half-variance` as in the authors' code, the only one that gives diverse points."""
    virtual_radius: float = 1.0
    """beta, factor on the spread (journal code: 1)."""
    divide: Literal["present", "active"] = "present"
    """Mean over the classes with pixels (released code; the loss shrinks as classes run out of
    anchors) or over those with anchors."""

    def __post_init__(self) -> None:
        if not self.embedding.variance:
            raise ConfigError(
                "PRCL contrasts distributions, and the head gives no variance",
                where="embedding.variance",
                fix="set it to true",
            )
        positive = {
            "temperature": self.temperature,
            "sampling_temperature": self.sampling_temperature or self.temperature,
            "prototype_decay": self.prototype_decay,
            "num_anchors": self.num_anchors,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ConfigError(f"{name} must be positive, not {value}", where=name)
        for name in ("num_negatives", "virtual_negatives", "sampling_min_variance"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} cannot be negative", where=name)


def ramp_down(step: int, total: int) -> float:
    """exp(-5 (step / total)^2): from 1 to 0.0067 and 0 from the end on (released code)."""
    return math.exp(-5 * (step / total) ** 2) if step < total else 0.0


class PRCLContrast(ContrastTerm):
    """Probabilistic pixel contrast with prototypes of the whole training.

    On several processes all draw the same pixels of all images and share the anchors among them,
    so that k processes compute and remember what one process with all images would.
    """

    Config: ClassVar[type] = PRCLContrastConfig
    config: PRCLContrastConfig

    def __init__(
        self,
        config: PRCLContrastConfig,
        task: Task,
        random: Callable[[str], torch.Generator],
        *,
        align_corners: bool = False,
    ) -> None:
        super().__init__(config, task, random, align_corners=align_corners)
        self.prototypes = GaussianPrototypes(
            task.num_classes, config.embedding.dim, decay=config.prototype_decay
        )
        self.kept: list[GaussianSums] = []
        self.started = KeptWatch(
            "no class had pixels to start from, so the contrast teaches nothing: "
            f"anchor_threshold = {config.anchor_threshold} is too low, confidence_threshold = "
            f"{config.confidence_threshold} too high, or every batch shows one class alone"
        )
        self.varied = KeptWatch(
            f"the virtual negatives were copies of the prototypes (cosine above {_COPY}): "
            f"virtual_noise = {config.virtual_noise} vanishes with the prototypes' variance; "
            "exp-half-variance, the authors' code, gives diverse ones"
        )

    @classmethod
    def embedding_head(cls, config: PRCLContrastConfig) -> EmbeddingConfig:
        """A mean and a variance for every pixel."""
        return config.embedding

    def needs_embedding(self, step: int) -> bool:
        """Whether the term has a weight."""
        return self.config.weight != 0

    def weight(self, step: int) -> float:
        """lambda_c at an optimiser step."""
        if self.config.weight_schedule == "constant":
            return self.config.weight
        return self.config.weight * ramp_down(step, self.task.total_steps)

    def forward(self, batch: ContrastBatch) -> LossReport:
        """The term lambda_c L_c; the global prototypes have taken in this batch already."""
        config = self.config
        output = batch.student
        assert output.embedding is not None  # PRCL's head gives both
        assert output.variance is not None
        labels = self._labels(batch, (output.embedding.shape[-2], output.embedding.shape[-1]))
        probability = self._probability(output, labels)
        keys = Distributions(_rows(output.embedding), _rows(output.variance))
        new = self.prototypes.observe(*keys, labels.flatten())
        self.kept.append(new)
        everywhere = self.prototypes.gaussians(new)
        prototypes = everywhere if config.prototype == "global" else new.gaussians()
        pool = self._pool(labels, probability < config.anchor_threshold, batch.labelled)
        present = pool.sizes > 0
        active = present & (pool.hard_sizes > 0) & (present.sum() > 1)
        self.started.note(active)
        # The one place where the host waits: without it absent classes would cost what present
        # ones do, which with many classes is most of the time.
        classes = active.nonzero()[:, 0]
        draw = self.random("anchors")
        chosen = pool.hard_pixels(classes, config.num_anchors, generator=draw)
        weights = self._negative_weights(prototypes, present)
        negatives = self._negatives(pool, weights[classes], draw)
        points, there = self._virtual(everywhere, classes)
        mine = slice(rank(), None, world_size())  # anchors are shared out like cards
        losses = distribution_info_nce(
            Distributions(
                *(shared_pixels(m, chosen)[:, mine] for m in (output.embedding, output.variance))
            ),
            Distributions(prototypes.mean[classes], prototypes.variance[classes]),
            Distributions(*(gather_rows(rows, same_rows=True) for rows in keys)),
            negatives[:, mine],
            virtual_GVD=points,
            virtual_mask_GV=there,
            temperature=config.temperature,
            reduction=config.reduction,
        )
        divisor = (present if config.divide == "present" else active).sum().clamp_min(1)
        share = losses.sum() / (config.num_anchors * divisor)
        # Gradients are averaged over processes, of which each holds a share of the sum.
        loss = all_reduce_sum(share) + world_size() * (share - share.detach())
        stats = {
            "anchor_classes": active.sum(),
            **self._statistics(pool, keys.variance, labels, weights[classes]),
            **self._virtual_statistics(everywhere, points, there),
        }
        return LossReport({"contrast": self.weight(batch.step) * loss}, stats)

    def after_step(self) -> None:
        """The global prototypes remember the batches of this step."""
        for new in self.kept:
            self.prototypes.add(new)
        self.kept.clear()

    def _labels(self, batch: ContrastBatch, size: tuple[int, int]) -> Tensor:
        """(B, h, w) class of every pixel that takes part, -1 elsewhere."""
        labels = resize_labels(batch.labels, size).long()
        labels = labels.masked_fill(labels == self.task.ignore_index, -1)
        if batch.confidence is None:
            return labels
        sure = resize_labels(batch.confidence, size) >= self.config.confidence_threshold
        return labels.masked_fill(~sure, -1)

    @torch.no_grad()
    def _probability(self, output: SegOutput, labels: Tensor) -> Tensor:
        """(B, h, w) what the student gives the label of each pixel."""
        scores = output.logits.float()
        if scores.shape[-2:] != labels.shape[-2:]:
            scores = F.interpolate(
                scores, size=labels.shape[-2:], mode="bilinear", align_corners=self.align_corners
            )
        own = scores.gather(1, labels.clamp_min(0)[:, None])[:, 0]
        return (own - scores.logsumexp(1)).exp()

    def _pool(self, labels: Tensor, hard: Tensor, labelled: int) -> ClassPool:
        """The pixels of all processes, in the order of a single one: labelled images first."""
        order = labelled_first(len(labels), labelled, labels.device)
        labels, hard = (
            gather_rows(part, same_rows=True)[order].flatten(1) for part in (labels, hard)
        )
        pool = ClassPool.build(labels.flatten(), hard.flatten(), num_classes=self.task.num_classes)
        pixels = labels.shape[1]
        place = order[pool.order // pixels] * pixels + pool.order % pixels
        return ClassPool(place, pool.starts)

    def _negative_weights(self, prototypes: Gaussians, present: Tensor) -> Tensor:
        """(C, C) how often each class is a negative of another."""
        similarity = pairwise_likelihood(
            prototypes.mean,
            prototypes.variance.clamp_min(self.config.sampling_min_variance),
            reduction=self.config.reduction,
        )
        temperature = self.config.sampling_temperature or self.config.temperature
        return other_class_weights(similarity / temperature, present)

    def _negatives(self, pool: ClassPool, weights_GC: Tensor, draw: torch.Generator) -> Tensor:
        """(G, N, M) flat positions of negatives."""
        shape = (len(weights_GC), self.config.num_anchors, self.config.num_negatives)
        classes = draw_classes(weights_GC, shape[1] * shape[2], generator=draw)
        return pool.pixels_of(classes, generator=draw).view(shape)

    def _virtual(self, everywhere: Gaussians, classes: Tensor) -> tuple[Tensor, Tensor]:
        """(G, V C, D) points around the global prototypes, and (G, V C) which ones count."""
        seen = everywhere.valid
        amount, (count, dim) = self.config.virtual_negatives, everywhere.mean.shape
        noise = torch.randn(
            (len(classes), amount, count, dim),
            generator=self.random("virtual"),
            device=seen.device,
        )
        points = virtual_points(
            everywhere.mean,
            everywhere.variance.masked_fill(~seen[:, None], 1.0),
            noise,
            scale=self.config.virtual_noise,
            radius=self.config.virtual_radius,
        )
        other = seen & (torch.arange(count, device=seen.device) != classes[:, None])
        there = other[:, None].expand(-1, amount, -1)
        return points.flatten(1, 2), there.flatten(1, 2)

    @torch.no_grad()
    def _statistics(
        self, pool: ClassPool, variance: Tensor, labels: Tensor, weights_GC: Tensor
    ) -> dict[str, Tensor]:
        """Who takes part, how unsure they are, and how spread the choice of negatives is."""
        takes_part = (labels.flatten() >= 0).float()
        mean_variance = variance.mean(1)
        entropy = torch.special.entr(weights_GC).sum(1)
        hard, sizes = pool.hard_sizes.sum(), pool.sizes.sum()
        return {
            "unsure_share": hard / sizes.clamp_min(1),
            "unsure_share_per_class": pool.hard_sizes / pool.sizes,
            "variance": (mean_variance * takes_part).sum() / takes_part.sum().clamp_min(1),
            "negative_class_entropy": entropy.sum() / max(1, len(entropy)),
        }

    @torch.no_grad()
    def _virtual_statistics(
        self, everywhere: Gaussians, points: Tensor, there: Tensor
    ) -> dict[str, Tensor]:
        """Cosine of virtual negatives and the prototypes they surround; warns of mere copies."""
        if not points.shape[1]:
            return {}
        around = everywhere.mean.repeat(self.config.virtual_negatives, 1)
        cosine = F.cosine_similarity(points[:1], around, dim=-1)
        mean = (cosine * there[:1]).sum() / there[:1].sum().clamp_min(1)
        self.varied.note(mean <= _COPY)
        return {"virtual_cosine": mean.float()}


def shared_pixels(maps: Tensor, index: Tensor) -> Tensor:
    """Vectors at flat positions over the images of all processes, equal on every process.

    Gradients return to the process that owns the pixel, summed over all processes.

    Args:
        maps: (B, D, h, w) of this process.
        index: (G, N) positions in the images of all processes, in rank order.

    Returns:
        (G, N, D).
    """
    pixels = len(maps) * maps[0, 0].numel()
    local = index.flatten() - rank() * pixels
    mine = (local >= 0) & (local < pixels)
    own = gather_pixels(maps, local.clamp(0, pixels - 1))
    return all_reduce_sum_with_grad(own * mine[:, None]).view(*index.shape, maps.shape[1])


def _rows(maps: Tensor) -> Tensor:
    """(B, D, h, w) as (B h w, D), contiguous and without gradient."""
    return maps.detach().flatten(2).mT.flatten(0, 1).float()
