"""One contrast problem in the form every back end takes.

Letters: D embedding, N anchors, K keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from pixelcontrast.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Denominator = Literal["negatives", "all"]
NegativeScope = Literal["all", "own_image"]
Backend = Literal["auto", "matrix", "naive", "stream", "triton"]
Reduction = Literal["mean", "sum", "none"]


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys the anchors are compared with."""

    vectors: Tensor
    """(K, D) of any float type."""
    labels: Tensor
    """(K,) int64, negative: the key takes no role."""
    images: Tensor | None
    """(K,) int64, only where negatives are restricted to the own image."""
    own: Tensor | None
    """(N,) int64 position of each anchor among these keys, negative: absent. Never a pair."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """Anchors, the keys around them and the formula."""

    anchors: Tensor
    """(N, D) of any float type."""
    labels: Tensor
    """(N,) int64, negative: no anchor."""
    images: Tensor | None
    """(N,) int64, only where negatives are restricted to the own image."""
    keys: KeySet | None
    """Keys besides the anchors."""
    mutual: bool
    """The anchors are keys of each other, gradients flow through both roles."""
    inv_temperature: float
    denominator: Denominator


class AnchorTerms(NamedTuple):
    """What a back end returns."""

    loss: Tensor
    """(N,) in float32 or wider, 0 for anchors without a positive or without a role."""
    positives: Tensor
    """(N,) number of positives."""


def checked_vectors(name: str, vectors: Tensor, dim: int | None = None) -> Tensor:
    """`vectors` if they are a float matrix with `dim` columns.

    Raises:
        ConfigError: wrong rank, type or width.
    """
    if vectors.dim() != 2 or not vectors.is_floating_point():
        raise ConfigError(
            f"{name} must be a float matrix (rows, embedding), not "
            f"{vectors.dtype} of shape {tuple(vectors.shape)}",
            fix="flatten dense maps (B, D, h, w) with PixelInfoNCE or "
            "`.permute(0, 2, 3, 1).flatten(0, 2)`",
        )
    if dim is not None and vectors.shape[1] != dim:
        raise ConfigError(
            f"{name} have {vectors.shape[1]} columns, the anchors have {dim}",
            fix="anchors and keys must come from the same embedding space",
        )
    return vectors


def checked_ids(name: str, ids: Tensor, count: int, device: torch.device) -> Tensor:
    """`ids` as an int64 vector of `count` entries on `device`.

    Raises:
        ConfigError: wrong length or a float type.
    """
    if ids.is_floating_point() or ids.is_complex() or ids.shape != (count,):
        raise ConfigError(
            f"{name} must be {count} integers, not {ids.dtype} of shape {tuple(ids.shape)}"
        )
    return ids.to(device=device, dtype=torch.int64)


def without_ignored(labels: Tensor, ignore_index: int | None) -> Tensor:
    """`labels`, negative wherever no role is taken: -1 in place of `ignore_index`."""
    if ignore_index is None or ignore_index < 0:
        return labels
    return labels.masked_fill(labels == ignore_index, -1)


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of similarities, sums and losses: float32, or float64 for float64 input."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def count_matches(labels: Tensor, key_labels: Tensor) -> Tensor:
    """How many of `key_labels` equal each of `labels`; 0 for negative labels."""
    ordered = key_labels.sort().values
    count = torch.searchsorted(ordered, labels, right=True) - torch.searchsorted(ordered, labels)
    return count.masked_fill(labels < 0, 0)


def count_positives(contrast: Contrast) -> Tensor:
    """(N,) int64 number of positives of each anchor, the anchor itself not counted."""
    labels = contrast.labels
    total = torch.zeros_like(labels)
    if contrast.mutual:
        total = total + (count_matches(labels, labels) - 1).clamp_min(0)
    if contrast.keys is not None:
        total = total + count_matches(labels, contrast.keys.labels)
        own = contrast.keys.own
        if own is not None and contrast.keys.labels.numel():
            same = contrast.keys.labels[own.clamp_min(0)] == labels
            total = total - (same & (own >= 0) & (labels >= 0)).long()
    return total


def refuse_second_order() -> None:
    """For a backward pass that cannot itself be differentiated.

    Raises:
        RuntimeError: a graph of the gradient was asked for.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "this engine has no second derivative; use backend='naive' for create_graph=True"
        )
