"""PiCo: cross-image pixel contrast for fully supervised segmentation.

Wang et al., "Exploring Cross-Image Pixel Contrast for Semantic Segmentation", ICCV 2021;
Zhou and Wang, "Cross-Image Pixel Contrasting for Semantic Segmentation", TPAMI 2024.

Beside the cross-entropy, pixel embeddings of one class attract and those of other classes repel
each other, over all images of the batch and, with a memory, of earlier batches. Anchors are chosen
by the segmentation itself: half of them from pixels it gets wrong. Projection head and memory are
dropped after training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.distributed import all_reduce_sum, gather_rows, rank, world_size
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.labels import resize_labels
from pixelcontrast.core.types import Batch, LossReport, SegOutput
from pixelcontrast.losses import pixel_info_nce
from pixelcontrast.methods.base import Method, Task
from pixelcontrast.methods.contrast import ContrastBatch, ContrastTerm, labelled_first
from pixelcontrast.methods.kept import KeptWatch
from pixelcontrast.methods.pico_memory import PicoMemory, PicoMemoryConfig
from pixelcontrast.methods.pico_selection import (
    PicoSelectionConfig,
    PicoSynthesisConfig,
    contrast_with_selected,
)
from pixelcontrast.methods.segmentation import SegmentationLossConfig
from pixelcontrast.models import EmbeddingConfig
from pixelcontrast.sampling import AnchorSample, PixelPool, gather_pixels


@dataclass(frozen=True, slots=True)
class PicoContrastConfig:
    """The contrast term. Where paper and released code differ, the paper's value is the default."""

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
    """Steps before the contrast term counts (released code: 5000 of 40,000). A memory is filled
    meanwhile."""
    memory: PicoMemoryConfig | None = None
    """Keys of earlier batches; None: the anchors of a batch contrast with each other alone."""
    selection: PicoSelectionConfig = field(default_factory=PicoSelectionConfig)
    """Which keys of the memory take part."""
    synthesis: PicoSynthesisConfig = field(default_factory=PicoSynthesisConfig)
    """Harder negatives from the selected ones."""

    def __post_init__(self) -> None:
        untouched = (PicoSelectionConfig(), PicoSynthesisConfig())
        if self.memory is None and (self.selection, self.synthesis) != untouched:
            raise ConfigError(
                "selection and synthesis work on the memory, and there is none",
                where="method.memory",
                fix="set method.memory={}, or leave selection and synthesis out",
            )
        asked = (self.synthesis.pairs or 0) + (self.synthesis.with_anchor or 0)
        if self.selection.strategy == "all" and asked:
            raise ConfigError(
                "negatives are mixed from selected ones, and selection.strategy=all selects none",
                where="method.synthesis",
                fix="choose another strategy, or leave synthesis out",
            )


@dataclass(frozen=True, slots=True)
class PicoConfig(PicoContrastConfig):
    """Settings of PiCo: the contrast term and the cross-entropy."""

    segmentation: SegmentationLossConfig = field(default_factory=SegmentationLossConfig)


