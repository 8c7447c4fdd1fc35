"""Exact pixel contrast without the similarity matrix.

The matrix of N anchors and K keys is computed in tiles, and again in the backward pass, so that
memory stays a few copies of the embeddings. Rows are sorted by class first; a tile then holds
negatives or positives alone, and the second sweep that the loss of Wang et al. (ICCV 2021) needs,
because each positive has its own denominator, visits only the tiles the first one skipped.
Plain PyTorch, any device. Letters: D embedding, N anchors, K keys.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pixelcontrast.losses.key_tiles import KeyTiles
from pixelcontrast.losses.precision import fast_products
from pixelcontrast.losses.problem import (
    AnchorTerms,
    Contrast,
    count_positives,
    refuse_second_order,
    statistics_dtype,
)
from pixelcontrast.losses.self_tiles import SelfTiles
from pixelcontrast.losses.settings import Settings
from pixelcontrast.losses.tile_math import LN2, Pull, Statistics
from pixelcontrast.losses.tiling import Cuts, Rows, on_host, ranks, sort_rows
from pixelcontrast.losses.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator


KEPT_BYTES = 2 * 2**24
"""Size of a matrix whose upper half, 16 MiB, is kept rather than computed twice."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A contrast, sorted and cut into tiles."""

    rows: Rows
    key_rows: Rows | None
    mutual: bool
    settings: Settings
    counts: Tensor
    """(n,) positives of each sorted anchor."""
    inv_temperature: float
    keep: bool
    """The symmetric half of the matrix is small enough to be kept for the backward pass."""


# Python decides tile by tile: a clean break in a compiled graph.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def stream_terms(contrast: Contrast) -> AnchorTerms:
    """Loss and number of positives of each anchor, in memory linear in anchors and keys.

    On a GPU the tile plan (a few numbers a tile) is brought to the host once a call.
    """
    keys = None if contrast.keys is None else contrast.keys.vectors
    with torch.no_grad():
        counts = count_positives(contrast)
        plan = make_plan(contrast, counts)
    loss: Tensor = _Stream.apply(contrast.anchors, keys, plan)
    return AnchorTerms(loss, counts)


def make_plan(contrast: Contrast, counts: Tensor) -> Plan:
    """Rows sorted by class, tiles, and the constants of the formula."""
    anchors, key_set = contrast.anchors, contrast.keys
    dtype = statistics_dtype(anchors.dtype)
    own_image = contrast.images is not None

    label_ids, image_ids = [contrast.labels], [contrast.images]
    vectors = [anchors]
    if key_set is not None:
        label_ids.append(key_set.labels)
        image_ids.append(key_set.images)
        vectors.append(key_set.vectors)
    labels = ranks(*label_ids)
    images: list[Tensor | None] = [None] * len(labels)
    if own_image:
        # Image -1, that of memory rows, is an image like any other.
        present = [ids for ids in image_ids if ids is not None]
        images = list(ranks(*(ids + 1 for ids in present)))

    sides = []
    own = None
    others = 0 if key_set is None else len(key_set.labels)
    if key_set is not None:
        size = tile_size(others, anchors.device)
        sides.append(sort_rows(labels[1], images[1], None, size, dtype, cuts="even"))
        if key_set.own is not None and len(key_set.labels):
            at = sides[0].inverse[key_set.own.clamp_min(0)]
            own = at.masked_fill(key_set.own < 0, -1)
    size = tile_size(len(anchors), anchors.device)
    sides.insert(0, sort_rows(labels[0], images[0], own, size, dtype, cuts=_cuts(contrast, others)))
    norms = torch.stack([_longest(v) for v in vectors])
    facts = torch.cat([norms, *(side.facts for side in sides)]).tolist()
    longest = facts[: len(vectors)]
    hosted, start = [], len(vectors)
    for side in sides:
        stop = start + len(side.facts)
        hosted.append(on_host(side, facts[start:stop]))
        start = stop

    rows = hosted[0]
    settings = Settings.of(
        contrast.inv_temperature,
        negatives=contrast.denominator == "negatives",
        own_image=own_image,
        norms=(longest[0], max(longest) if contrast.mutual else longest[-1]),
        keys=sum(len(ids) for ids in label_ids),
        dtype=dtype,
    )
    in_order = counts[: rows.count] if rows.order is None else counts[rows.order]
    return Plan(
        rows,
        hosted[1] if key_set is not None else None,
        contrast.mutual,
        settings,
        in_order.to(dtype),
        contrast.inv_temperature,
        contrast.mutual and settings.bounded and rows.count**2 * dtype.itemsize <= KEPT_BYTES,
    )


