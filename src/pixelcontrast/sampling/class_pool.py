"""Pixels of each class to draw from with replacement: anchors, and negatives of chosen classes.

Letters: C classes, G groups (classes with anchors), N anchors of a group, P pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True, slots=True)
class ClassPool:
    """All usable pixels, sorted by class, the hard ones of a class first.

    Everything is drawn independently, so nothing has to be shuffled.
    """

    order: Tensor
    """(P,) int64 flat positions, ignored pixels last."""
    starts: Tensor
    """(2 C + 1,) int64 where each part (class, hard or easy) starts in `order`."""

    @classmethod
    def build(cls, labels: Tensor, hard: Tensor, *, num_classes: int) -> ClassPool:
        """Sort the pixels once.

        Args:
            labels: (P,) class ids; values outside [0, C) are left out.
            hard: (P,) bool.
            num_classes: C.
        """
        known = (labels >= 0) & (labels < num_classes)
        part = torch.where(known, 2 * labels.long() + ~hard, 2 * num_classes)
        ordered, order = part.sort(stable=True)
        borders = torch.arange(2 * num_classes + 1, device=part.device)
        return cls(order, torch.searchsorted(ordered, borders))

    @property
    def sizes(self) -> Tensor:
        """(C,) number of pixels of every class."""
        return self.starts[::2].diff()

    @property
    def hard_sizes(self) -> Tensor:
        """(C,) number of hard pixels of every class."""
        return self.starts.diff()[::2]

    def hard_pixels(self, classes: Tensor, amount: int, *, generator: Generator) -> Tensor:
        """Uniform draws with replacement from the hard pixels of some classes.

        Args:
            classes: (G,) ids of classes with a hard pixel.
            amount: N.
            generator: source of randomness, on the device of the pool.

        Returns:
            (G, N) flat positions.
        """
        shape = (len(classes), amount)
        number = _uniform(self.hard_sizes[classes, None].expand(shape), generator)
        return self.order[self.starts[2 * classes, None] + number]

    def pixels_of(self, classes: Tensor, *, generator: Generator) -> Tensor:
        """A uniformly drawn pixel for every entry of `classes`, ids of classes with a pixel.

        Returns:
            Flat positions in the shape of `classes`.
        """
        number = _uniform(self.sizes[classes], generator)
        place = self.starts[2 * classes] + number
        return self.order[place.clamp_max(len(self.order) - 1)]  # for a class without a pixel


def draw_classes(weights_GC: Tensor, amount: int, *, generator: Generator) -> Tensor:
    """Independent draws of classes with given probabilities.

    Args:
        weights_GC: (G, C) weights, not negative, a positive one in every row.
        amount: draws a row.
        generator: source of randomness, on the device of the weights.

    Returns:
        (G, amount) class ids; a class of weight 0 is never drawn. Weights that are not numbers
        give some id.
    """
    bounds = weights_GC.double().cumsum(1)
    bounds = bounds / bounds[:, -1:]  # the last bound is exactly 1, above every draw
    draws = torch.rand(
        (len(bounds), amount), generator=generator, device=bounds.device, dtype=torch.float64
    )
    return torch.searchsorted(bounds, draws, right=True).clamp_max(bounds.shape[1] - 1)


def other_class_weights(similarity_CC: Tensor, present_C: Tensor) -> Tensor:
    """How often each class is the negative of another: a softmax over the other present classes.

    Xie et al. (2210.14670): classes whose distribution is closer are drawn more often.

    Args:
        similarity_CC: (C, C) scores over the temperature.
        present_C: (C,) bool.

    Returns:
        (C, C) rows that sum to 1, zero on the diagonal and for absent classes; all zero where no
        other class is present.
    """
    own = torch.eye(len(similarity_CC), dtype=torch.bool, device=similarity_CC.device)
    excluded = own | ~present_C
    return similarity_CC.masked_fill(excluded, -torch.inf).softmax(1).nan_to_num(0.0)


def _uniform(sizes: Tensor, generator: Generator) -> Tensor:
    """Independent whole numbers in [0, size) for every entry, from 32 random bits each."""
    bits = torch.randint(1 << 32, sizes.shape, generator=generator, device=sizes.device)
    return (bits * sizes) >> 32
