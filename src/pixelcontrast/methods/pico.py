"""PiCo: cross-image pixel contrast for fully supervised segmentation.

Wang et al., "Exploring Cross-Image Pixel Contrast for Semantic Segmentation", ICCV 2021;
Zhou and Wang, "Cross-Image Pixel Contrasting for Semantic Segmentation", TPAMI 2024.

Beside the cross-entropy, pixel embeddings of one class attract and those of other classes repel
each other, over all images of the batch. Anchors are chosen by the segmentation itself: half of
them from pixels it gets wrong. The projection head is dropped after training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.distributed import all_reduce_sum, gather_rows, rank, world_size
from pixelcontrast.core.labels import resize_labels
from pixelcontrast.core.types import Batch, LossReport, SegOutput
from pixelcontrast.losses import pixel_info_nce
from pixelcontrast.methods.base import Method
from pixelcontrast.methods.segmentation import SegmentationLossConfig
from pixelcontrast.models import EmbeddingConfig
from pixelcontrast.sampling import AnchorSample, gather_pixels, sample_anchors


@dataclass(frozen=True, slots=True)
class PicoConfig:
    """Settings of PiCo. Where paper and released code differ, the paper's value is the default."""

    segmentation: SegmentationLossConfig = field(default_factory=SegmentationLossConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    weight: float = 1.0
    """Factor lambda of the contrast term (paper: 1; released in-batch recipes: 0.1)."""
    temperature: float = 0.1
    """tau (paper: 0.1)."""
    base_temperature: float | None = None
    """Released code multiplies the loss by tau / 0.07; None is the paper's plain loss."""
    max_anchors: int = 1024
    """Anchors per batch over all images and classes (released code: 1024)."""
    max_views: int = 100
    """Most anchors of one class in one image (released code: 100)."""
    min_pixels: int | None = None
    """Least pixels of a class in an image on the embedding grid to give anchors; None: one. The
    released code wants more than `max_views`, which leaves small objects out."""
    hard_fraction: float = 0.5
    """Share of anchors taken from wrongly predicted pixels (paper: one half)."""
    warmup_steps: int = 0
    """Steps before the contrast term counts (released code: 5000 of 40,000)."""


class PiCo(Method):
    """Cross-entropy plus pixel-to-pixel contrast within the batch."""

    Config: ClassVar[type] = PicoConfig
    config: PicoConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.segmentation = self.segmentation_loss(self.config.segmentation)

    @classmethod
    def embedding_head(cls, config: PicoConfig) -> EmbeddingConfig:
        """The projection f_PROJ: pixels to unit vectors."""
        return config.embedding

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """L = L_CE + lambda L_NCE."""
        labeled = batch["labeled"]
        assert labeled.mask is not None  # the stream is a labelled one
        contrasting = self.global_step >= self.config.warmup_steps
        output = self.segmentor(labeled.image, embed=contrasting)
        terms = self.segmentation(output, labeled.mask)
        if output.embedding is None:
            terms["contrast"] = self.segmentor.idle_heads(output)
            return LossReport(terms, {})
        anchors = self._anchors(output, output.embedding, labeled.mask)
        embedding = gather_shared_pixels(output.embedding, anchors.index)
        terms["contrast"] = self.config.weight * self._contrast(embedding, anchors)
        return LossReport(terms, self._statistics(embedding, anchors))

    @torch.no_grad()
    def _anchors(self, output: SegOutput, embedding: Tensor, mask: Tensor) -> AnchorSample:
        """Segmentation-aware hard anchors: balanced over classes, half of them mispredicted.

        The small label and prediction maps of all processes are gathered and sampled alike
        everywhere, so that k processes choose what one process with all images would choose.
        """
        size = (embedding.shape[-2], embedding.shape[-1])
        scores = output.logits
        if scores.shape[-2:] != size:
            scores = F.interpolate(
                scores, size=size, mode="bilinear", align_corners=self.segmentor.align_corners
            )
        return sample_anchors(
            gather_rows(resize_labels(mask, size), same_rows=True),
            gather_rows(scores.argmax(1), same_rows=True),
            num_classes=self.task.num_classes,
            ignore_index=self.task.ignore_index,
            max_anchors=self.config.max_anchors,
            max_views=self.config.max_views,
            min_pixels=self.config.min_pixels,
            hard_fraction=self.config.hard_fraction,
            generator=self.random("anchors"),
        )

    def _contrast(self, embedding: Tensor, anchors: AnchorSample) -> Tensor:
        """L_NCE of the anchors against each other, over all images of the batch (equation 3)."""
        loss = pixel_info_nce(
            embedding,
            anchors.labels,
            temperature=self.config.temperature,
            base_temperature=self.config.base_temperature,
            ignore_index=self.task.ignore_index,
        )
        # Every process holds the whole loss but only the gradient of its own pixels, and
        # DistributedDataParallel averages: scale the gradient, not the value.
        return loss + (world_size() - 1) * (loss - loss.detach())

    @torch.no_grad()
    def _statistics(self, embedding: Tensor, anchors: AnchorSample) -> dict[str, Tensor]:
        """What the contrast does: how many anchors, how hard, how similar."""
        valid = anchors.valid.float()
        count = valid.sum().clamp_min(1.0)
        labels = anchors.labels.clamp(0, self.task.num_classes - 1)
        member = F.one_hot(labels, self.task.num_classes).float() * valid[:, None]
        sums = member.T @ embedding.float()
        sizes = member.sum(0)
        same = (sums.square().sum(1) - sizes).sum()
        same_pairs = (sizes * (sizes - 1)).sum()
        every = sums.sum(0).square().sum() - sizes.sum()
        every_pairs = sizes.sum() * (sizes.sum() - 1)
        return {
            "anchors": valid.sum(),
            "anchor_classes": (sizes > 0).sum().float(),
            "hard_share": (anchors.hard.float() * valid).sum() / count,
            "positive_similarity": same / same_pairs.clamp_min(1.0),
            "negative_similarity": (every - same) / (every_pairs - same_pairs).clamp_min(1.0),
        }


def gather_shared_pixels(embedding: Tensor, index: Tensor) -> Tensor:
    """Embeddings at flat positions over the images of all processes, equal on every process.

    The gradient reaches only the pixels of this process.

    Args:
        embedding: (B, D, h, w) of this process.
        index: (N,) positions in the images of all processes, in rank order.

    Returns:
        (N, D).
    """
    if world_size() == 1:
        return gather_pixels(embedding, index)
    batch, _, height, width = embedding.shape
    pixels = batch * height * width
    local = index - rank() * pixels
    mine = (local >= 0) & (local < pixels)
    own = gather_pixels(embedding, local.clamp(0, pixels - 1)) * mine[:, None]
    return own + (all_reduce_sum(own) - own.detach())
