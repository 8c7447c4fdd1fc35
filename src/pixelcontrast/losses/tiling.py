"""Class-sorted tiles: which part of the similarity matrix holds positives, negatives or both.

Rows and keys are sorted by class (and first by image where negatives are restricted to it), so
that nearly every tile of the matrix holds one kind of pair and needs no mask.
Letters: N rows with a role, K keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


LAST = 2**52
"""Above every rank, and exact in float64."""


SMALLEST = 24
"""Fewer rows a tile than this on average cost more calls than masks save."""
Cuts = Literal["even", "near", "pure"]


class Share(IntEnum):
    """How much of a tile takes a role."""

    NONE = 0
    SOME = 1
    EVERY = 2


class Tile(NamedTuple):
    """A run of sorted rows."""

    start: int
    stop: int
    label_low: float
    label_high: float
    image_low: float
    image_high: float
    own_low: float
    """Lowest and highest position of these rows among the keys, where they are keys themselves."""
    own_high: float

    @property
    def at(self) -> slice:
        """The run as a slice."""
        return slice(self.start, self.stop)


class Roles(NamedTuple):
    """The roles of a pair of tiles."""

    denominator: Share
    positive: Share


@dataclass(frozen=True, slots=True)
class Rows:
    """One side of the matrix, sorted, rows without a role removed."""

    order: Tensor | None
    """(N,) position of each sorted row in the input; None: the input is sorted already."""
    labels: Tensor
    """(N,) ranks of the class ids, as floats so that comparisons are vectorised."""
    images: Tensor | None
    own: Tensor | None
    """(N,) sorted position of the row among the keys, -1: absent."""
    tiles: tuple[Tile, ...]

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Views of the sorted `values`, one a tile."""
        return tuple(values[tile.at] for tile in self.tiles)

    @property
    def count(self) -> int:
        """Number of rows with a role."""
        return len(self.labels)

    def take(self, vectors: Tensor, dtype: torch.dtype) -> Tensor:
        """The sorted rows of `vectors`, without a copy where none is needed."""
        rows = vectors[: self.count] if self.order is None else vectors[self.order]
        return rows.to(dtype).contiguous()

    def take_tile(self, vectors: Tensor, tile: Tile, dtype: torch.dtype) -> Tensor:
        """The sorted rows of one tile."""
        order = self.order
        return (vectors[tile.at] if order is None else vectors[order[tile.at]]).to(dtype)

    def put_back(self, rows: Tensor, total: int) -> Tensor:
        """Sorted rows at their place in the input of `total` rows, zeros elsewhere."""
        if self.order is None and len(rows) == total:
            return rows
        full = rows.new_zeros(total, *rows.shape[1:])
        if self.order is None:
            full[: len(rows)] = rows
        else:
            full[self.order] = rows
        return full


class SortedIds(NamedTuple):
    """Rows sorted on the device, before anything is known on the host."""

    order: Tensor
    inverse: Tensor
    labels: Tensor
    images: Tensor | None
    own: Tensor | None
    facts: Tensor
    """Number of rows with a role, sorted already or not, then for every tile where it starts and
    six bounds."""
    tiles: int


def ranks(*ids: Tensor) -> list[Tensor]:
    """Small numbers in the order of the ids and equal where they are equal; negative stays -1.

    Class ids may be any integers; their ranks fit exactly into a float.
    """
    ordered = torch.cat(ids).sort().values
    return [torch.searchsorted(ordered, part).masked_fill(part < 0, -1) for part in ids]


