"""What PiCo remembers of earlier batches: pixels of every class, regions of every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pixelcontrast.core.distributed import rank, world_size
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.memory import ClassQueue, Keys, RegionMemory
from pixelcontrast.methods.base import Task
from pixelcontrast.methods.contrast import labelled_first
from pixelcontrast.sampling import PixelPool, gather_pixels, region_means

_STORAGE = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class PicoMemoryConfig:
    """Pixel queues and region memory of Wang et al. (ICCV 2021), section 3.3.

    D = 256 numbers a slot: 19 classes of Cityscapes with the defaults take 579 MB for pixels and
    58 MB for regions in fp32.
    """

    pixels: int | Literal["10n"] = "10n"
    """Slots T of each class for single pixels; `10n`: ten times the number of labelled training
    images (paper; 10,000 for COCO-Stuff and ADE20K); 0: no pixels."""
    max_pixels: int = 50_000
    """Upper bound of `10n`, just above the largest queue the paper fills by that rule
    (PASCAL-Context, 4998 images)."""
    pixels_per_image: int = 10
    """Random pixels V of a class that an image adds (paper: 10)."""
    regions: Literal["image", "fifo", "off"] = "image"
    """`image`: one slot per class and training image, which the image itself overwrites (paper).
    `fifo`: each image takes the next slot in turn (released code); so do images that come without
    a number."""
    max_regions: int | None = None
    """Slots of each class for regions; None: the number of labelled training images (paper).
    Image i uses slot i modulo this number."""
    storage: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Type of the stored vectors; similarities are computed in fp32 in any case."""
    batch: bool = True
    """The anchors of a batch stay each other's positives and negatives beside the memory; the
    released code then contrasts with the memory alone."""

    def __post_init__(self) -> None:
        if self.regions == "off" and self.pixels == 0:
            raise ConfigError(
                "a memory without pixels and without regions remembers nothing",
                where="method.memory",
                fix="leave method.memory out, or set pixels or regions",
            )
        slots = 1 if self.pixels == "10n" else self.pixels
        regions = 1 if self.max_regions is None else self.max_regions
        if slots < 0 or min(self.max_pixels, self.pixels_per_image, regions) < 1:
            raise ConfigError(
                f"memory sizes must be positive: {self}", where="method.memory", fix="use 1 or more"
            )


