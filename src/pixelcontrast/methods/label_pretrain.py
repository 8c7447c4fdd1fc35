"""Label-contrastive pretraining: features whose classes are apart before any classifier exists.

Zhao et al., "Contrastive Learning for Label Efficient Semantic Segmentation", ICCV 2021
(arXiv 2012.06985).

An image and its colour-distorted copy share their geometry and so their labels. Pixels of the
image attract the pixels of their class in the copy (and in the copy of a partner image) and repel
those of other classes. The projection head is dropped afterwards, and the whole network is
fine-tuned with cross-entropy: the method `supervised` in a second stage of the run.

Deviation: the released code lets an image be its own partner, sums both directions and leaves the
other positives out of the denominator; `pairs` and `denominator` bring that back.
Letters: B batch, D embedding, H W image, h w feature map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.class_sums import class_sums
from pixelcontrast.core.distributed import (
    gather_rows,
    gather_rows_with_grad,
    mean_over_ranks,
    rank,
    world_size,
)
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.seeding import generator_for
from pixelcontrast.core.types import Batch, LossReport
from pixelcontrast.data.loaders import Stream
from pixelcontrast.losses import (
    batch_loss,
    cross_image_loss,
    draw_partners,
    released_pair_loss,
    within_image_loss,
)
from pixelcontrast.losses.maps import subsample_labels
from pixelcontrast.methods.base import Method
from pixelcontrast.models import EmbeddingConfig


@dataclass(frozen=True, slots=True)
class LabelPretrainConfig:
    """Settings of the pretraining stage. Defaults: the paper's."""

    embedding: EmbeddingConfig = field(
        default_factory=lambda: EmbeddingConfig(dim=256, layers=3, hidden=256)
    )
    """Three 1x1 convolutions of 256 channels (paper, which names no batch norm; the released code
    has it, and so has the default)."""
    variant: Literal["within_image", "cross_image", "batch"] = "cross_image"
    """Whose pixels an anchor meets: those of its own copy, of a partner's copy as well (ICCV
    version), or of all copies of the batch. The numbers of arXiv v2 belong to `within_image`."""
    pairs: Literal["paper", "released"] = "paper"
    """`released`: every pixel of an image and of its contrast image is an anchor, the pair of a
    pixel with itself counts, and an image may be its own partner."""
    denominator: Literal["paper", "released"] = "paper"
    """`paper`: all pixels, positives included; `released`: one positive and all negatives."""
    temperature: float = 0.07
    """tau (paper and released code: 0.07)."""
    symmetric: bool = False
    """Average with anchors in the copy and keys in the image; the equations have one direction."""
    samples: int = 10_000
    """Pixels of the batch that take part in `batch` (paper: 10,000)."""
    loss_size: int | None = 65
    """Longest side of the maps that are compared; larger ones are resized (paper: 129 to 65 for
    crops of 513). None: the decoder's own size, which the streamed loss can hold as well."""

    def __post_init__(self) -> None:
        if self.pairs == "released" and self.denominator == "paper":
            raise ConfigError(
                "the pairs of the released code belong to its denominator",
                where="method.pairs=released",
                fix="set method.denominator=released",
            )
        if self.pairs == "released" and (self.variant == "batch" or self.symmetric):
            raise ConfigError(
                "the released code has no batch loss, and its pairs are symmetric by themselves",
                where="method.pairs=released",
                fix="set method.variant=cross_image and method.symmetric=false",
            )
        if self.loss_size is not None and self.loss_size < 2:
            raise ConfigError("maps need two pixels a side", where="method.loss_size")


