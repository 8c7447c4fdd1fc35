"""U2PL's contrast term: anchors against class centres and queues of unlikely pixels.

Wang et al., "Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels", CVPR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.class_sums import class_sums
from pixelcontrast.core.distributed import all_reduce_sum, gather_rows, world_size
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.labels import resize_labels
from pixelcontrast.core.types import LossReport
from pixelcontrast.losses import sampled_info_nce
from pixelcontrast.memory import ClassQueue
from pixelcontrast.methods.contrast import ContrastBatch, ContrastTerm
from pixelcontrast.methods.kept import KeptWatch
from pixelcontrast.models import EmbeddingConfig
from pixelcontrast.sampling import (
    ClassMembers,
    ClassRoles,
    NegativeRule,
    Pixels,
    class_roles,
    entropy_threshold,
    gather_pixels,
    pixels_of,
    pseudo_labels,
)


def representation_head() -> EmbeddingConfig:
    """The paper's: two 3x3 convolutions, a 1x1 convolution, the length left as it is."""
    return EmbeddingConfig(layers=3, hidden=256, kernel=3, dropout=0.1, normalise=False)


@dataclass(frozen=True, slots=True)
class U2PLContrastConfig:
    """Settings of the term. "Code" is the released one, which the authors say to follow."""

    embedding: EmbeddingConfig = field(default_factory=representation_head)
    weight: float = 0.1
    """lambda_c (paper: 0.1; the code's 1 is divided by the number of GPUs)."""
    temperature: float = 0.5
    """tau (paper: 0.5)."""
    anchors: int = 256
    """Anchors of each class and step, drawn with replacement (code: 256)."""
    negatives: int = 50
    """Keys each anchor is compared with, drawn with replacement (code: 50)."""
    min_probability: float = 0.3
    """delta_p: least probability of its class that makes a pixel an anchor (paper: 0.3)."""
    low_rank: int | Literal["auto"] = "auto"
    """r_l: a labelled pixel is a negative of other classes that rank before this one in the
    teacher's prediction, an unreliable pixel of those from this one on. auto: 3 as in the paper,
    fewer below 5 classes, 1 with 2 or 3, where 3 would leave nothing."""
    high_rank: int | Literal["auto"] = "auto"
    """r_h: an unreliable pixel is no negative of classes from this rank on. auto: 20 as in the
    paper, or the number of classes."""
    negative_rule: NegativeRule = "paper"
    """`own_label` is what the code does: negatives of a class must carry its label."""
    centre_pixels: Literal["reliable", "anchors"] = "reliable"
    """The positive of a class is the mean of all its trusted pixels (code), or of its anchors."""
    centre_decay: float | None = None
    """Largest share of the old centre in a running mean; None: this step's pixels alone (as the
    authors trained; their option: 0.999)."""
    key_cap: int = 4000
    """Most keys of a class that enter its queue in a step, over all images; 0: no limit. With the
    paper's rule there are hundreds of thousands, and a queue would hold the last image alone."""
    queue: int = 30_000
    """Keys that are kept of each class (code: 30,000)."""
    queue_class0: int | None = None
    """Keys that are kept of class 0; None: as many. The code has 50,000, for the background."""
    unreliable_percent: float = 20.0
    """alpha_0: share of pixels, those of largest entropy, that are unreliable at the start; falls
    to 0 over the run (paper: 20). A method that says itself what is unreliable overrules it."""
    schedule: Literal["step", "epoch"] = "step"
    """How often the share falls: every step, or after each epoch as in the code."""

    def __post_init__(self) -> None:
        for name, least in (("anchors", 1), ("negatives", 1), ("key_cap", 0), ("queue", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name} must be at least {least}", where=f"{name}={getattr(self, name)}"
                )
        if not 0 <= self.unreliable_percent <= 100:
            raise ConfigError(
                "a percentage lies in [0, 100]",
                where=f"method.unreliable_percent={self.unreliable_percent}",
            )


