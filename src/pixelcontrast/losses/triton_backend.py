"""Exact pixel contrast on NVIDIA GPUs: launches the kernels of `triton_kernels`.

Forward and backward of the two losses defined there ("negatives": each positive against the other
classes; "all": each positive against every other key), in memory linear in the number of rows. The
caller sorts rows and keys by label, ignored ones last, and says in a tensor how many are not
ignored. Nothing here reads a value back from the device, so a training step is never stalled.

Precision. The vectors enter the matrix products as fp16, whatever they come in:

* float16 is taken as it is.
* bfloat16 is first multiplied by the power of two that brings the largest entry of the matrix into
  [2^13, 2^14). Both steps are exact for all entries within a factor 2^27 of the largest (fp16 has
  the finer significand, bf16 only the wider range), so nothing that matters to an inner product is
  lost. Logits and gradients are scaled back in fp32.
* float32 likewise. It loses what tf32 would lose: both formats keep 11 significant bits, and the
  scaling replaces the wider range of tf32. So float32 is supported only where the user has allowed
  such products: under autocast, or with `torch.set_float32_matmul_precision("high")`. Elsewhere
  the PyTorch engine keeps every bit.

Logits, log-sum-exps, sums over positives and accumulators are fp32 whatever the input. Gradients
are returned in fp32: with tens of thousands of anchors their entries are below the normal range of
fp16. The weights of the gradient are rounded to fp16 only as an operand of the last product, after
the scaling described at `_GRADIENT_SCALE`.

Results are bitwise repeatable on one kind of GPU; the number of column splits, and with it the
order of summation, follows the number of multiprocessors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from pixelcontrast.losses.triton_launch import Denominator, Launch

if TYPE_CHECKING:
    from torch import Tensor

_LOG2E = math.log2(math.e)
_TINY = 1e-30
# Gradient weights enter the last product as w_i q_i / max |w q| (or 1, where a row is scaled by
# itself) times a softmax share, all at most 1, times this power of two. Two roles add up to at most
# 2^15, inside fp16; a weight stays a normal fp16 number down to 2^-28 of the largest.
_GRADIENT_SCALE = 2.0**14
# The largest entry of a bf16 matrix gets this binary exponent (frexp convention) before fp16.
_FP16_EXPONENT = 14


def triton_available() -> bool:
    """Whether Triton is installed and an NVIDIA GPU of compute capability 8.0 or later is there."""
    return (
        find_spec("triton") is not None
        and torch.version.cuda is not None
        and torch.cuda.is_available()
        and torch.cuda.get_device_capability() >= (8, 0)
    )


def supports(dtype: torch.dtype, dim: int) -> bool:
    """Whether vectors of this format and length can be contrasted here.

    Args:
        dtype: float16 and bfloat16 always, float32 under autocast or where torch may use tf32.
        dim: D, a multiple of 16 from 16 to 256. Tiles are padded to the next power of two.
    """
    if dim % 16 or not 16 <= dim <= 256:
        return False
    if dtype == torch.float32:
        return torch.is_autocast_enabled("cuda") or _tf32_allowed()
    return dtype in (torch.float16, torch.bfloat16)


def _tf32_allowed() -> bool:
    setting = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    if setting is None:  # torch before 2.9
        return torch.get_float32_matmul_precision() != "highest"
    return bool(setting == "tf32")


def forward(
    a_ND: Tensor,
    a_labels_N: Tensor,
    b_KD: Tensor,
    b_labels_K: Tensor,
    self_index_N: Tensor | None,
    counts: Tensor,
    inv_temperature: float,
    denominator: Denominator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss and row statistics of every anchor.

    Args:
        a_ND: (N, D) anchors, contiguous, sorted by label.
        a_labels_N: (N,) classes, ascending; those of ignored anchors above all others.
        b_KD: (K, D) keys, contiguous, sorted by label.
        b_labels_K: (K,) classes, ascending; those of ignored keys above all others.
        self_index_N: (N,) row of `b_KD` that is the anchor's own pixel (a key of the anchor's
            class), -1 for an anchor without one; None when no anchor is among the keys.
        counts: (2,) anchors and keys that are not ignored.
        inv_temperature: 1 / temperature, positive.
        denominator: "negatives" or "all".

    Returns:
        Four (N,) float32: loss, 0 without positives and, for "negatives", without negatives;
        natural log-sum-exp of the denominator, -inf when it is empty; number of positives; mean
        over the positives of sigmoid(lse - s), ones for "all". Ignored anchors have neither loss
        nor positives.
    """
    negatives = denominator == "negatives"
    if not len(a_ND) or not len(b_KD):
        zero = torch.zeros(len(a_ND), device=a_ND.device)
        return zero, zero - math.inf, zero.clone(), zero.clone() if negatives else zero + 1.0
    matrix = _Matrix.of(a_ND, b_KD, counts, inv_temperature, denominator)
    start, end = _class_range(a_labels_N, b_labels_K)
    own = _as_index(self_index_N)
    positives = (end - start).float()
    if own is not None:
        positives -= (own >= 0).float()
    positives *= _takes_part(len(a_ND), counts[0])

    lse2 = matrix.statistics(start, end, own)
    value, sigma = matrix.positives(start, end, own, lse2)
    lse = lse2 / _LOG2E
    divisor = positives.clamp(min=1.0)
    mean = value / _LOG2E / divisor
    loss = torch.where(positives > 0, mean if negatives else lse - mean, 0.0)
    return loss, lse, positives, sigma / divisor if negatives else torch.ones_like(lse)