class LabelPretrain(Method):
    """Pixel contrast between an image and colour-distorted copies, by their labels."""

    streams: ClassVar[tuple[Stream, ...]] = (Stream("labeled", labelled=True, strong_views=1),)
    classifies: ClassVar[bool] = False
    Config: ClassVar[type] = LabelPretrainConfig
    config: LabelPretrainConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # They have no part in the loss; fine-tuning begins with new ones.
        self.segmentor.classifier.requires_grad_(False)
        if self.segmentor.auxiliary_head is not None:
            self.segmentor.auxiliary_head.requires_grad_(False)

    @classmethod
    def embedding_head(cls, config: LabelPretrainConfig) -> EmbeddingConfig:
        """The projection head on the decoder's features.

        Raises:
            ConfigError: a head that reads another map.
        """
        if config.embedding.tap not in (None, "features"):
            raise ConfigError(
                "pretraining shapes the classifier's input and cannot read another map",
                where=f"method.embedding.tap={config.embedding.tap}",
                fix="leave it out",
            )
        return dataclasses.replace(config.embedding, tap="features")

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """L_within, L_cross or L_batch of one batch and its copies."""
        labeled = batch["labeled"]
        assert labeled.mask is not None  # the stream is a labelled one
        # One pass for both views, so that they share their batch statistics.
        output = self.segmentor(torch.cat([labeled.image, labeled.strong[0]]))
        image, copy = self._project(output.features).chunk(2)
        ids = subsample_labels(labeled.mask, (image.shape[2], image.shape[3])).long()
        ids = ids.masked_fill(ids == self.task.ignore_index, -1)
        if self.config.pairs == "released":
            loss = self._released(image, copy, ids)
        else:
            loss = self._paper(image, copy, ids)
        return LossReport({"contrast": loss}, self._statistics(image, copy, ids))

    def _project(self, features: Tensor) -> Tensor:
        """Unit vectors of the features, resized first: so their length is exact (released code)."""
        size = compared_size((features.shape[2], features.shape[3]), self.config.loss_size)
        if size != features.shape[2:]:
            features = F.interpolate(features, size=size, mode="bilinear", align_corners=True)
        assert self.segmentor.embedding_head is not None  # `embedding_head` asked for it
        embedding: Tensor = self.segmentor.embedding_head(features)
        return embedding

    def _paper(self, image: Tensor, copy: Tensor, ids: Tensor) -> Tensor:
        """The loss over the images of all processes, as this process's share of it."""
        options: dict[str, Any] = {
            "temperature": self.config.temperature,
            "denominator": "all" if self.config.denominator == "paper" else "negatives",
            "symmetric": self.config.symmetric,
        }
        if self.config.variant == "within_image":
            images = (ids >= 0).flatten(1).any(1).sum()
            return mean_over_ranks(within_image_loss(image, copy, ids, **options) * images, images)
        every_image = gather_rows_with_grad(image, same_rows=True)
        every_copy = gather_rows_with_grad(copy, same_rows=True)
        every_id = gather_rows(ids, same_rows=True)
        if self.config.variant == "batch":
            options |= {"samples": self.config.samples, "generator": self.random("samples")}
            return batch_loss(every_image, every_copy, every_id, **options)
        partners = draw_partners(len(every_id), self._host_random("partners"))
        own = range(rank() * len(ids), (rank() + 1) * len(ids))
        share = cross_image_loss(
            every_image, every_copy, every_id, partners, own_images=own, **options
        )
        return world_size() * share  # DistributedDataParallel averages over processes

    def _released(self, image: Tensor, copy: Tensor, ids: Tensor) -> Tensor:
        """The released code: images against themselves, or with another image's copy."""
        rows, labels = image.flatten(2).mT, ids.flatten(1)
        copies = copy.flatten(2).mT
        tau = self.config.temperature
        if self.config.variant == "within_image":
            losses = [
                released_pair_loss(own[i], labels[i], temperature=tau)
                for own in (rows, copies)
                for i in range(len(rows))
            ]
            used = (labels >= 0).any(1)
        else:
            copies = gather_rows_with_grad(copies, same_rows=True)
            every = gather_rows(labels, same_rows=True)
            order = torch.randperm(len(every), generator=self._host_random("partners"))
            partners = order[rank() * len(ids) :][: len(ids)].tolist()
            losses = [
                released_pair_loss(rows[i], labels[i], copies[k], every[k], temperature=tau)
                for i, k in enumerate(partners)
            ]
            used = (labels >= 0).any(1) | (every[partners] >= 0).any(1)
        return mean_over_ranks(torch.stack(losses).sum(), used.sum())

    def _host_random(self, purpose: str) -> torch.Generator:
        """As `random`, but on the host, where partners are looked up without waiting."""
        return generator_for("cpu", self.task.seed, purpose, self.batch_index)

    @torch.no_grad()
    def _statistics(self, image: Tensor, copy: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """How many pixels take part, and how similar images and their own copies are."""
        labels = ids.flatten(1)
        here, sizes = class_sums(image.flatten(2).mT, labels, self.task.num_classes)
        there, _ = class_sums(copy.flatten(2).mT, labels, self.task.num_classes)
        counts = sizes.float()
        same, same_pairs = (here * there).sum(), counts.square().sum()
        every = (here.sum(1) * there.sum(1)).sum()
        other_pairs = counts.sum(1).square().sum() - same_pairs
        return {
            "anchors": counts.sum(),
            "anchor_classes": (counts.sum(0) > 0).sum().float(),
            "positive_similarity": same / same_pairs.clamp_min(1.0),
            "negative_similarity": (every - same) / other_pairs.clamp_min(1.0),
        }


def compared_size(size: tuple[int, int], longest: int | None) -> tuple[int, int]:
    """Size of the maps that are compared: `size`, its longer side cut down to `longest`.

    The corners keep their places, so 129 x 129 becomes 65 x 65 by leaving out every second pixel.
    """
    last = max(size) - 1
    if longest is None or last < longest:
        return size
    height, width = (1 + round((side - 1) * (longest - 1) / last) for side in size)
    return height, width