class U2PLContrast(ContrastTerm):
    """Anchors of every class attract its centre and repel keys of its queue (equations 4 to 12).

    Anchors come from the student, centres and keys from the teacher. All is chosen over the images
    of all processes, so that k processes compute what one would.
    """

    Config: ClassVar[type] = U2PLContrastConfig
    config: U2PLContrastConfig
    needs_teacher = True
    centre: Tensor
    centre_steps: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config, classes = self.config, self.task.num_classes
        self.ranks = resolved_ranks(config, classes)
        first = config.queue if config.queue_class0 is None else config.queue_class0
        slots = [first] + [config.queue] * (classes - 1)
        self.queue = ClassQueue(classes, slots, config.embedding.dim)
        if config.centre_decay is not None:
            self.register_buffer("centre", torch.zeros(classes, config.embedding.dim))
            self.register_buffer("centre_steps", torch.zeros(classes, dtype=torch.int64))
        self.watches = (
            KeptWatch(
                "no pixel became an anchor, so contrast is 0: method.contrast.min_probability = "
                f"{config.min_probability} is too high"
            ),
            KeptWatch(
                "no pixel became a negative, so contrast is 0: method.contrast.low_rank = "
                f"{self.ranks[0]} and high_rank = {self.ranks[1]} leave none"
            ),
        )

    @classmethod
    def embedding_head(cls, config: U2PLContrastConfig) -> EmbeddingConfig:
        """The representation head."""
        return config.embedding

    def forward(self, batch: ContrastBatch) -> LossReport:
        """L_c times its weight; the queue takes this step's keys before negatives are drawn."""
        config, classes = self.config, self.task.num_classes
        embedding = batch.student.embedding
        assert embedding is not None  # the method asked for embeddings
        assert batch.teacher is not None
        assert batch.teacher.embedding is not None
        with torch.no_grad():
            keys = batch.teacher.embedding.float()
            roles = self._roles(batch, (embedding.shape[-2], embedding.shape[-1]))
            centre, size = self._centres(keys, roles)
            negatives = ClassMembers.build(roles.negatives, batch.labelled)
            self._remember(keys, negatives)
            anchors = ClassMembers.build(pixels_of(roles.anchors, classes), batch.labelled)
            drawn = anchors.draw(config.anchors, self.random("u2pl anchors"))
            rows = self.queue.draw(config.anchors * config.negatives, self.random("u2pl keys"))
            rows = rows.view(-1, config.negatives)
            weight = class_weights(size, anchors.total, self.queue.count)
        vectors = gather_shared(embedding, anchors.look_up(drawn))
        vectors = F.normalize(vectors.float(), dim=1)
        centre = centre.repeat_interleave(config.anchors, 0)
        loss = sampled_info_nce(
            vectors,
            centre[:, None],
            rows,
            self.queue.keys().vectors,
            temperature=config.temperature,
            weights_N=(weight / config.anchors).repeat_interleave(config.anchors),
            reduction="sum",
        )
        # Every process holds the whole loss but only the gradient of its own pixels, and
        # DistributedDataParallel averages: scale the gradient, not the value.
        loss = loss + (world_size() - 1) * (loss - loss.detach())
        for watch, members in zip(self.watches, (anchors, negatives), strict=True):
            watch.note(members.total > 0)
        return LossReport(
            {"contrast": config.weight * loss},
            {
                "anchor_pixels": anchors.total.sum().float(),
                "anchors_per_class": anchors.total.float(),
                "negative_pixels": negatives.total.sum().float(),
                "queue_fill": self.queue.count.sum() / self.queue.capacity.sum(),
                "contrast_classes": (weight > 0).sum().float(),
                **self._similarities(vectors.detach(), centre, rows[:, 0], weight),
            },
        )

    def unreliable_share(self, step: int) -> float:
        """alpha_t in percent: `unreliable_percent` at the start, 0 at the end (equation 5)."""
        if self.config.schedule == "epoch":
            step -= step % self.task.epoch_steps
        return self.config.unreliable_percent * (1 - step / self.task.total_steps)

    def _roles(self, batch: ContrastBatch, size: tuple[int, int]) -> ClassRoles:
        """Who is an anchor, part of a centre, or a negative, on the embedding grid."""
        assert batch.teacher is not None
        given, config = batch.labelled, self.config
        scores = batch.teacher.logits.float()
        if batch.scores is not None:
            scores = torch.cat([scores[:given], batch.scores.float()])
        unreliable = batch.unreliable
        if unreliable is None:
            unreliable = self._unreliable(scores[given:], batch)
        if scores.shape[-2:] != size:
            scores = F.interpolate(
                scores, size=size, mode="bilinear", align_corners=self.align_corners
            )
        labels = resize_labels(batch.labels, size).long()
        labels = labels.masked_fill(labels == self.task.ignore_index, -1)
        trusted = labels[given:] >= 0
        if batch.trusted is not None:
            trusted = trusted & resize_labels(batch.trusted, size)
        return class_roles(
            labels,
            scores,
            trusted,
            resize_labels(unreliable, size),
            labelled=given,
            low_rank=self.ranks[0],
            high_rank=self.ranks[1],
            min_probability=config.min_probability,
            negative_rule=config.negative_rule,
        )

    def _unreliable(self, scores: Tensor, batch: ContrastBatch) -> Tensor:
        """(B_u, H, W) bool: the pixels of largest entropy, fewer and fewer of them."""
        if not len(scores):
            return batch.labels[batch.labelled :] > 0
        shown = torch.ones_like(batch.labels, dtype=torch.bool)
        if batch.valid is not None:
            shown = batch.valid
        pseudo = pseudo_labels(
            scores, shown[batch.labelled :], align_corners=self.align_corners, entropy=True
        )
        assert pseudo.entropy is not None  # it was asked for
        least = shared_threshold(
            pseudo.entropy, pseudo.valid, 100 - self.unreliable_share(batch.step)
        )
        return pseudo.valid & (pseudo.entropy >= least)

    def _centres(self, keys: Tensor, roles: ClassRoles) -> tuple[Tensor, Tensor]:
        """(C, D) unit vectors, the positives, and (C,) number of trusted pixels of each class."""
        config = self.config
        chosen = roles.anchors if config.centre_pixels == "anchors" else roles.reliable
        classes = self.task.num_classes
        sums, count = class_sums(keys.flatten(2).mT, chosen.flatten(1), classes)
        # A vector that is not finite spreads to all sums of its image through 0 * inf.
        sound = sums.isfinite().flatten(1).all(1)
        sums, count = sums.where(sound[:, None, None], 0.0), count * sound[:, None]
        total, number = all_reduce_sum(sums.sum(0)), all_reduce_sum(count.sum(0))
        mean = total / number.clamp_min(1)[:, None]
        if config.centre_decay is not None:
            self.centre_steps += number > 0
            past = (1 - 1 / self.centre_steps.clamp_min(1)).clamp_max(config.centre_decay)
            self.centre.lerp_(mean, torch.where(number > 0, 1 - past, 0)[:, None])
            mean = self.centre
        if config.centre_pixels == "anchors":
            number = all_reduce_sum(pixels_of(roles.reliable, classes).flatten(1).sum(1))
        return F.normalize(mean, dim=1), number

    def _remember(self, keys: Tensor, members: ClassMembers) -> None:
        """Write an even choice of the negatives of each class into its queue."""
        if self.config.key_cap:
            chosen = members.spread(self.config.key_cap, self.random("u2pl cap"))
        else:
            everywhere = members.running.numel() // len(members.total) * world_size()
            longest = max(self.config.queue, self.config.queue_class0 or 0)
            chosen = members.last(min(longest, everywhere))
        rows = gather_shared(keys, members.look_up(chosen))
        length = rows.norm(dim=1, keepdim=True)
        rows.div_(length.clamp_min(1e-12))
        classes = torch.arange(self.task.num_classes, device=rows.device)
        kept = chosen.valid & length.isfinite().view_as(chosen.valid)
        self.queue.write(rows, torch.where(kept, classes[:, None], -1).flatten())

    @torch.no_grad()
    def _similarities(
        self, vectors: Tensor, centre: Tensor, rows: Tensor, weight: Tensor
    ) -> dict[str, Tensor]:
        """Mean cosine of anchors with their centre and with one of their negatives."""
        each = (weight > 0).float().repeat_interleave(self.config.anchors)
        each = each / each.sum().clamp_min(1)
        keys = self.queue.keys().vectors.index_select(0, rows)
        return {
            "positive_similarity": ((vectors * centre).sum(1) * each).sum(),
            "negative_similarity": ((vectors * keys).sum(1) * each).sum(),
        }


