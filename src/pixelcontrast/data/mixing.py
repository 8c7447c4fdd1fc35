"""CutMix, ClassMix and CutOut on whole batches: image, label, confidence and valid map together.

Each mix is one map `keep` (B, H, W), true where a pixel stays. All draws come from a generator of
the caller and are made on its device: with a generator on the device of the batch no step waits for
the host, with one on the CPU the draws are the same on any device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.data.views import Size, inside_boxes

MixKind = Literal["none", "cutmix", "classmix", "cutout"]


@dataclass(frozen=True, slots=True)
class MixInput:
    """What is mixed; parts that do not exist stay None."""

    image: Tensor
    """(B, 3, H, W) of any type."""
    label: Tensor | None = None
    """(B, H, W) integer class ids, given or predicted."""
    confidence: Tensor | None = None
    """(B, H, W)."""
    valid: Tensor | None = None
    """(B, H, W) bool."""


def mix(own: MixInput, keep: Tensor, partner: MixInput | None = None) -> MixInput:
    """Every pixel from `own` where `keep` (B, H, W) is true, else from `partner`.

    Args:
        own: the batch.
        keep: which pixels stay.
        partner: another batch of the same shapes; None takes image i + 1 of the batch for image i,
            and the first for the last (U2PL), so that no image is mixed with itself.

    Raises:
        ConfigError: a batch of one image without a partner.
    """
    if partner is None:
        if len(keep) < 2:
            raise ConfigError(
                "a single image cannot be mixed with itself",
                fix="use at least 2 images per process in a batch, or switch mixing off",
            )
        partner = _next_images(own)
    return MixInput(
        image=_select(keep, own.image, partner.image),
        label=_select_part(keep, own.label, partner.label),
        confidence=_select_part(keep, own.confidence, partner.confidence),
        valid=_select_part(keep, own.valid, partner.valid),
    )


def cut_out(
    own: MixInput, keep: Tensor, *, fill: tuple[int, int, int], ignore_index: int
) -> MixInput:
    """The batch with everything outside `keep` (B, H, W) removed.

    There the image shows `fill`, the label is `ignore_index`, confidence 0, valid false.
    """
    channels = [
        own.image[:, channel].masked_fill(~keep, level) for channel, level in enumerate(fill)
    ]
    return MixInput(
        image=torch.stack(channels, dim=1),
        label=None if own.label is None else own.label.masked_fill(~keep, ignore_index),
        confidence=None if own.confidence is None else own.confidence.masked_fill(~keep, 0),
        valid=None if own.valid is None else own.valid & keep,
    )


def random_mix(
    kind: MixKind,
    own: MixInput,
    *,
    num_classes: int,
    ignore_index: int,
    generator: Generator,
    partner: MixInput | None = None,
    fill: tuple[int, int, int] = (124, 116, 104),
) -> MixInput:
    """The mixes as U2PL and PRCL draw them: rectangles of half the area, or half of the classes."""
    count, size = len(own.image), (own.image.shape[-2], own.image.shape[-1])
    if kind == "none":
        return own
    if kind == "classmix":
        if own.label is None:
            raise ConfigError("ClassMix needs labels or pseudo-labels", fix="use cutmix instead")
        keep = class_keep(own.label, num_classes=num_classes, generator=generator)
        if own.valid is not None:
            keep = keep & own.valid
        return mix(own, keep, partner)
    inside = inside_boxes(half_area_boxes(count, size, generator=generator), size)
    keep = ~inside.to(own.image.device, non_blocking=True)
    if kind == "cutout":
        return cut_out(own, keep, fill=fill, ignore_index=ignore_index)
    return mix(own, keep, partner)


def half_area_boxes(count: int, size: Size, *, generator: Generator) -> Tensor:
    """Boxes (count, 4) of half the area, as U2PL and PRCL draw them.

    The width is uniform in [W/2 + 1, W) and truncated, the height round(H W / 2 / width), the place
    uniform over all that fit.

    Returns:
        (top, bottom, left, right), ends excluded.
    """
    height, width = size
    draws = torch.rand(count, 3, generator=generator, device=generator.device, dtype=torch.float64)
    least = min(width / 2 + 1, float(width))
    across = (least + draws[:, 0] * (width - least)).floor().clamp(1, width)
    down = (height * width / 2 / across).round().clamp(1, height)
    return _boxes(across, down, draws[:, 1], draws[:, 2], size)


def area_boxes(
    count: int,
    size: Size,
    *,
    generator: Generator,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
) -> Tensor:
    """Boxes (count, 4) as UniMatch draws them, empty with probability 1 - `probability`.

    The area is drawn once a box; height / width and the corner are drawn until the box fits into
    the image. Here 256 tries are drawn at once and the first that fits is taken; should none fit
    (below 1e-9 at the defaults), the last is moved inside.

    Args:
        count: number of boxes.
        size: (H, W) of the images.
        generator: source of the draws.
        probability: chance of a box; 0.5 in UniMatch.
        area: range of the share of the image; the default is UniMatch's.
        ratio: range of height / width; the default is UniMatch's.

    Returns:
        (top, bottom, left, right), ends excluded.
    """
    height, width = size
    tries = 256
    draws = torch.rand(
        3, count, tries, generator=generator, device=generator.device, dtype=torch.float64
    )
    once = torch.rand(2, count, 1, generator=generator, device=generator.device)
    pixels = (area[0] + once[0] * (area[1] - area[0])) * height * width
    shape = ratio[0] + draws[0] * (ratio[1] - ratio[0])
    across = (pixels / shape).sqrt().floor()
    down = (pixels * shape).sqrt().floor()
    left = (draws[1] * width).floor()
    top = (draws[2] * height).floor()
    fits = (left + across <= width) & (top + down <= height)
    # argmax finds the first of equal values, and 0 where nothing fits.
    first = fits.int().argmax(dim=1, keepdim=True)
    top, left, down, across = (part.gather(1, first)[:, 0] for part in (top, left, down, across))
    down, across = down.clamp(max=height), across.clamp(max=width)
    top, left = torch.minimum(top, height - down), torch.minimum(left, width - across)
    boxes = torch.stack([top, top + down, left, left + across], dim=1).long()
    return boxes * (once[1] < probability)


def _boxes(across: Tensor, down: Tensor, x: Tensor, y: Tensor, size: Size) -> Tensor:
    top = (y * (size[0] - down + 1)).floor()
    left = (x * (size[1] - across + 1)).floor()
    return torch.stack([top, top + down, left, left + across], dim=1).long()


def class_keep(label: Tensor, *, num_classes: int, generator: Generator) -> Tensor:
    """Which pixels ClassMix keeps: those of a random half (rounded down) of an image's classes.

    Olsson et al. 2021; with one class nothing is kept, as in U2PL. Pixels without a class (ids of
    `num_classes` and above, or negative) are never kept and never count as a class.

    Args:
        label: (B, H, W) class ids.
        num_classes: C.
        generator: source of the draws.

    Returns:
        (B, H, W) bool.
    """
    count = len(label)
    flat = label.reshape(count, -1).long()
    flat = torch.where((flat >= 0) & (flat < num_classes), flat, num_classes)
    present = flat.new_zeros(count, num_classes + 1, dtype=torch.bool)
    present = present.scatter(1, flat, True)[:, :num_classes]
    scores = torch.rand(count, num_classes, generator=generator, device=generator.device)
    scores = scores.to(label.device, non_blocking=True).masked_fill(~present, 2.0)
    rank = scores.argsort(dim=1).argsort(dim=1)
    chosen = rank < present.sum(dim=1, keepdim=True) // 2
    chosen = torch.cat([chosen, chosen.new_zeros(count, 1)], dim=1)
    return chosen.gather(1, flat).view_as(label)


def _next_images(batch: MixInput) -> MixInput:
    """Image i + 1 at place i, the first at the last."""
    label, confidence, valid = (
        None if part is None else part.roll(-1, 0)
        for part in (batch.label, batch.confidence, batch.valid)
    )
    return MixInput(batch.image.roll(-1, 0), label, confidence, valid)


def _select(keep: Tensor, mine: Tensor, theirs: Tensor) -> Tensor:
    return torch.where(keep if mine.dim() == keep.dim() else keep[:, None], mine, theirs)


def _select_part(keep: Tensor, mine: Tensor | None, theirs: Tensor | None) -> Tensor | None:
    if mine is None and theirs is None:
        return None
    if mine is None or theirs is None:
        raise ValueError("the batch and its partner do not have the same parts")
    return _select(keep, mine, theirs)
