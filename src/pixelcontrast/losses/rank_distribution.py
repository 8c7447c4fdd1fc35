"""The same pixels should rank the landmarks of an image alike in two views: RankMatch's loss.

Mai, Sun, Zhang and Wu, "RankMatch: Exploring the Better Consistency Regularization for
Semi-supervised Semantic Segmentation" (CVPR 2024). The k landmarks most similar to a pixel are put
in order at random, by drawing without replacement with chances softmax(similarities)
(Plackett-Luce). Teacher and student each give a distribution over the k! orders; the loss is their
Kullback-Leibler divergence.

Drawing item by item, the divergence is a sum over the sets S that can remain,

    KL = sum over |S| >= 2 of R(S) KL(softmax(teacher[S]) || softmax(student[S])),

with R(S) the teacher's probability that exactly S remains at some time: R(all) = 1, and of R(S) the
share softmax(teacher[S])_i flows on to S without i. That is 2^k - k - 1 terms instead of k! orders,
and the gradient is a sum of the same form, so that it alone is kept for the backward pass.

Letters: B images, F features, N landmarks, h w feature map, P = h w pixels.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, permutations
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pixelcontrast.core.distributed import mean_over_ranks
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.losses.problem import statistics_dtype

RankMode = Literal["rank", "correlation"]

MAX_RANKED = 8
_CHUNK = 2**18
"""Numbers in one working array; some ten of them live at a time."""
_ABSENT = 200.0
"""How far below all others a missing item lies: far enough for a probability of 0."""


class RankConsistency(NamedTuple):
    """The loss and how well the student does."""

    loss: Tensor
    """() float32, attached to the student."""
    agreement: Tensor
    """() share of pixels where the student has the teacher's top landmarks in the same order."""


def rank_consistency(
    student: Tensor,
    teacher: Tensor,
    landmarks: Tensor,
    *,
    present: Tensor | None = None,
    valid: Tensor | None = None,
    k: int = 4,
    mode: RankMode = "rank",
    temperature: float = 1.0,
    normalise: bool = False,
    exclude_self: bool = False,
    detach_landmarks: bool = False,
) -> RankConsistency:
    """Divergence of the landmark rankings of two views, mean over images and pixels.

    The similarities are dot products of a pixel's features with those of the landmarks in the same
    view. Images without two landmarks contribute nothing. On several processes each returns its
    share of the mean over all.

    Args:
        student: (B, F, h, w) features of the strong view.
        teacher: (B, F, h, w) features of the weak view in the same geometry; gets no gradient.
        landmarks: (B, N) int64, flat pixel numbers, the same in both views.
        present: (B, N) bool, which of them exist; None: all.
        valid: (B, h, w) bool, the pixels that count; None: all.
        k: landmarks that are ranked, the teacher's most similar ones, 2 to 8 (paper: 4).
        mode: "rank", or "correlation": KL of the softmax over all N, the paper's straw man.
        temperature: divides the similarities (paper: 1).
        normalise: cosines in place of dot products (paper: no).
        exclude_self: a landmark is not compared with itself (paper: it is).
        detach_landmarks: no gradient through the student's landmark features (paper: there is).

    Raises:
        ConfigError: k out of range.
    """
    with torch.autocast(student.device.type, enabled=False):
        missing = _missing(landmarks, present, student[0, 0].numel(), exclude_self)
        with torch.no_grad():
            guide = _similarities(teacher, landmarks, normalise) / temperature
            guide = guide.masked_fill(missing, -torch.inf)
        own = _similarities(student, landmarks, normalise, detach=detach_landmarks) / temperature
        top, at = guide.topk(min(check_ranked(k), guide.shape[2]), dim=2)
        ranked = own.gather(2, at)
        usable = top.isfinite().sum(2) >= 2
        if valid is not None:
            usable = usable & valid.flatten(1)
        if mode == "rank":
            losses = rank_divergence(top, ranked)
        else:
            losses = _correlation(guide, own.masked_fill(missing, -torch.inf))
        count = usable.sum().float()
        # `where`, not a product: what does not count may be anything.
        loss = mean_over_ranks(losses.where(usable, 0).sum(), count)
        with torch.no_grad():
            order = ranked.masked_fill(top.isinf(), -torch.inf)
            alike = (order[..., :-1] >= order[..., 1:]).all(2) & usable
            agreement = alike.sum() / count.clamp_min(1)
    return RankConsistency(loss, agreement)


def _missing(landmarks: Tensor, present: Tensor | None, pixels: int, exclude_self: bool) -> Tensor:
    """(B, P or 1, N) bool, the landmarks a pixel is not compared with."""
    missing = torch.zeros_like(landmarks, dtype=torch.bool) if present is None else ~present
    missing = missing[:, None]
    if exclude_self:
        every = torch.arange(pixels, device=landmarks.device)
        missing = missing | (landmarks[:, None] == every[:, None])
    return missing


def _similarities(
    features: Tensor, landmarks: Tensor, normalise: bool, *, detach: bool = False
) -> Tensor:
    """(B, P, N) products of every pixel with the landmarks, in float32 or wider."""
    rows = features.flatten(2)
    rows = rows.to(statistics_dtype(rows.dtype))
    if normalise:
        rows = F.normalize(rows, dim=1)
    vectors = rows.gather(2, landmarks[:, None].expand(-1, rows.shape[1], -1))
    return torch.bmm(rows.transpose(1, 2), vectors.detach() if detach else vectors)