def _cuts(contrast: Contrast, keys: int) -> Cuts:
    """How the anchors are cut into tiles.

    A few anchors against many keys: with one class a tile no mask is needed, and the second sweep
    is as short as it can be. Among themselves: tiles that end with a class need fewer masks, but
    their odd sizes slow large products.
    """
    count = len(contrast.labels)
    if keys >= 8 * count and contrast.anchors.device.type == "cpu":
        return "pure"
    return "near" if contrast.mutual and count <= 4096 else "even"


def tile_size(count: int, device: torch.device) -> int:
    """Rows of a tile.

    A float32 tile of 1 MiB stays in a core's cache, a GPU needs longer rows. Edges that are a
    multiple of 256 slow the transposed product by a quarter (cache lines that collide).
    """
    if device.type != "cpu":
        return 2048
    target = 288 if count <= 2048 else 528
    pieces = max(round(count / target), 1)
    edge = -(-count // (16 * pieces)) * 16
    return max(edge + 16 if edge % 256 == 0 else edge, 16)


def _longest(vectors: Tensor) -> Tensor:
    """Greatest length of a row, as a float64 scalar."""
    if not vectors.numel():
        return vectors.new_zeros((), dtype=torch.float64)
    wide = statistics_dtype(vectors.dtype)
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, dtype=wide)
    return lengths.amax().double()


class _Stream(torch.autograd.Function):
    """Loss of each anchor; the gradient is formed in tiles."""

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, keys: Tensor | None, plan: Plan) -> Tensor:
        need_anchors, need_keys = ctx.needs_input_grad[:2]
        ctx.plan = plan
        ctx.save_for_backward(anchors, keys)
        with _private_arithmetic(anchors, keys):
            collect = need_anchors and not need_keys
            parts = _parts(anchors, keys, plan, collect=collect)
            stats = _statistics(parts, plan)
            ctx.pull = _pull(stats, plan) if need_anchors or need_keys else None
            ctx.kept, ctx.collected = parts if plan.keep else None, None
            if collect and parts.against is not None:
                repel = ctx.pull.repel
                if stats.shift is not None:
                    repel = torch.where(stats.total > 0, repel / stats.total, 0.0)
                ctx.collected = parts.against.collected(repel, _per_positive(plan))
            loss: Tensor = plan.rows.put_back(_loss(stats, plan), len(anchors))
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        refuse_second_order()
        plan: Plan = ctx.plan
        anchors, keys = ctx.saved_tensors
        need_anchors, need_keys = ctx.needs_input_grad[:2]
        order = plan.rows.order
        with _private_arithmetic(anchors, keys):
            weight = grad[: plan.rows.count] if order is None else grad[order]
            weight = weight.to(plan.counts.dtype) * plan.inv_temperature
            pull = ctx.pull.times(weight)
            parts = ctx.kept or _parts(anchors, keys, plan, collect=False)
            of_anchors = of_keys = mirrored = None
            if isinstance(parts.among, SelfTiles):
                of_anchors = parts.among.gradient(pull)
            elif parts.among is not None:
                of_anchors, mirrored = parts.among.gradient(
                    pull, need_anchors=need_anchors, need_keys=need_anchors
                )
            if ctx.collected is not None:
                more = ctx.collected * weight[:, None]
            elif parts.against is not None:
                more, of_keys = parts.against.gradient(
                    pull, need_anchors=need_anchors, need_keys=need_keys
                )
            else:
                more = None
            of_anchors = _sum(of_anchors, more)
            del parts, more
            if of_anchors is not None:
                of_anchors = plan.rows.put_back(of_anchors, len(anchors))
            of_anchors = _sum(of_anchors, mirrored)
        return (
            None if of_anchors is None or not need_anchors else of_anchors.to(anchors.dtype),
            None if of_keys is None else of_keys.to(keys.dtype),
            None,
        )


