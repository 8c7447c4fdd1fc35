"""CutMix, ClassMix and CutOut on whole batches: image, label, confidence and valid map together.

Each mix is one map `keep` (B, H, W), true where a pixel stays. All draws come from a generator of
the caller and are made on its device: with a generator on the device of the batch no step waits for
the host, with one on the CPU the draws are the same on any device. On several processes the
generator must be the same everywhere: draws are made for the images of all of them, and each takes
those of its own, so that k processes with an even share each mix as one process would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from pixelcontrast.core.distributed import rank, world_size
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
        partner: another batch of the same shapes; None takes the images of `partners`.

    Raises:
        ConfigError: a batch of one image without a partner.
    """
    if partner is None:
        other = partners(len(keep), keep.device)
        partner = MixInput(
            own.image[other],
            *(
                None if part is None else part[other]
                for part in (own.label, own.confidence, own.valid)
            ),
        )
    return MixInput(
        image=paste(keep, own.image, partner.image),
        label=_paste_part(keep, own.label, partner.label),
        confidence=_paste_part(keep, own.confidence, partner.confidence),
        valid=_paste_part(keep, own.valid, partner.valid),
    )


def partners(count: int, device: torch.device | str = "cpu") -> Tensor:
    """(count,) the image each image of a batch is mixed with, never itself.

    Neighbours exchange: 0 with 1, 2 with 3; without a neighbour the last takes image 0. The
    released codes take image i + 1 (U2PL, PRCL) or the reversed batch (UniMatch V2); as the order
    of a batch is random, these differ in nothing but here: a batch split over processes into even
    shares keeps its pairs.

    Raises:
        ConfigError: fewer than two images.
    """
    if count < 2:
        raise ConfigError(
            "a single image cannot be mixed with itself",
            where="train.batch_unlabeled",
            fix="use at least 2 images per process in a batch, or switch mixing off",
        )
    order = torch.arange(count, device=device) ^ 1
    return order.where(order < count, 0)


def paste(keep: Tensor, mine: Tensor, theirs: Tensor) -> Tensor:
    """`mine` where `keep` (B, H, W) is true, else `theirs`; maps (B, H, W) or (B, C, H, W)."""
    return torch.where(keep if mine.dim() == keep.dim() else keep[:, None], mine, theirs)


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
    """The mixes as U2PL and PRCL draw them: rectangles of half the area, or half of the classes.

    Where further maps have to be mixed alike, use `draw_keep` with `mix`, `cut_out` and `paste`.
    """
    if kind == "none":
        return own
    keep = draw_keep(kind, own, num_classes=num_classes, generator=generator)
    if kind == "cutout":
        return cut_out(own, keep, fill=fill, ignore_index=ignore_index)
    return mix(own, keep, partner)


def draw_keep(kind: MixKind, own: MixInput, *, num_classes: int, generator: Generator) -> Tensor:
    """(B, H, W) bool, which pixels `random_mix` keeps.

    Raises:
        ConfigError: ClassMix without labels.
    """
    count, size = len(own.image), (own.image.shape[-2], own.image.shape[-1])
    device = own.image.device
    if kind == "none":
        return torch.ones(count, *size, dtype=torch.bool, device=device)
    if kind == "classmix":
        if own.label is None:
            raise ConfigError("ClassMix needs labels or pseudo-labels", fix="use cutmix instead")
        keep = class_keep(own.label, num_classes=num_classes, generator=generator)
        return keep if own.valid is None else keep & own.valid
    inside = inside_boxes(half_area_boxes(count, size, generator=generator), size)
    return ~inside.to(device, non_blocking=True)


def half_area_boxes(count: int, size: Size, *, generator: Generator) -> Tensor:
    """Boxes (count, 4) of half the area, as U2PL and PRCL draw them.

    The width is uniform in [W/2 + 1, W) and truncated, the height round(H W / 2 / width), the place
    uniform over all that fit.

    Returns:
        (top, bottom, left, right), ends excluded.
    """
    height, width = size
    draws = _draws(count, 3, generator)
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
    draws = _draws(count, 3 * tries, generator).view(count, 3, tries).unbind(1)
    once = _draws(count, 2, generator).unsqueeze(2).unbind(1)
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
    scores = _draws(count, num_classes, generator)
    scores = scores.to(label.device, non_blocking=True).masked_fill(~present, 2.0)
    rank = scores.argsort(dim=1).argsort(dim=1)
    chosen = rank < present.sum(dim=1, keepdim=True) // 2
    chosen = torch.cat([chosen, chosen.new_zeros(count, 1)], dim=1)
    return chosen.gather(1, flat).view_as(label)


def _draws(count: int, each: int, generator: Generator) -> Tensor:
    """(count, each) float64 uniform numbers for the images of this process."""
    shape = (world_size(), count, each)
    drawn = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
    return drawn[rank()]


def _paste_part(keep: Tensor, mine: Tensor | None, theirs: Tensor | None) -> Tensor | None:
    if mine is None and theirs is None:
        return None
    if mine is None or theirs is None:
        raise ValueError("the batch and its partner do not have the same parts")
    return paste(keep, mine, theirs)
