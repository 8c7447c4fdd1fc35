"""Numbered pixels of every class, where a pixel may belong to several classes or to none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from pixelcontrast.core.distributed import gather_rows, rank

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Numbers(NamedTuple):
    """n chosen members of each class, by number."""

    number: Tensor
    """(C, n) int64 in [0, members of the class) where valid."""
    valid: Tensor
    """(C, n) bool: the class has as many members."""


class Pixels(NamedTuple):
    """Where chosen members lie."""

    position: Tensor
    """(C, n) int64 flat position image * h * w + row * w + column within this process."""
    mine: Tensor
    """(C, n) bool: the pixel lies in an image of this process; else `position` means nothing."""


@dataclass(frozen=True, slots=True)
class ClassMembers:
    """The members of each class in order of image, row and column, over all processes.

    Labelled images come first, then unlabelled ones, as in one process with all images. Choosing
    works on numbers alone, which are the same on all processes; only looking them up needs the
    maps of the process that owns the image. So k processes choose what one would.
    """

    total: Tensor
    """(C,) int64 members on all processes."""
    own: Tensor
    """(C, 2) int64 members on this process, in labelled and in unlabelled images."""
    first: Tensor
    """(C, 2) int64 number of the first of them."""
    running: Tensor
    """(C * P,) int32 members up to here, class after class, on this process."""

    @classmethod
    def build(cls, member: Tensor, labelled: int) -> ClassMembers:
        """Count the members.

        Args:
            member: (C, B, h, w) bool.
            labelled: how many of the B images are labelled ones.
        """
        own = torch.stack(
            [part.flatten(1).sum(1) for part in (member[:, :labelled], member[:, labelled:])], 1
        )
        everyone = gather_rows(own[None], same_rows=True)
        parts = everyone.sum(0)
        first = parts.cumsum(1) - parts + everyone[: rank()].sum(0)
        running = member.flatten().cumsum(0, dtype=torch.int32)
        return cls(parts.sum(1), own, first, running)

    def draw(self, amount: int, generator: Generator) -> Numbers:
        """`amount` members of each class, uniformly with replacement."""
        size = self.total[:, None]
        luck = torch.rand(
            (len(size), amount), generator=generator, device=size.device, dtype=torch.float64
        )
        number = (luck * size).long()  # below 1 times the size, so never the size itself
        return Numbers(number, (size > 0).expand(-1, amount))

    def spread(self, amount: int, generator: Generator) -> Numbers:
        """At most `amount` members of each class, in order, none twice, all equally likely.

        They lie at equal distances from a random start on, so they cover all images evenly.
        """
        size = self.total[:, None]
        place = torch.arange(amount, device=size.device)
        shift = torch.rand(size.shape, generator=generator, device=size.device)
        # In whole numbers: over all shifts and places, every member is met equally often.
        number = (place * size + (shift * size).long()) // size.clamp(1, amount)
        return Numbers(number, place < size)

    def last(self, amount: int) -> Numbers:
        """The last `amount` members of each class, in order."""
        size = self.total[:, None]
        number = size - amount + torch.arange(amount, device=size.device)
        return Numbers(number, number >= 0)

    def look_up(self, numbers: Numbers) -> Pixels:
        """Where the numbered members lie on this process."""
        pixels = self.running.numel() // self.total.numel()
        wanted = numbers.number[:, None] - self.first[:, :, None]
        within = (wanted >= 0) & (wanted < self.own[:, :, None])
        before = (self.own.flatten().cumsum(0) - self.own.flatten()).view_as(self.own)
        place = torch.where(within, before[:, :, None] + wanted + 1, 0).sum(1)
        found = torch.searchsorted(self.running, place.to(self.running.dtype))
        start = torch.arange(len(self.total), device=found.device)[:, None] * pixels
        return Pixels((found - start).clamp(0, pixels - 1), numbers.valid & within.any(1))
