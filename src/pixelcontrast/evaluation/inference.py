"""Class probabilities and labels of an image: whole or by windows, at several scales, mirrored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.types import SegOutput
from pixelcontrast.evaluation.tiles import best_class, label_dtype, row_bands, upsampled_rows

SegModel: TypeAlias = Callable[[Tensor], SegOutput | Tensor]
"""A network in evaluation mode: RGB 0..255 (B, 3, H, W) to `SegOutput` or logits (B, C, h, w)."""


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    """How an image is shown to the network. The defaults are one pass over the whole image."""

    mode: Literal["whole", "slide"] = "whole"
    """`slide` moves a window of the training size over the image and averages the overlaps."""
    crop: tuple[int, int] | None = None
    """(height, width) of the window; clipped to the image where that is smaller."""
    stride: float = 2 / 3
    """Step of the window: up to 1 a share of the window, above that pixels. 2/3 is the step of the
    sliding evaluations of U2PL and UniMatch on Cityscapes."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes of the image, as factors of its own; probabilities are averaged."""
    flip: bool = False
    """Adds the mirrored image at every scale."""
    align_corners: bool = False
    """Upsampling of the class scores; as in training."""

    def __post_init__(self) -> None:
        """Refuses what cannot be run.

        Raises:
            ConfigError: an option that does not fit the others.
        """
        if self.mode not in ("whole", "slide"):
            raise ConfigError(f"unknown inference mode {self.mode!r}", fix="whole or slide")
        if self.mode == "slide" and (self.crop is None or min(self.crop) < 1):
            raise ConfigError(
                f"sliding windows need a window size, got crop={self.crop}",
                fix="set crop to the training crop, for example [513, 513]",
            )
        if not self.stride > 0:
            raise ConfigError(f"stride must be above 0, got {self.stride}")
        if not self.scales or not all(scale > 0 for scale in self.scales):
            raise ConfigError(f"scales must be positive numbers, got {self.scales}")


@torch.no_grad()
def predict_probabilities(
    model: SegModel, image: Tensor, config: InferenceConfig | None = None
) -> Tensor:
    """Class probabilities at image size: the mean softmax over windows, scales and mirroring.

    Apart from the result, memory holds one band of rows (and, for sliding windows at another scale,
    the probabilities at that scale).

    Args:
        model: see `SegModel`; its training flag is left as it is.
        image: (B, 3, H, W) RGB 0..255, any H and W from 1.
        config: None for one pass over the whole image.

    Returns:
        (B, C, H, W) float32, sums to 1 over C.
    """
    config = config or InferenceConfig()
    size = _size(image)
    total: Tensor | None = None
    for scale in config.scales:
        view = resized(image, scale)
        grid = size if config.mode == "whole" else _size(view)
        if grid == size:
            total = _add_passes(model, view, grid, config, total)
            continue
        scaled = _add_passes(model, view, grid, config, None)
        if total is None:
            total = scaled.new_zeros((*scaled.shape[:2], *size))
        for rows, band in upsampled_rows(scaled, size):
            total[:, :, rows] += band
    assert total is not None  # the configuration holds at least one scale
    return total.div_(len(config.scales) * (2 if config.flip else 1))


@torch.no_grad()
def predict_labels(
    model: SegModel, image: Tensor, config: InferenceConfig | None = None
) -> tuple[Tensor, Tensor]:
    """The most probable class of each pixel and its probability.

    A single pass over the whole image never holds the probabilities at image size: bands of rows
    are upsampled, reduced and dropped.

    Args:
        model: see `SegModel`.
        image: (B, 3, H, W) RGB 0..255.
        config: None for one pass over the whole image.

    Returns:
        Labels (B, H, W), uint8 up to 255 classes, else int16; confidence (B, H, W) float32 in 0..1.
    """
    config = config or InferenceConfig()
    size = _size(image)
    single = one_pass(config)
    if single:
        logits = _logits(model, resized(image, config.scales[0]))
        bands = upsampled_rows(logits, size, align_corners=config.align_corners)
    else:
        logits = predict_probabilities(model, image, config)
        bands = ((rows, logits[:, :, rows]) for rows in row_bands(logits))
    labels = logits.new_empty((len(logits), *size), dtype=label_dtype(logits.shape[1]))
    confidence = logits.new_empty(labels.shape, dtype=torch.float32)
    for rows, band in bands:
        best, labels[:, rows] = best_class(band)
        # softmax at the maximum is 1 / sum exp(score - maximum)
        confidence[:, rows] = (
            (band - best[:, None]).exp_().sum(dim=1).reciprocal_() if single else best
        )
    return labels, confidence