def resolved_ranks(config: U2PLContrastConfig, num_classes: int) -> tuple[int, int]:
    """`low_rank` and `high_rank` for a number of classes.

    Raises:
        ConfigError: no class could ever be a negative of an unreliable pixel.
    """
    auto = min(3, max(1, num_classes - 2))
    low = auto if config.low_rank == "auto" else config.low_rank
    high = min(20, num_classes) if config.high_rank == "auto" else config.high_rank
    if not 0 < low < min(high, num_classes):
        raise ConfigError(
            f"ranks from {low} to {high} leave no negatives with {num_classes} classes",
            where="method.contrast.low_rank",
            fix="leave low_rank and high_rank at auto, or keep 1 <= low_rank < high_rank and "
            "low_rank below the number of classes",
        )
    return low, high


def class_weights(pixels: Tensor, anchors: Tensor, keys: Tensor) -> Tensor:
    """(C,) weight of each class in the loss: one over the number of classes of this step.

    Classes without anchors or keys have no weight, but stay in the divisor. With a single class
    there is nothing to contrast.

    Args:
        pixels: (C,) trusted pixels of each class.
        anchors: (C,) candidates for anchors.
        keys: (C,) keys in the queue.
    """
    classes = (pixels > 0).sum()
    used = (pixels > 0) & (anchors > 0) & (keys > 0) & (classes > 1)
    return used / classes.clamp_min(1)


def gather_shared(maps: Tensor, pixels: Pixels) -> Tensor:
    """(C * n, D) vectors of chosen pixels of all processes, the same on every process.

    The gradient reaches only the pixels of this process. Rows that are not valid mean nothing.

    Args:
        maps: (B, D, h, w) of this process.
        pixels: (C, n) where they lie.
    """
    rows = gather_pixels(maps, pixels.position.flatten())
    if world_size() == 1:
        return rows
    own = rows * pixels.mine.flatten()[:, None]
    return own + (all_reduce_sum(own) - own.detach())


def shared_threshold(entropy: Tensor, valid: Tensor, percent: float) -> Tensor:
    """The entropy below which `percent` of the valid pixels of all processes lie."""
    return entropy_threshold(
        gather_rows(entropy, same_rows=True), gather_rows(valid, same_rows=True), percent
    )
