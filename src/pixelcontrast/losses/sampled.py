"""Contrast of each anchor with samples of its own: hard, semi-hard, random or made-up ones.

Letters: D embedding, K keys, M negatives, N anchors, P positives, S synthesised negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from pixelcontrast.core.errors import ConfigError, unknown_name
from pixelcontrast.losses.pixel_info_nce import reduce_terms
from pixelcontrast.losses.problem import AnchorTerms, checked_vectors, statistics_dtype
from pixelcontrast.losses.rowwise import split_row_terms

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixelcontrast.losses.problem import Denominator, Reduction

CHUNK_BYTES = 2**25
"""Samples or similarities held at a time."""
GATHER_RATIO = 128
"""Below this many keys a sample, similarities with every key are cheaper than gathered vectors:
a matrix product runs at a hundred times the rate of a gather."""


def sampled_info_nce(
    anchors_ND: Tensor,
    positives: Tensor,
    negatives: Tensor,
    keys_KD: Tensor | None = None,
    *,
    positive_mask_NP: Tensor | None = None,
    negative_mask_NM: Tensor | None = None,
    synthetic_NSD: Tensor | None = None,
    extra_NE: Tensor | None = None,
    extra_positive_NE: Tensor | None = None,
    extra_negative_NE: Tensor | None = None,
    temperature: float = 0.1,
    base_temperature: float | None = None,
    denominator: Denominator = "negatives",
    weights_N: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """`pixel_info_nce` with positives and negatives chosen for each anchor.

    With one positive this is cross-entropy over (positive, negatives), the form of U2PL (Wang et
    al., CVPR 2022) and ReCo. Anchors are worked off in chunks and recomputed in the backward
    pass, so memory does not grow with anchors times samples times width.

    Args:
        anchors_ND: (N, D) embeddings.
        positives: (N, P) rows of `keys_KD`, or (N, P, D) vectors.
        negatives: (N, M) rows of `keys_KD`, or (N, M, D) vectors; a first size of 1 serves every
            anchor.
        keys_KD: (K, D) what indices point to; receives a gradient if it requires one.
        positive_mask_NP: (N, P) bool, False: no positive. Default: all.
        negative_mask_NM: (N, M) bool, False: no negative. Default: all.
        synthetic_NSD: (N, S, D) made-up hard negatives for the denominator; no gradient.
        extra_NE: (N, E) finite inner products of the anchors with samples of any other kind, for
            example each other; with gradient.
        extra_positive_NE: (N, E) bool, True: a positive. Default: none.
        extra_negative_NE: (N, E) bool, True: a negative. Default: none.
        temperature: divides the similarities; 0.1 in Wang et al. (ICCV 2021), 0.5 in U2PL.
        base_temperature: the loss is multiplied by temperature / base_temperature; None: by 1.
        denominator: "negatives" or "all", as in `pixel_info_nce`.
        weights_N: (N,) weight of each anchor in the sum and in the mean.
        reduction: weighted "mean" over the anchors with a positive, "sum" or "none".

    Raises:
        ConfigError: arguments that do not fit together.
    """
    if not temperature > 0:
        raise ConfigError(f"temperature must be positive, not {temperature}")
    if denominator not in ("negatives", "all"):
        raise unknown_name("denominator", denominator, ("negatives", "all"))
    checked_vectors("anchors", anchors_ND)
    count, dim = anchors_ND.shape
    if keys_KD is not None:
        checked_vectors("keys", keys_KD, dim)
    _check_samples("positives", positives, anchors_ND, keys_KD)
    _check_samples("negatives", negatives, anchors_ND, keys_KD)
    form = _Form(1.0 / temperature, denominator)
    masks = [
        _mask(name, mask, samples, anchors_ND)
        for name, mask, samples in (
            ("positive_mask_NP", positive_mask_NP, positives),
            ("negative_mask_NM", negative_mask_NM, negatives),
        )
    ]
    if extra_NE is None:
        extra_NE = anchors_ND.new_zeros(count, 0)
    no_role = torch.zeros_like(extra_NE, dtype=torch.bool)
    masks += [
        no_role if mask is None else _mask(name, mask, extra_NE, anchors_ND)
        for name, mask in (
            ("extra_positive_NE", extra_positive_NE),
            ("extra_negative_NE", extra_negative_NE),
        )
    ]
    synthetic = None if synthetic_NSD is None else synthetic_NSD.detach()
    wide = max(_row_bytes(positives, negatives, synthetic, keys_KD, dim), 1)
    wide += 4 * extra_NE.shape[1]
    step = max(CHUNK_BYTES // wide, 1)
    # A single chunk fits as a whole; of several each is computed again in the backward pass, or,
    # where nothing but the anchors has a gradient, this is formed at once.
    terms_of: Callable[..., Tensor] = form.terms
    if step < count:
        others = (positives, negatives, extra_NE, keys_KD)
        if any(t is not None and t.requires_grad for t in others):
            terms_of = partial(
                checkpoint, form.terms, use_reentrant=False, preserve_rng_state=False
            )
        elif anchors_ND.requires_grad and torch.is_grad_enabled():
            terms_of = partial(_with_gradient, form)
    parts = []
    for start in range(0, count, step):
        at = slice(start, start + step)
        rows = (_rows_of(t, at) for t in (positives, negatives, synthetic))
        parts.append(
            terms_of(anchors_ND[at], *rows, extra_NE[at], *(mask[at] for mask in masks), keys_KD)
        )
    dtype = statistics_dtype(anchors_ND.dtype)
    loss = torch.cat(parts) if parts else anchors_ND.sum(1).to(dtype)
    terms = AnchorTerms(loss, masks[0].sum(1) + masks[2].sum(1))
    scale = 1.0 if base_temperature is None else temperature / base_temperature
    return reduce_terms(terms, weights_N, reduction) * scale


@dataclass(frozen=True, slots=True)
class _Form:
    inv_temperature: float
    denominator: Denominator

    def terms(
        self,
        anchors: Tensor,
        positives: Tensor,
        negatives: Tensor,
        synthetic: Tensor | None,
        extra: Tensor,
        positive: Tensor,
        negative: Tensor,
        extra_positive: Tensor,
        extra_negative: Tensor,
        keys: Tensor | None,
    ) -> Tensor:
        """(n,) loss of a chunk of anchors."""
        with torch.autocast(anchors.device.type, enabled=False):
            rows = anchors.to(statistics_dtype(anchors.dtype)) * self.inv_temperature
            extra = extra.to(rows.dtype) * self.inv_temperature
            if positives.is_floating_point() or negatives.is_floating_point():
                up, down = (similarities(rows, s, keys) for s in (positives, negatives))
            else:
                both = [index.expand(len(rows), -1) for index in (positives, negatives)]
                found = similarities(rows, torch.cat(both, 1), keys)
                up, down = torch.split(found, [index.shape[1] for index in both], 1)
            logits, roles = [down, extra], [negative, extra_negative]
            if synthetic is not None:
                logits.append(similarities(rows, synthetic, None))
                roles.append(torch.ones_like(logits[-1], dtype=torch.bool))
            return split_row_terms(
                torch.cat([up, extra], 1),
                torch.cat([positive, extra_positive], 1),
                torch.cat(logits, 1),
                torch.cat(roles, 1),
                self.denominator,
            )


def _with_gradient(form: _Form, anchors: Tensor, *samples: Any) -> Tensor:
    """`form.terms` that keeps its gradient, as large as the anchors, in place of its inputs."""
    loss: Tensor = _RowLosses.apply(anchors, form, samples)
    return loss


class _RowLosses(torch.autograd.Function):
    """The loss of a row depends on one anchor alone, so its gradient needs no upstream value."""

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, form: _Form, samples: tuple[Any, ...]) -> Tensor:
        with torch.enable_grad():
            leaf = anchors.detach().requires_grad_()
            loss = form.terms(leaf, *samples)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        ctx.save_for_backward(gradient)
        return loss.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * upstream[:, None]).to(gradient.dtype), None, None


def similarities(anchors_ND: Tensor, samples: Tensor, keys_KD: Tensor | None) -> Tensor:
    """(N, P) inner products of each anchor with its own samples.

    Args:
        anchors_ND: (N, D) in float32 or float64.
        samples: (N, P) rows of `keys_KD`, or (N, P, D) vectors; a first size of 1 serves all.
        keys_KD: (K, D) what indices point to.
    """
    if samples.is_floating_point():
        vectors = samples.to(anchors_ND.dtype)
        if len(vectors) == 1:
            return anchors_ND @ vectors[0].T
        return torch.bmm(vectors, anchors_ND[:, :, None])[:, :, 0]
    if keys_KD is None:
        raise ConfigError("indices need keys_KD")
    index = samples.expand(len(anchors_ND), -1)
    if len(keys_KD) <= GATHER_RATIO * index.shape[1]:
        return (anchors_ND @ keys_KD.to(anchors_ND.dtype).T).gather(1, index)
    # Three times the speed of keys_KD[index] on a CPU.
    rows = keys_KD.index_select(0, index.flatten())
    vectors = rows.view(*index.shape, keys_KD.shape[1]).to(anchors_ND.dtype)
    return torch.bmm(vectors, anchors_ND[:, :, None])[:, :, 0]


def _row_bytes(
    positives: Tensor,
    negatives: Tensor,
    synthetic: Tensor | None,
    keys: Tensor | None,
    dim: int,
) -> int:
    """Memory of one anchor's samples, in float32."""
    size = 0
    for samples in (positives, negatives, synthetic):
        if samples is None:
            continue
        width = samples.shape[1] * dim
        if keys is not None and not samples.is_floating_point():
            width = min(width, max(len(keys), samples.shape[1]))
        size += 4 * width
    return size