def sort_rows(
    labels: Tensor,
    images: Tensor | None,
    own: Tensor | None,
    size: int,
    dtype: torch.dtype,
    *,
    cuts: Cuts,
) -> SortedIds:
    """Rows sorted by image and label, those with a negative label last.

    Args:
        labels: (N,) ranks, negative: no role.
        images: (N,) ranks or None.
        own: (N,) position of each row among the sorted keys, negative: absent; or None.
        size: rows of a tile.
        dtype: float type of the sorted ids.
        cuts: "even" tiles; "near" a class start within a quarter of the size; "pure": one class
            a tile, unless classes are tiny (CPU, for it needs their number on the host).
    """
    valid = labels >= 0
    order = labels.masked_fill(~valid, LAST).argsort(stable=True)
    if images is not None:
        order = order[images.masked_fill(~valid, LAST)[order].argsort(stable=True)]
    at = torch.arange(len(labels), device=labels.device)
    inverse = torch.empty_like(order)
    inverse[order] = at
    ordered = labels[order]
    role = ordered >= 0
    sorted_images = None if images is None else images[order]
    sorted_own = None if own is None else own[order]
    starts = at[::size]
    if cuts != "even" and len(at):
        starts = _class_starts(starts, ordered, sorted_images, size, pure=cuts == "pure")
    sizes = torch.cat([starts, starts.new_tensor([len(at)])]).diff()
    facts = [role.sum()[None], (order == at).all()[None], starts]
    for ids in (ordered, sorted_images, sorted_own):
        facts += _bounds(ids, role, sizes)
    return SortedIds(
        order,
        inverse,
        ordered.to(dtype),
        None if sorted_images is None else sorted_images.to(dtype),
        None if sorted_own is None else sorted_own.to(dtype),
        torch.cat([fact.double() for fact in facts]),
        len(starts),
    )


def _class_starts(
    even: Tensor, labels: Tensor, images: Tensor | None, size: int, *, pure: bool
) -> Tensor:
    """Where tiles start: at every change of class or image, or at those near the `even` starts."""
    at = torch.arange(len(labels), device=labels.device)
    new = torch.ones_like(at, dtype=torch.bool)
    new[1:] = labels.diff() != 0
    if images is not None:
        new[1:] |= images.diff() != 0
    first = at.masked_fill(~new, 0).cummax(0).values
    if pure:
        starts = ((at - first) % size == 0).nonzero()[:, 0]
        return starts if len(starts) * SMALLEST <= len(at) else even
    before = first[even]
    after = at.masked_fill(~new, len(at)).flip(0).cummin(0).values.flip(0)[even]
    nearest = torch.where(even - before <= after - even, before, after)
    return torch.where((nearest - even).abs() <= size // 4, nearest, even)


def _bounds(ids: Tensor | None, role: Tensor, sizes: Tensor) -> list[Tensor]:
    """Lowest and highest id of every tile, over the rows with a role."""
    if ids is None or not len(ids):
        return [torch.zeros_like(sizes)] * 2
    low = ids.masked_fill(~role, LAST).double()
    high = ids.masked_fill(~role, -1).double()
    return [
        torch.segment_reduce(low, "min", lengths=sizes),
        torch.segment_reduce(high, "max", lengths=sizes),
    ]


def on_host(ids: SortedIds, facts: Sequence[float]) -> Rows:
    """The sorted rows with the host's view of their tiles, from `facts` brought to the host."""
    count, in_order = int(facts[0]), bool(facts[1])
    starts, *bounds = (facts[2 + k * ids.tiles : 2 + (k + 1) * ids.tiles] for k in range(7))
    stops = [*starts[1:], count][: len(starts)]
    return Rows(
        None if in_order else ids.order[:count],
        ids.labels[:count],
        None if ids.images is None else ids.images[:count],
        None if ids.own is None else ids.own[:count],
        tuple(
            Tile(int(start), min(int(stop), count), *(bound[k] for bound in bounds))
            for k, (start, stop) in enumerate(zip(starts, stops, strict=True))
            if start < count
        ),
    )


def roles(rows: Tile, keys: Tile, *, own_image: bool, negatives: bool, itself: bool) -> Roles:
    """What a pair of tiles can hold.

    Args:
        rows: anchors.
        keys: keys.
        own_image: negatives come from the anchor's image alone.
        negatives: the denominator holds the negatives alone, not the positives.
        itself: the tile may hold pairs of an anchor with itself.
    """
    same = rows.label_low <= keys.label_high and keys.label_low <= rows.label_high
    equal = same and rows.label_low == rows.label_high == keys.label_low == keys.label_high
    here = not own_image or (
        rows.image_low <= keys.image_high and keys.image_low <= rows.image_high
    )
    one_image = not own_image or (
        here and rows.image_low == rows.image_high == keys.image_low == keys.image_high
    )
    positive = _share(some=same, every=equal and not itself)
    if negatives:
        every = one_image and not same and not itself
        return Roles(_share(some=here and not equal, every=every), positive)
    return Roles(_share(some=here or same, every=(one_image or equal) and not itself), positive)


def _share(*, some: bool, every: bool) -> Share:
    return Share.EVERY if every else Share.SOME if some else Share.NONE