class _Parts(NamedTuple):
    """The matrix of one plan: anchors among each other, and against keys."""

    among: SelfTiles | KeyTiles | None
    against: KeyTiles | None


def _parts(
    anchors: Tensor,
    keys: Tensor | None,
    plan: Plan,
    *,
    collect: bool,
) -> _Parts:
    """The work to be done.

    Args:
        anchors: (N, D) as the user gave them.
        keys: (K, D) or None.
        plan: of the same two.
        collect: form the anchors' gradient against the keys during the sweeps.
    """
    rows, key_rows, settings = plan.rows, plan.key_rows, plan.settings
    in_order = rows.take(anchors, plan.counts.dtype)
    work = Workspace(in_order)
    among: SelfTiles | KeyTiles | None = None
    against: KeyTiles | None = None
    if plan.mutual and settings.bounded:
        among = SelfTiles(in_order, rows, settings, work, keep=plan.keep)
    elif plan.mutual:
        among = KeyTiles(in_order, rows, anchors, rows, settings, work, collect=False)
    if keys is not None and key_rows is not None:
        against = KeyTiles(in_order, rows, keys, key_rows, settings, work, collect=collect)
    return _Parts(among, against)


def _statistics(parts: _Parts, plan: Plan) -> Statistics:
    """The sums of each sorted anchor."""
    stats = Statistics.zeros(plan.counts, bounded=plan.settings.bounded)
    used = [part for part in parts if part is not None]
    for part in used:
        part.add_denominators(stats)
    if plan.settings.negatives:
        for part in used:
            part.add_positives(stats)
    return stats


def _loss(stats: Statistics, plan: Plan) -> Tensor:
    """(n,) loss of each sorted anchor, 0 without a positive."""
    loss = stats.value / plan.counts.clamp_min(1)
    if not plan.settings.negatives:
        loss = stats.log2_total() - loss
    return torch.where(plan.counts > 0, loss, 0.0) * LN2


def _per_positive(plan: Plan) -> Tensor:
    """(n,) 1 / number of positives, 0 without one."""
    return torch.where(plan.counts > 0, 1 / plan.counts.clamp_min(1), 0.0)


def _pull(stats: Statistics, plan: Plan) -> Pull:
    """The part of every anchor of weight 1 in the gradient."""
    each = _per_positive(plan)
    repel = stats.sigma * each if plan.settings.negatives else (each > 0).to(each.dtype)
    some = stats.total > 0
    if stats.shift is None:
        attract = stats.total * each if plan.settings.negatives else each
        return Pull(torch.where(some, repel / stats.total, 0.0), attract, stats.total, None)
    shift = torch.where(some, stats.log2_total(), float("inf"))
    total = some.to(each.dtype)
    return Pull(repel, total * each if plan.settings.negatives else each, total, shift)


def _sum(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return left if right is None else right
    return left.add_(right)


@contextmanager
def _private_arithmetic(anchors: Tensor, keys: Tensor | None) -> Iterator[None]:
    """No autocast, and half-precision matrix units where they lose nothing."""
    vectors = [anchors] if keys is None else [anchors, keys]
    with torch.autocast(anchors.device.type, enabled=False), fast_products(*vectors):
        yield