def _rows_of(samples: Tensor | None, at: slice) -> Tensor | None:
    return samples if samples is None or len(samples) == 1 else samples[at]


def _check_samples(name: str, samples: Tensor, anchors: Tensor, keys: Tensor | None) -> None:
    count, dim = anchors.shape
    vectors = samples.is_floating_point()
    shape = tuple(samples.shape)
    if samples.dim() != (3 if vectors else 2) or shape[0] not in (1, count):
        raise ConfigError(
            f"{name} of {samples.dtype} and shape {shape} do not fit {count} anchors",
            fix="pass (N, P, D) vectors, or (N, P) indices with keys_KD",
        )
    if vectors and shape[2] != dim:
        raise ConfigError(f"{name} have {shape[2]} columns, the anchors have {dim}")
    if not vectors and keys is None:
        raise ConfigError(f"{name} are indices without keys", fix="pass keys_KD")


def _mask(name: str, mask: Tensor | None, samples: Tensor, anchors: Tensor) -> Tensor:
    shape = (len(anchors), samples.shape[1])
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=anchors.device)
    if mask.dtype != torch.bool or mask.shape[1:] != shape[1:] or len(mask) not in (1, shape[0]):
        raise ConfigError(f"{name} must be bool of shape {shape}, not {tuple(mask.shape)}")
    return mask.expand(shape)
