"""What loading processes do: from draws of the sampler to batches of small integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pixelcontrast.core.errors import DataError, PixelContrastError
from pixelcontrast.core.types import Batch
from pixelcontrast.data.cache import FileReader, Reader
from pixelcontrast.data.colour import ColourConfig, apply_colour, draw_colour
from pixelcontrast.data.dataset import DatasetInfo, Sample
from pixelcontrast.data.pairs import Pairing, make_pair
from pixelcontrast.data.sampler import Draw
from pixelcontrast.data.views import ViewConfig, draw_view, inside_boxes


@dataclass(frozen=True, slots=True)
class Stream:
    """One row of batches that a method asks for."""

    name: str
    """Names the shuffling and the augmentation draws, and the batch in the training step."""
    labelled: bool
    """Whether masks are read; an unlabelled stream never opens a mask file."""
    strong_views: int = 0
    """How many strongly distorted copies of each crop; UniMatch uses two, FixMatch one."""
    hidden_masks: bool = False
    """Read the masks that images of an unlabelled stream happen to have into `Batch.hidden_mask`,
    to watch how good pseudo-labels are. Nothing is trained on them."""
    pair: Pairing | None = None
    """Show two views of each image that move along (PiCIE), drawn anew in every epoch."""

    @property
    def opens_masks(self) -> bool:
        """Whether mask files are read at all."""
        return self.labelled or self.hidden_masks


@dataclass(frozen=True, slots=True)
class EvalBatch:
    """Whole images of equal size."""

    image: Tensor
    """(B, 3, H, W) uint8 RGB."""
    index: Tensor
    """(B,) int64 position in the sample list."""
    ids: tuple[str, ...]
    mask: Tensor | None = None
    """(B, H, W) uint8 class ids; None where the images have no masks."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> EvalBatch:
        """The batch on another device."""
        return EvalBatch(
            self.image.to(device, non_blocking=non_blocking),
            self.index.to(device, non_blocking=non_blocking),
            self.ids,
            None if self.mask is None else self.mask.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> EvalBatch:
        """The batch in page-locked memory."""
        mask = None if self.mask is None else self.mask.pin_memory()
        return EvalBatch(self.image.pin_memory(), self.index.pin_memory(), self.ids, mask)


@dataclass(frozen=True, slots=True)
class TrainPart:
    """What a worker sends for one batch: 4 bytes a labelled pixel, the valid map as a box."""

    image: Tensor
    mask: Tensor | None
    strong: tuple[Tensor, ...]
    index: Tensor
    ids: tuple[str, ...]
    geometry: Tensor
    boxes: Tensor
    """(B, 4) int64 of `Geometry.valid_box`."""
    hidden_mask: Tensor | None = None
    grid_box: Tensor | None = None

    def batch(self) -> Batch:
        """The batch with its valid map drawn out."""
        height, width = self.image.shape[-2:]
        return Batch(
            image=self.image,
            valid=inside_boxes(self.boxes, (height, width)),
            index=self.index,
            ids=self.ids,
            geometry=self.geometry,
            mask=self.mask,
            strong=self.strong,
            hidden_mask=self.hidden_mask,
            grid_box=self.grid_box,
        )

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; called in the loader's pinning thread."""
        return self.batch().pin_memory()


@dataclass(frozen=True, slots=True)
class Failure:
    """A data error on its way out of a worker, which would otherwise bury it in a stack trace."""

    error: PixelContrastError


class TrainDataset(Dataset[Any]):
    """Maps the draws of a `StepSampler` to batches: item [(index, seed), ...] is a `TrainPart`."""

    def __init__(
        self,
        reader: Reader,
        samples: Sequence[Sample],
        *,
        stream: Stream,
        view: ViewConfig,
        strong: ColourConfig | None,
        ignore_index: int,
    ) -> None:
        self.reader = reader
        self.samples = samples
        self.stream = stream
        self.view = view
        self.strong = strong
        self.ignore_index = ignore_index

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draws: list[Draw]) -> TrainPart | Failure:
        try:
            return self._batch(draws)
        except PixelContrastError as error:
            return Failure(error)

    def _batch(self, draws: list[Draw]) -> TrainPart:
        count, (height, width) = len(draws), self.view.crop
        image = np.empty((count, 3, height, width), np.uint8)
        mask = None
        if self.stream.opens_masks:
            mask = np.full((count, height, width), self.ignore_index, np.uint8)
        strong = [np.empty_like(image) for _ in range(self.stream.strong_views)]
        geometry = np.empty((count, 2, 3), np.float32)
        boxes = np.empty((count, 4), np.int64)
        for place, (index, seed) in enumerate(draws):
            pixels = self.reader.image(index)
            labels = None
            if mask is not None and self.samples[index].mask is not None:
                labels = self.reader.mask(index)
                _require_same_size(pixels, labels, self.samples[index])
            # Each part has its own generator: another strong distortion leaves the crops alone.
            view = draw_view(
                pixels,
                labels,
                self.view,
                np.random.default_rng([seed, 0]),
                ignore_index=self.ignore_index,
            )
            _to_planes(view.image, image[place])
            if mask is not None and view.mask is not None:
                mask[place] = view.mask
            for number, planes in enumerate(strong):
                if self.strong is not None:
                    params = draw_colour(self.strong, np.random.default_rng([seed, 1 + number]))
                    _to_planes(apply_colour(view.image, params), planes[place])
            geometry[place] = view.geometry.matrix()
            boxes[place] = view.geometry.valid_box()
        masks = None if mask is None else torch.from_numpy(mask)
        return TrainPart(
            image=torch.from_numpy(image),
            mask=masks if self.stream.labelled else None,
            strong=tuple(torch.from_numpy(planes) for planes in strong),
            index=torch.tensor([index for index, _ in draws]),
            ids=tuple(self.samples[index].id for index, _ in draws),
            geometry=torch.from_numpy(geometry),
            boxes=torch.from_numpy(boxes),
            hidden_mask=None if self.stream.labelled else masks,
        )