class PicoContrast(ContrastTerm):
    """Pixel-to-pixel and pixel-to-region contrast with its memory.

    On several processes each one holds all anchors and the whole memory and computes the whole
    loss, so that k processes choose, compare and remember what one process with all images would.
    """

    Config: ClassVar[type] = PicoContrastConfig
    config: PicoContrastConfig

    def __init__(
        self,
        config: PicoContrastConfig,
        task: Task,
        random: Callable[[str], torch.Generator],
        *,
        align_corners: bool = False,
    ) -> None:
        super().__init__(config, task, random, align_corners=align_corners)
        self.memory: PicoMemory | None = None
        if config.memory is not None:
            self.memory = PicoMemory(config.memory, task, config.embedding.dim)
        self.started = KeptWatch(
            "no pixel became an anchor, so contrast is 0: no image shows a class on "
            f"min_pixels = {config.min_pixels or 1} or more pixels of the embedding grid"
        )

    @classmethod
    def embedding_head(cls, config: PicoContrastConfig) -> EmbeddingConfig:
        """The projection f_PROJ: pixels to unit vectors."""
        return config.embedding

    def needs_embedding(self, step: int) -> bool:
        """From the end of the warm-up on; with a memory to fill, always."""
        remembers = self.memory is not None
        return self.config.weight != 0 and (remembers or step >= self.config.warmup_steps)

    def forward(self, batch: ContrastBatch) -> LossReport:
        """The term lambda L_NCE of this batch, and what the batch leaves in the memory."""
        embedding = batch.student.embedding
        if embedding is None or not self.needs_embedding(batch.step):
            used = batch.student.logits if embedding is None else embedding
            return LossReport({"contrast": attached_zero(used)}, {})
        labels = resize_labels(batch.labels, (embedding.shape[-2], embedding.shape[-1]))
        draw = self.random("anchors")
        pool = self.pool(batch.student, labels, draw, batch.labelled)
        stats: dict[str, Tensor | float] = {}
        term = attached_zero(embedding)
        if batch.step >= self.config.warmup_steps:
            anchors = self.anchors(pool, draw)
            self.started.note(anchors.valid)
            rows = gather_shared_pixels(embedding, anchors.index)
            loss = self.config.weight * self.contrast(rows, anchors.labels)
            # Every process holds the whole loss but only the gradient of its own pixels, and
            # DistributedDataParallel averages: scale the gradient, not the value.
            term = loss + (world_size() - 1) * (loss - loss.detach())
            stats.update(self._statistics(rows, anchors))
        if self.memory is not None:
            stats.update(self.memory.statistics())
            self.memory.keep(
                embedding.detach(), labels, pool, batch.index, self.random("memory"), batch.labelled
            )
        return LossReport({"contrast": term}, stats)

    def after_step(self) -> None:
        """Write to the memory what the batches of this step left."""
        if self.memory is not None:
            self.memory.write()

    @torch.no_grad()
    def pool(
        self,
        output: SegOutput,
        labels: Tensor,
        generator: torch.Generator,
        labelled: int | None = None,
    ) -> PixelPool:
        """All labelled pixels by class, image, and whether they are predicted wrongly.

        The small label and prediction maps of all processes are gathered and sorted alike
        everywhere, in the order a single process would have them: first all images with ground
        truth, then all with pseudo-labels. So all processes draw the same pixels, whatever their
        number. Positions count the images of all processes in rank order.

        Args:
            output: class scores of this process's images.
            labels: (B, h, w) class ids on the embedding grid.
            generator: source of randomness.
            labelled: images of this process with ground truth, which come first; None: all.
        """
        size, scores = labels.shape[-2:], output.logits
        if scores.shape[-2:] != size:
            scores = F.interpolate(
                scores, size=size, mode="bilinear", align_corners=self.align_corners
            )
        maps = [gather_rows(m, same_rows=True) for m in (labels, scores.argmax(1))]
        mixed = labelled not in (None, 0, len(labels)) and world_size() > 1
        if mixed:
            order = labelled_first(len(labels), labelled or 0, labels.device)
            maps = [part[order] for part in maps]
        pool = PixelPool.build(
            *maps,
            num_classes=self.task.num_classes,
            ignore_index=self.task.ignore_index,
            generator=generator,
        )
        if not mixed:
            return pool
        pixels = size[0] * size[1]
        place = order[pool.order // pixels] * pixels + pool.order % pixels
        return replace(pool, order=place)

    def anchors(self, pool: PixelPool, generator: torch.Generator) -> AnchorSample:
        """Segmentation-aware hard anchors: balanced over classes, half of them mispredicted."""
        return pool.anchors(
            max_anchors=self.config.max_anchors,
            max_views=self.config.max_views,
            min_pixels=self.config.min_pixels,
            hard_fraction=self.config.hard_fraction,
            generator=generator,
        )

    def contrast(self, anchors: Tensor, labels: Tensor) -> Tensor:
        """L_NCE (equation 3) of anchors with each other and with the memory.

        Args:
            anchors: (N, D) unit length.
            labels: (N,) class ids, -1 for rows without a role.
        """
        config = self.config
        keys = None if self.memory is None else self.memory.keys()
        mutual = config.memory is None or config.memory.batch
        if keys is None or config.selection.strategy == "all":
            return pixel_info_nce(
                anchors,
                labels,
                None if keys is None else keys.vectors,
                None if keys is None else keys.labels,
                include_anchors=mutual,
                temperature=config.temperature,
                base_temperature=config.base_temperature,
            )
        return contrast_with_selected(
            anchors,
            labels,
            keys,
            selection=config.selection,
            synthesis=config.synthesis,
            mutual=mutual,
            temperature=config.temperature,
            base_temperature=config.base_temperature,
            random=self.random,
        )

    @torch.no_grad()
    def _statistics(self, rows: Tensor, anchors: AnchorSample) -> dict[str, Tensor]:
        """What the contrast does: how many anchors, how hard, how similar, how opposed."""
        valid = anchors.valid.float()
        count = valid.sum().clamp_min(1.0)
        labels = anchors.labels.clamp(0, self.task.num_classes - 1)
        member = F.one_hot(labels, self.task.num_classes).float() * valid[:, None]
        sums = member.T @ rows.float()
        sizes = member.sum(0)
        same = (sums.square().sum(1) - sizes).sum()
        same_pairs = (sizes * (sizes - 1)).sum()
        every = sums.sum(0).square().sum() - sizes.sum()
        every_pairs = sizes.sum() * (sizes.sum() - 1)
        keys = torch.zeros_like(sizes)
        if self.config.memory is None or self.config.memory.batch:
            keys = sizes
        if self.memory is not None:
            keys = keys + self.memory.filled()
        unopposed = keys.sum() == keys  # classes that all keys belong to
        return {
            "anchors": valid.sum(),
            "anchors_per_class": sizes,
            "anchor_classes": (sizes > 0).sum().float(),
            "hard_share": (anchors.hard.float() * valid).sum() / count,
            "positive_similarity": same / same_pairs.clamp_min(1.0),
            "negative_similarity": (every - same) / (every_pairs - same_pairs).clamp_min(1.0),
            "empty_negative_share": (sizes * unopposed).sum() / count,
        }


class PiCo(Method):
    """Cross-entropy plus pixel contrast within the batch and with a memory."""

    Config: ClassVar[type] = PicoConfig
    config: PicoConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.segmentation = self.segmentation_loss(self.config.segmentation)
        self.contrast = PicoContrast(
            self.config, self.task, self.random, align_corners=self.segmentor.align_corners
        )

    @classmethod
    def embedding_head(cls, config: PicoConfig) -> EmbeddingConfig:
        """The projection f_PROJ: pixels to unit vectors."""
        return config.embedding

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """L = L_CE + lambda L_NCE."""
        labeled = batch["labeled"]
        assert labeled.mask is not None  # the stream is a labelled one
        step = self.global_step
        output = self.segmentor(labeled.image, embed=self.contrast.needs_embedding(step))
        terms = self.segmentation(output, labeled.mask)
        if output.embedding is None:
            return LossReport({**terms, "contrast": self.segmentor.idle_heads(output)}, {})
        contrast = self.contrast(
            ContrastBatch(
                student=output,
                labels=labeled.mask,
                labelled=len(labeled.mask),
                step=step,
                index=labeled.index,
            )
        )
        return LossReport({**terms, **contrast.terms}, contrast.stats)

    def after_step(self) -> None:
        """The memory takes in what the batch left."""
        self.contrast.after_step()


def attached_zero(tensor: Tensor) -> Tensor:
    """0 in float32, through which every parameter behind `tensor` gets a zero gradient."""
    return tensor.flatten()[:0].float().sum()


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
