"""Contrast of uncertain embeddings: the probabilistic pixel contrast of PRCL.

Letters: D embedding, G groups (classes with anchors), K keys, M negatives of an anchor,
N anchors of a group, V virtual negatives of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pixelcontrast.core.errors import ConfigError, unknown_name
from pixelcontrast.losses.likelihood import ScoreReduction, unit
from pixelcontrast.losses.problem import statistics_dtype

CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**26}
"""One tensor of gathered negatives: on a CPU a few of them stay in the cache of a core."""


class Distributions(NamedTuple):
    """Gaussians with independent components."""

    mean: Tensor
    """(..., D), of any length: the score compares directions."""
    variance: Tensor
    """(..., D), positive; 1e-9 is small enough for every use in float32."""


def distribution_info_nce(
    anchors: Distributions,
    positives: Distributions,
    keys: Distributions,
    negatives_GNM: Tensor,
    *,
    virtual_GVD: Tensor | None = None,
    virtual_mask_GV: Tensor | None = None,
    temperature: float = 100.0,
    reduction: ScoreReduction = "sum",
) -> Tensor:
    """Cross-entropy of each anchor over its class's distribution, its negatives and virtual ones.

    Xie et al. (AAAI 2023, 2210.14670) and, with virtual negatives, (IJCV 2024, 2402.18117): the
    logits are mutual likelihood scores (`losses.likelihood`) over the temperature, the target is
    the positive. Gradients reach the anchors alone.

    Both variances stand in one denominator, so no product of matrices gives the scores of real
    negatives: chunks of them are gathered, scored, and turned into the anchors' gradient at once,
    so that memory does not grow with N M D and nothing is recomputed. Virtual negatives are
    points, whose scores are matrix products; these cancel for small variances and run in float64.

    Args:
        anchors: (G, N, D).
        positives: (G, D).
        keys: (K, D), the pixels negatives are drawn from.
        negatives_GNM: (G, N, M) rows of `keys`.
        virtual_GVD: (G, V, D) points.
        virtual_mask_GV: (G, V) bool, False: not there. Default: all are.
        temperature: 100 in PRCL, for the sum.
        reduction: of the score over D; "mean" with temperature T is "sum" with D T.

    Returns:
        (G, N) losses in float32 or wider; 0 for an anchor without any negative.

    Raises:
        ConfigError: an option without meaning or shapes that do not fit together.
    """
    if not temperature > 0:
        raise ConfigError(f"temperature must be positive, not {temperature}")
    if reduction not in ("sum", "mean"):
        raise unknown_name("reduction", reduction, ("sum", "mean"))
    groups, count, dim = anchors.mean.shape
    if virtual_GVD is None:
        virtual_GVD = anchors.mean.new_zeros(groups, 0, dim)
    if virtual_mask_GV is None:
        virtual_mask_GV = virtual_GVD.new_ones(virtual_GVD.shape[:2], dtype=torch.bool)
    fitting = {
        "negatives": (negatives_GNM.shape[:2], (groups, count)),
        "positives": (positives.mean.shape, (groups, dim)),
        "virtual negatives": (virtual_GVD.shape[::2], (groups, dim)),
        "mask of virtual negatives": (virtual_mask_GV.shape, virtual_GVD.shape[:2]),
        "keys": (keys.mean.shape[1:], (dim,)),
    }
    for name, (found, wanted) in fitting.items():
        if tuple(found) != tuple(wanted):
            raise ConfigError(f"{name} of sizes {tuple(found)} where {tuple(wanted)} are needed")
    wide = statistics_dtype(anchors.mean.dtype)
    device = anchors.mean.device.type
    with torch.autocast(device, enabled=False):
        problem = _Problem(
            positives=Distributions(unit(positives.mean).to(wide), positives.variance.to(wide)),
            keys=Distributions(unit(keys.mean.detach()).to(wide), keys.variance.detach().to(wide)),
            negatives=negatives_GNM,
            virtual=unit(virtual_GVD.double()),
            virtual_mask=virtual_mask_GV,
            scale=0.5 / temperature / (dim if reduction == "mean" else 1),
            gradient=torch.is_grad_enabled(),
        )
        losses: Tensor = _Contrast.apply(unit(anchors.mean), anchors.variance.to(wide), problem)
    return losses


@dataclass(frozen=True, slots=True)
class _Problem:
    """Everything that gets no gradient; means have unit length."""

    positives: Distributions
    keys: Distributions
    negatives: Tensor
    virtual: Tensor
    virtual_mask: Tensor
    scale: float
    """A logit is minus this times `sum_l [(a - b)_l^2 / v_l + log v_l]`."""
    gradient: bool


class _Contrast(torch.autograd.Function):
    """Losses (G, N) whose gradient is formed with them: upstream gradients only scale its rows."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, variance: Tensor, problem: _Problem) -> Tensor:
        with torch.autocast(mean.device.type, enabled=False):
            losses, mean_gradient, variance_gradient = _solve(mean, variance, problem)
        ctx.save_for_backward(mean_gradient, variance_gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        mean_gradient, variance_gradient = ctx.saved_tensors
        rows = upstream[0][..., None]
        return rows * mean_gradient, rows * variance_gradient, None


def _solve(
    mean: Tensor, variance: Tensor, problem: _Problem
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    positive, push_positive = _against_positives(mean, variance, problem)
    virtual, push_virtual = _against_virtual(mean, variance, problem)
    known = torch.cat([positive[..., None], virtual], -1)
    lse, gradients = _against_negatives(mean, variance, known.logsumexp(-1), problem)
    losses = lse - positive
    if gradients is None:
        return losses, None, None
    # Weight of a logit in the gradient: its probability, less one for the positive.
    push_positive((positive - lse).expm1(), *gradients)
    if virtual.shape[-1]:
        push_virtual((virtual - lse[..., None]).exp(), *gradients)
    return losses, *gradients


def _against_positives(mean: Tensor, variance: Tensor, problem: _Problem) -> tuple[Tensor, Any]:
    """(G, N) logits, and what adds their share to the two gradients."""
    inverse = (variance + problem.positives.variance[:, None]).reciprocal()
    slope = (mean - problem.positives.mean[:, None]) * inverse
    energy = (slope.square() / inverse).sum(-1) - inverse.log().sum(-1)

    def push(weight: Tensor, mean_gradient: Tensor, variance_gradient: Tensor) -> None:
        row = (-problem.scale * weight)[..., None]
        mean_gradient.add_(2 * row * slope)
        variance_gradient.add_(row * (inverse - slope.square()))

    return -problem.scale * energy, push


def _against_virtual(mean: Tensor, variance: Tensor, problem: _Problem) -> tuple[Tensor, Any]:
    """(G, N, V) logits, and what adds their share to the two gradients.

    A point has no variance, so `sum (a - b)^2 / v = sum a^2 / v - 2 (a / v) b + (1 / v) b^2`.
    """
    points = problem.virtual
    inverse = variance.double().reciprocal()
    slope = mean * inverse
    energy = torch.baddbmm(slope @ points.mT, inverse, points.square().mT, alpha=1.0, beta=-2.0)
    energy += ((mean * slope) - inverse.log()).sum(-1, keepdim=True)
    logits = (-problem.scale * energy).to(mean.dtype)
    logits = logits.masked_fill(~problem.virtual_mask[:, None], -torch.inf)

    def push(weight: Tensor, mean_gradient: Tensor, variance_gradient: Tensor) -> None:
        weight = weight.double()
        total = weight.sum(-1, keepdim=True)
        pull = weight @ points
        spread = mean.square() * total - 2 * mean * pull + weight @ points.square()
        mean_gradient.add_(-2 * problem.scale * inverse * (mean * total - pull))
        variance_gradient.add_(-problem.scale * inverse * (total - inverse * spread))

    return logits, push


def _against_negatives(
    mean: Tensor, variance: Tensor, known_lse: Tensor, problem: _Problem
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """(G, N) log-sum-exp with the negatives, and the share of the negatives in the gradients."""
    index = problem.negatives.flatten(0, 1)
    means, variances = mean.flatten(0, 1), variance.flatten(0, 1)
    gradients = (torch.zeros_like(means), torch.zeros_like(variances))
    lse = known_lse.flatten().clone()
    amount, dim = index.shape[1], means.shape[1]
    size = CHUNK_BYTES.get(means.device.type, CHUNK_BYTES["cuda"])
    step = max(1, size // max(1, amount * dim * means.element_size()))
    space = means.new_empty(4, min(step, len(index)) * amount, dim)
    for start in range(0, len(index) if amount else 0, step):
        at = slice(start, start + step)
        chosen = index[at]
        rows = len(chosen)
        inverse, delta, slope, spare = (part[: chosen.numel()] for part in space)
        torch.index_select(problem.keys.variance, 0, chosen.flatten(), out=inverse)
        torch.index_select(problem.keys.mean, 0, chosen.flatten(), out=delta)
        inverse, delta, slope, spare = (
            part.view(rows, amount, dim) for part in (inverse, delta, slope, spare)
        )
        inverse += variances[at, None]
        energy = _log_sum(inverse, spare)
        inverse.reciprocal_()
        delta -= means[at, None]
        torch.mul(delta, inverse, out=slope)
        energy += delta.mul_(slope).sum(-1)
        logits = energy.mul_(-problem.scale)
        lse[at] = torch.logaddexp(lse[at], logits.logsumexp(-1))
        if problem.gradient:
            weight = (logits - lse[at, None]).exp_().mul_(problem.scale)[:, None]
            gradients[0][at] = 2 * torch.bmm(weight, slope)[:, 0]
            gradients[1][at] = torch.bmm(weight, slope.square_().sub_(inverse))[:, 0]
    shape = mean.shape
    both = (gradients[0].view(shape), gradients[1].view(shape)) if problem.gradient else None
    return lse.view(shape[:2]), both


def _log_sum(values: Tensor, spare: Tensor) -> Tensor:
    """Sum of logarithms over the last axis, as logarithms of products of up to four.

    Four factors of 1e-9 or more do not leave float32.

    Args:
        values: (n, M, D), left as it is.
        spare: the same shape, overwritten.
    """
    dim = values.shape[-1]
    if dim % 4:
        return torch.log(values, out=spare).sum(-1)
    first, second, third, fourth = values.view(*values.shape[:-1], 4, dim // 4).unbind(-2)
    product = torch.mul(first, second, out=spare[..., : dim // 4])
    product.mul_(third).mul_(fourth)
    return product.log_().sum(-1)