class PicoMemory(nn.Module):
    """Pixel queues and region memory, the same on all processes.

    Written in two moves: `keep` collects what a batch leaves, `write` stores it once the optimiser
    has moved, so that no backward pass meets a changed memory.

    Args:
        config: sizes.
        task: classes and number of training images.
        dim: D.

    Raises:
        ConfigError: a size that depends on the number of images, which is not known.
    """

    same_on_all_ranks = True
    images_seen: Tensor

    def __init__(self, config: PicoMemoryConfig, task: Task, dim: int) -> None:
        super().__init__()
        self.config = config
        self.task = task
        dtype = _STORAGE[config.storage]
        slots = pixel_slots(config, task)
        self.pixels = ClassQueue(task.num_classes, slots, dim, dtype=dtype) if slots else None
        self.regions: RegionMemory | None = None
        if config.regions != "off":
            images = config.max_regions or _images(task, "max_regions")
            self.regions = RegionMemory(task.num_classes, images, dim, dtype=dtype)
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self._pixels_to_write: list[tuple[Tensor, Tensor]] = []
        self._regions_to_write: list[tuple[Tensor, Tensor, Tensor]] = []

    def keys(self) -> Keys:
        """Pixels, then regions, filled or not; they count alike, as in the released code."""
        parts = [part.keys() for part in (self.pixels, self.regions) if part is not None]
        if len(parts) == 1:
            return parts[0]
        return Keys(*(torch.cat(fields) for fields in zip(*parts, strict=True)))

    def filled(self) -> Tensor:
        """(C,) filled slots of each class, pixels and regions together."""
        total = torch.zeros_like(self.images_seen).expand(self.task.num_classes)
        if self.pixels is not None:
            total = total + self.pixels.count
        if self.regions is not None:
            total = total + self.regions.filled[:-1].view(self.task.num_classes, -1).sum(1)
        return total

    def statistics(self) -> dict[str, Tensor]:
        """Share of the slots that are filled."""
        stats = {}
        if self.pixels is not None:
            stats["queue_fill"] = self.pixels.count.sum() / self.pixels.capacity.sum()
        if self.regions is not None:
            stats["region_fill"] = self.regions.filled[:-1].float().mean()
        return stats

    @torch.no_grad()
    def keep(
        self,
        embedding: Tensor,
        labels: Tensor,
        pool: PixelPool,
        index: Tensor | None,
        generator: torch.Generator,
        labelled: int | None = None,
    ) -> None:
        """Choose what to remember of this process's images.

        Args:
            embedding: (B, D, h, w) unit length.
            labels: (B, h, w) class ids on the same grid.
            pool: the pixels of the images of all processes, those with ground truth first.
            index: (B,) numbers of the images in the training set; None: they have none.
            generator: source of randomness, the same on all processes.
            labelled: images of this process with ground truth, which come first; None: all.
        """
        images = len(labels)
        given = images if labelled is None else labelled
        drawn: tuple[Tensor, ...] = ()
        if self.pixels is not None:
            sample = pool.per_class(self.config.pixels_per_image, generator=generator)
            own = slice(rank() * images, (rank() + 1) * images)
            places = labelled_first(images, given, labels.device).argsort()[own]
            grid = (self.task.num_classes, pool.images, -1)
            drawn = tuple(f.view(grid)[:, places] for f in (sample.index, sample.labels))
        # What all processes leave of the labelled images is written first, as by a single one.
        for part in (slice(0, given), slice(given, images)):
            if part.stop > part.start:
                self._keep_part(embedding, labels, drawn, index, part)

    def _keep_part(
        self,
        embedding: Tensor,
        labels: Tensor,
        drawn: tuple[Tensor, ...],
        index: Tensor | None,
        part: slice,
    ) -> None:
        """What the images of `part` leave: pixels at `drawn`, (C, B, V) each, and regions."""
        images = part.stop - part.start
        if self.pixels is not None:
            rows, classes = (field[:, part].flatten() for field in drawn)
            # Rows without a class may lie in images of other processes.
            local = (rows - rank() * labels.numel()).clamp(0, labels.numel() - 1)
            vectors = gather_pixels(embedding, local)
            self._pixels_to_write.append((vectors, classes))
        if self.regions is not None:
            number = self.images_seen + rank() * images + torch.arange(images, device=labels.device)
            self.images_seen += world_size() * images
            if index is not None and self.config.regions == "image":
                number = index[part].to(labels.device)
            region = region_means(
                embedding[part],
                labels[part],
                num_classes=self.task.num_classes,
                ignore_index=self.task.ignore_index,
            )
            self._regions_to_write.append((region.vectors, region.labels, number[region.image]))

    def write(self) -> None:
        """Store what was kept since the last call, in that order."""
        for pixels in self._pixels_to_write:
            assert self.pixels is not None
            self.pixels.enqueue(*pixels, same_rows=True)
        for regions in self._regions_to_write:
            assert self.regions is not None
            self.regions.store(*regions, same_rows=True)
        self._pixels_to_write.clear()
        self._regions_to_write.clear()


def pixel_slots(config: PicoMemoryConfig, task: Task) -> int:
    """Slots T of a class.

    Raises:
        ConfigError: ten times the number of training images, and that number is not known.
    """
    if config.pixels == "10n":
        return min(10 * _images(task, "pixels"), config.max_pixels)
    return config.pixels


def _images(task: Task, key: str) -> int:
    if not task.num_images:
        raise ConfigError(
            "the size of the memory follows from the number of labelled images, which is not known",
            where=f"method.memory.{key}",
            fix="give a number",
        )
    return task.num_images