def _correlation(teacher: Tensor, student: Tensor) -> Tensor:
    """(B, P) KL of softmaxes over the last axis; minus infinity in both stands for a missing item.

    Rows with nothing in them give 0.
    """
    empty = teacher.isinf().all(2, keepdim=True)
    guide = teacher.masked_fill(empty, 0).log_softmax(2)
    own = student.masked_fill(empty, 0).log_softmax(2)
    return (guide.exp() * (guide - own).masked_fill(guide.isinf(), 0)).sum(2)


def check_ranked(k: int) -> int:
    """The number itself.

    Raises:
        ConfigError: k below 2, or so large that sets of k items become too many.
    """
    if not 2 <= k <= MAX_RANKED:
        raise ConfigError(f"{k} landmarks cannot be ranked", fix=f"use 2 to {MAX_RANKED}")
    return k


def rank_log_probabilities(logits: Tensor) -> Tensor:
    """Logarithms of the probabilities of all orders of k items, by enumeration.

    `log P(pi) = sum_n (z_pi(n) - logsumexp over m >= n of z_pi(m))` (Plackett-Luce), which sums to
    one for logits of any size. For looking at; `rank_divergence` does without.

    Args:
        logits: (..., k).

    Returns:
        (..., k!) in the lexicographic order of the permutations, in float32 or wider.
    """
    orders = list(permutations(range(logits.shape[-1])))
    scores = logits.to(statistics_dtype(logits.dtype))
    placed = scores[..., torch.tensor(orders, device=logits.device)]
    # A softmax at each stage: differences of running sums would lose digits of large logits.
    stages = [placed[..., n:].log_softmax(-1)[..., 0] for n in range(len(orders[0]))]
    return torch.stack(stages).sum(0)


def rank_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL divergence of the teacher's distribution over orders of k items from the student's.

    Works on a part of the rows at a time, and computes the gradient on the way.

    Args:
        teacher: (..., k) logits; minus infinity marks an item that does not exist.
        student: (..., k) logits of the same items, whatever it says about missing ones; gets the
            gradient.

    Returns:
        (...) in float32 or wider, at least 0 up to rounding; 0 with fewer than two items.
    """
    found: Tensor = _RankDivergence.apply(teacher.detach(), student)
    return found


class _RankDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, teacher: Tensor, student: Tensor) -> Tensor:
        dtype = statistics_dtype(student.dtype)
        count = teacher.shape[-1]
        levels = _levels(count, teacher.device)
        widest = max((level.members.numel() for level in levels), default=1)
        chunk = max(1, _CHUNK // widest)
        parts = [
            _divergence(guide, own, levels)
            for guide, own in zip(
                torch.split(teacher.reshape(-1, count).to(dtype), chunk),
                torch.split(student.reshape(-1, count).to(dtype), chunk),
                strict=True,
            )
        ]
        losses, gradients = (torch.cat(part) for part in zip(*parts, strict=True))
        ctx.save_for_backward(gradients.view(student.shape))
        ctx.dtype = student.dtype
        return losses.view(student.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        (own,) = ctx.saved_tensors
        return None, (gradients[0][..., None] * own).to(ctx.dtype)


def _divergence(
    teacher: Tensor, student: Tensor, levels: tuple[_Level, ...]
) -> tuple[Tensor, Tensor]:
    """Losses (R,) and gradients (R, k) for the student's logits of rows (R, k)."""
    absent = teacher.isinf()
    guide, own = (_without(part, absent).t().contiguous() for part in (teacher, student))
    reach = guide.new_ones(1, guide.shape[1])
    losses, gradients = torch.zeros_like(guide[0]), torch.zeros_like(guide)
    for level in levels:
        log_share = guide[level.members].log_softmax(0)
        log_own = own[level.members].log_softmax(0)
        share = log_share.exp()
        flow = share * reach
        losses += (flow * (log_share - log_own)).sum((0, 1))
        gradients += (log_own.exp() * reach - flow).flatten(0, 1)[level.places].sum(1)
        reach = flow.flatten(0, 1)[level.sources].sum(1)
    return losses, gradients.t().masked_fill(absent, 0)


def _without(logits: Tensor, absent: Tensor) -> Tensor:
    """Rows (R, k) moved to a maximum of 0, with missing items far below all others."""
    top = logits.masked_fill(absent, -torch.inf).amax(1, keepdim=True)
    moved = logits - top.where(top.isfinite(), 0)
    least = moved.masked_fill(absent, 0).amin(1, keepdim=True)
    return torch.where(absent, least - _ABSENT, moved)


class _Level(NamedTuple):
    """The sets of one size m out of k items; `flat` numbers run over (m, sets)."""

    members: Tensor
    """(m, sets) items of each set."""
    places: Tensor
    """(k, sets with the item) flat numbers of each item."""
    sources: Tensor
    """(sets of m - 1, k - m + 1) flat numbers of the removals that lead to each smaller set."""


@lru_cache(maxsize=32)
def _levels(k: int, device: torch.device) -> tuple[_Level, ...]:
    """All levels from k down to 2, kept so that no step copies them to the device."""
    found = []
    for size in range(k, 1, -1):
        sets = list(combinations(range(k), size))
        flat = {
            (item, one): place * len(sets) + number
            for number, one in enumerate(sets)
            for place, item in enumerate(one)
        }
        places = [[at for (item, _), at in flat.items() if item == i] for i in range(k)]
        sources = [
            [at for (item, one), at in flat.items() if set(one) - {item} == set(smaller)]
            for smaller in combinations(range(k), size - 1)
        ]
        tables = (list(zip(*sets, strict=True)), places, sources)
        found.append(_Level(*(torch.tensor(table, device=device) for table in tables)))
    return tuple(found)