def one_pass(config: InferenceConfig) -> bool:
    """Whether the network sees each image once, as a whole."""
    return config.mode == "whole" and len(config.scales) == 1 and not config.flip


def _add_passes(
    model: SegModel,
    view: Tensor,
    grid: tuple[int, int],
    config: InferenceConfig,
    total: Tensor | None,
) -> Tensor:
    """Adds the probabilities of one scale, plain and mirrored, to `total` (B, C, *grid)."""
    for flipped in (False, True) if config.flip else (False,):
        for rows, columns, piece in _pieces(model, view, flipped, grid, config):
            if total is None:
                total = piece.new_zeros((*piece.shape[:2], *grid))
            total[:, :, rows, columns] += piece
    assert total is not None  # every pass yields at least one piece
    return total


def _pieces(
    model: SegModel, view: Tensor, flipped: bool, grid: tuple[int, int], config: InferenceConfig
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Weighted probabilities of one pass; the weights of all pieces add up to 1 at each pixel.

    Yields:
        Rows, columns (of the unmirrored grid) and the probabilities (B, C, rows, columns) there.
    """
    if flipped:
        view = view.flip(-1)
    if config.mode == "whole" or config.crop is None:
        logits = _logits(model, view)
        if flipped:
            logits = logits.flip(-1)
        for rows, band in upsampled_rows(logits, grid, align_corners=config.align_corners):
            yield rows, slice(None), band.softmax(dim=1)
        return
    height, width = min(config.crop[0], grid[0]), min(config.crop[1], grid[1])
    tops = window_starts(grid[0], height, config.stride)
    lefts = window_starts(grid[1], width, config.stride)
    # Where a window of the mirrored view lies in the unmirrored grid.
    placed = [grid[1] - left - width for left in lefts] if flipped else lefts
    share_y = _coverage(grid[0], height, tops, view.device).reciprocal_()
    share_x = _coverage(grid[1], width, placed, view.device).reciprocal_()
    for top in tops:
        for left, place in zip(lefts, placed, strict=True):
            window = view[..., top : top + height, left : left + width]
            logits = _logits(model, window)
            if flipped:
                logits = logits.flip(-1)
            columns = slice(place, place + width)
            window_size = (height, width)
            for rows, band in upsampled_rows(
                logits, window_size, align_corners=config.align_corners
            ):
                target_rows = slice(top + rows.start, top + rows.stop)
                weight = share_y[target_rows, None] * share_x[columns]
                yield target_rows, columns, band.softmax(dim=1).mul_(weight)


def window_starts(length: int, window: int, stride: float) -> list[int]:
    """Where windows begin so that they cover `length`; the last one ends at the border.

    Args:
        length: pixels to cover.
        window: pixels of one window, at most `length`.
        stride: up to 1 a share of the window, above that pixels (at most the window: no gaps).
    """
    step = stride * window if stride <= 1 else stride
    pixels = min(max(1, round(step)), window)
    count = ceil((length - window) / pixels) + 1
    return [min(i * pixels, length - window) for i in range(count)]


def _coverage(length: int, window: int, starts: list[int], device: torch.device) -> Tensor:
    """How many windows cover each position of a line."""
    count = torch.zeros(length, device=device)
    for start in starts:
        count[start : start + window] += 1
    return count


def _logits(model: SegModel, image: Tensor) -> Tensor:
    output = model(image)
    return output.logits if isinstance(output, SegOutput) else output


def _size(image: Tensor) -> tuple[int, int]:
    height, width = image.shape[-2:]
    if height < 1 or width < 1:
        raise ValueError(f"an image of shape {tuple(image.shape)} has no pixels")
    return height, width


def resized(image: Tensor, scale: float) -> Tensor:
    """The image (B, 3, H, W) bilinearly at `scale` times its size."""
    height, width = _size(image)
    size = (max(1, round(scale * height)), max(1, round(scale * width)))
    if size == (height, width):
        return image
    return F.interpolate(image.float(), size, mode="bilinear", align_corners=False)