class PairDataset(Dataset[Any]):
    """Item [(index, epoch), ...] is the `TrainPart` of these images: view 1, and view 2 as strong.

    Args:
        reader: the pixels.
        samples: the images.
        pairing: how the views differ.
        size: (H, W) of a view.
        colour: the distortion of each view; None: none.
        seed: seed of the run.
    """

    def __init__(
        self,
        reader: Reader,
        samples: Sequence[Sample],
        *,
        pairing: Pairing,
        size: tuple[int, int],
        colour: ColourConfig | None,
        seed: int,
    ) -> None:
        self.reader = reader
        self.samples = samples
        self.pairing = pairing
        self.size = size
        self.colour = colour
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draws: list[Draw]) -> TrainPart | Failure:
        try:
            return self._batch(draws)
        except PixelContrastError as error:
            return Failure(error)

    def _batch(self, draws: list[Draw]) -> TrainPart:
        count, (height, width) = len(draws), self.size
        views = [np.empty((count, 3, height, width), np.uint8)]
        if self.pairing.second:
            views.append(np.empty_like(views[0]))
        rows = np.empty((count, 5), np.int64)
        ids = tuple(self.samples[index].id for index, _ in draws)
        for place, (index, epoch) in enumerate(draws):
            first, second, box = make_pair(
                self.reader.image(index),
                self.pairing,
                self.size,
                self.colour,
                self.seed,
                epoch,
                ids[place],
            )
            _to_planes(first, views[0][place])
            if second is not None:
                _to_planes(second, views[1][place])
            rows[place] = box.row()
        image, *others = (torch.from_numpy(planes) for planes in views)
        return TrainPart(
            image=image,
            mask=None,
            strong=tuple(others),
            index=torch.tensor([index for index, _ in draws]),
            ids=ids,
            geometry=torch.eye(2, 3).expand(count, 2, 3),
            boxes=torch.tensor([[0, height, 0, width]]).expand(count, 4),
            grid_box=torch.from_numpy(rows),
        )


class EvalDataset(Dataset[Any]):
    """Item [index, ...] is the `EvalBatch` of these images, which must have equal sizes."""

    def __init__(self, samples: Sequence[Sample], info: DatasetInfo) -> None:
        self.samples = samples
        self.reader = FileReader(samples, info)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, indices: list[int]) -> EvalBatch | Failure:
        try:
            return self._batch(indices)
        except PixelContrastError as error:
            return Failure(error)

    def _batch(self, indices: list[int]) -> EvalBatch:
        images, masks = [], []
        for index in indices:
            pixels = self.reader.image(index)
            images.append(torch.from_numpy(pixels).permute(2, 0, 1))
            if self.samples[index].mask is not None:
                labels = self.reader.mask(index)
                _require_same_size(pixels, labels, self.samples[index])
                masks.append(torch.from_numpy(labels))
        return EvalBatch(
            image=torch.stack(images),
            index=torch.tensor(indices),
            ids=tuple(self.samples[index].id for index in indices),
            mask=torch.stack(masks) if masks else None,
        )


def _to_planes(image: NDArray[np.uint8], planes: NDArray[np.uint8]) -> None:
    """Copies (H, W, 3) into (3, H, W)."""
    for channel in range(3):
        cv2.extractChannel(image, channel, planes[channel])


def _require_same_size(image: NDArray[np.uint8], mask: NDArray[np.uint8], sample: Sample) -> None:
    if image.shape[:2] != mask.shape:
        raise DataError(
            f"the image has {image.shape[1]} x {image.shape[0]} pixels, "
            f"its mask {mask.shape[1]} x {mask.shape[0]}",
            where=sample.mask,
            fix="export image and mask at the same size",
        )