def backward(
    a_ND: Tensor,
    a_labels_N: Tensor,
    b_KD: Tensor,
    b_labels_K: Tensor,
    self_index_N: Tensor | None,
    counts: Tensor,
    inv_temperature: float,
    denominator: Denominator,
    lse_N: Tensor,
    positives_N: Tensor,
    q_N: Tensor,
    row_weight_N: Tensor,
    need_a: bool,
    need_b: bool,
    symmetric: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradient of the sum over i of row_weight_i * loss_i.

    Args:
        a_ND: (N, D) anchors as given to `forward`; likewise all up to `denominator`.
        a_labels_N: (N,).
        b_KD: (K, D).
        b_labels_K: (K,).
        self_index_N: (N,) or None.
        counts: (2,).
        inv_temperature: 1 / temperature.
        denominator: "negatives" or "all".
        lse_N: (N,) second result of `forward`.
        positives_N: (N,) third result.
        q_N: (N,) fourth result.
        row_weight_N: (N,) incoming gradient of each anchor's loss, 0 for anchors left out.
        need_a: compute the gradient of the anchors.
        need_b: compute the gradient of the keys; without effect when symmetric.
        symmetric: anchors and keys are one tensor; the first result covers both roles.

    Returns:
        (N, D) and (K, D) float32, each None when it was not asked for.
    """
    need_b = need_b and not symmetric
    if not len(a_ND) or not len(b_KD):
        return (
            torch.zeros(a_ND.shape, device=a_ND.device) if need_a else None,
            torch.zeros(b_KD.shape, device=b_KD.device) if need_b else None,
        )
    matrix = _Matrix.of(a_ND, b_KD, counts, inv_temperature, denominator)
    own = _as_index(self_index_N)
    weight = row_weight_N.float()
    takes_part = (positives_N > 0) & (lse_N != -math.inf)
    # An infinite log-sum-exp makes every exponential of an anchor that takes no part 0.
    lse2 = torch.where(takes_part, lse_N * _LOG2E, math.inf)

    def anchors(relative_weight: Tensor) -> _Anchors:
        scaled = torch.where(takes_part, relative_weight * _GRADIENT_SCALE, 0.0)
        return _Anchors(lse2, scaled * q_N, scaled / positives_N.clamp(min=1.0), own)

    largest = (weight * q_N).abs().amax().clamp(min=_TINY)
    grad_a = grad_b = None
    if need_a and symmetric:
        both = anchors(weight / largest)
        start, end = _class_range(a_labels_N, b_labels_K)
        grad_a = matrix.gradient(start, end, largest, both, both)
    elif need_a:
        # Rows alone act as anchors, so each is scaled by itself, however small its own weight.
        q = q_N.clamp(min=_TINY)
        start, end = _class_range(a_labels_N, b_labels_K)
        grad_a = matrix.gradient(start, end, weight * q, anchors(1.0 / q), None)
    if need_b:
        start, end = _class_range(b_labels_K, a_labels_N)
        columns = anchors(weight / largest)
        grad_b = matrix.transposed().gradient(start, end, largest, None, columns)
    return grad_a, grad_b


@dataclass(frozen=True, slots=True)
class _Anchors:
    """Per anchor (N,): base-2 log-sum-exp, factor on negatives, on positives, own key or None."""

    lse: Tensor
    repel: Tensor
    attract: Tensor
    own: Tensor | None


@dataclass(frozen=True, slots=True)
class _Matrix:
    """The matrix of logits, given by its rows and columns in a format of the kernels."""

    rows: Tensor
    columns: Tensor
    row_unit: Tensor
    """() float32: stored rows times this are the true rows."""
    column_unit: Tensor
    counts: Tensor
    """(2,) int32 rows and columns that take part."""
    inv_temperature: float
    denominator: Denominator

    @classmethod
    def of(
        cls,
        rows: Tensor,
        columns: Tensor,
        counts: Tensor,
        inv_temperature: float,
        denominator: Denominator,
    ) -> _Matrix:
        """Convert both sides, once when they are the same tensor."""
        left = _kernel_format(rows, counts[0])
        right = left if rows is columns else _kernel_format(columns, counts[1])
        counts = counts.to(torch.int32)
        return cls(left[0], right[0], left[1], right[1], counts, inv_temperature, denominator)

    def transposed(self) -> _Matrix:
        """Rows and columns exchanged."""
        return replace(
            self,
            rows=self.columns,
            columns=self.rows,
            row_unit=self.column_unit,
            column_unit=self.row_unit,
            counts=self.counts.flip(0),
        )

    def statistics(self, start: Tensor, end: Tensor, own: Tensor | None) -> Tensor:
        """(N,) base-2 log-sum-exp of the denominator."""
        launch = Launch.plan("statistics", self.rows, self.columns)
        parts = start.new_zeros((launch.splits, len(start)), dtype=torch.float32)
        pointers = start, end, _or(own, start), self._scale(), parts, self.counts
        launch(*pointers, denominator=self.denominator, HAS_SELF=own is not None)
        return parts[0] if launch.splits == 1 else torch.logsumexp(parts / _LOG2E, 0) * _LOG2E

    def positives(
        self, start: Tensor, end: Tensor, own: Tensor | None, lse2: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N,) sums over the positives: base-2 softplus (or logit), and sigma."""
        launch = Launch.plan("positives", self.rows, self.columns)
        value, sigma = lse2.new_zeros((2, launch.splits, len(start)))
        pointers = start, end, _or(own, start), self._scale(), lse2, value, sigma, self.counts
        launch(*pointers, denominator=self.denominator, HAS_SELF=own is not None)
        return value.sum(0), sigma.sum(0)

    def gradient(
        self,
        start: Tensor,
        end: Tensor,
        factor: Tensor,
        rows: _Anchors | None,
        columns: _Anchors | None,
    ) -> Tensor:
        """(N, D) gradient of the rows from the roles that are given, times `factor`, () or (N,)."""
        launch = Launch.plan("gradient", self.rows, self.columns)
        given = [role for role in (rows, columns) if role is not None]
        roles: list[Tensor] = []
        for role in (rows, columns):
            each = role or given[0]  # pointers of a role that is not given are never read
            roles += [each.lse, each.repel, each.attract, _or(each.own, start)]
        unit = self.column_unit * (self.inv_temperature / _GRADIENT_SCALE)
        factors = (factor * unit).expand(len(start)).contiguous()
        parts = factors.new_zeros((launch.splits, *self.rows.shape))
        launch(
            *(start, end, *roles, self._scale(), factors, parts, self.counts),
            denominator=self.denominator,
            HAS_SELF=given[0].own is not None,
            ROWS_ACT=rows is not None,
            COLUMNS_ACT=columns is not None,
        )
        return parts[0] if launch.splits == 1 else parts.sum(0)

    def _scale(self) -> Tensor:
        """(1,) factor from products of stored vectors to base-2 logits."""
        return (self.row_unit * self.column_unit * (self.inv_temperature * _LOG2E)).reshape(1)


def _class_range(labels: Tensor, sorted_labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) int32 first and one past the last position of each label among sorted labels."""
    labels = labels.to(sorted_labels.dtype).contiguous()
    sorted_labels = sorted_labels.contiguous()
    start = torch.searchsorted(sorted_labels, labels, out_int32=True)
    return start, torch.searchsorted(sorted_labels, labels, out_int32=True, right=True)


def _as_index(own: Tensor | None) -> Tensor | None:
    return None if own is None else own.to(torch.int32).contiguous()


def _or(tensor: Tensor | None, unread: Tensor) -> Tensor:
    return unread if tensor is None else tensor


def _takes_part(total: int, count: Tensor) -> Tensor:
    """(total,) bool: the first `count`."""
    return torch.arange(total, device=count.device) < count


def _kernel_format(vectors: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Contiguous fp16 vectors and the () float32 unit they are stored in.

    The first `count` of them decide on it; what the others become does not matter.
    """
    vectors = vectors.detach().contiguous()
    one = torch.ones((), device=vectors.device)
    if vectors.dtype == torch.float16:
        return vectors, one
    each = torch.linalg.vector_norm(vectors, math.inf, dim=1).float()
    largest = torch.where(_takes_part(len(each), count), each, 0.0).amax()
    # Within 2^100 the power and its inverse are numbers of either format.
    shift = (_FP16_EXPONENT - torch.frexp(largest).exponent).clamp(-100, 100)
    stored = torch.empty_like(vectors, dtype=torch.float16)
    torch.mul(vectors, torch.ldexp(one, shift).to(vectors.dtype), out=stored)
    return stored, torch.ldexp(one, -shift)
