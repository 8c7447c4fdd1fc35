"""The values that pass between packages.

Letters: B batch, C classes, D embedding, F features, N anchors, K keys, H W image, h w feature map.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


@dataclass(frozen=True, slots=True)
class SegOutput:
    """Everything a segmentor computes in one pass."""

    logits: Tensor
    """(B, C, h, w) class scores at decoder resolution; `upsample_logits` brings them to (H, W)."""
    features: Tensor
    """(B, F, h, w) input of the classifier."""
    stages: tuple[Tensor, ...] = ()
    """Encoder stages, shallow to deep."""
    embedding: Tensor | None = None
    """(B, D, h', w') on the grid of the tap it was computed from; unit length over D unless the
    head is told not to normalise."""
    variance: Tensor | None = None
    """(B, D, h', w') variance of each component of `embedding`, of probabilistic heads."""
    levels: tuple[Tensor, ...] = ()
    """(B, D, h_i, w_i) unit-length embeddings of encoder stages, shallow to deep, of heads on
    several levels; `embedding` is then the last of them."""
    auxiliary: tuple[Tensor, ...] = ()
    """(B, C, h'', w'') scores of auxiliary heads, in training only."""
    query_classes: tuple[Tensor, ...] = ()
    """(B, Q, C + 1) class scores of Q masks, the last of them "no object", of every layer of a
    network that classifies masks, first to last; in training only."""
    query_masks: tuple[Tensor, ...] = ()
    """(B, Q, h, w) scores of those masks."""
    tapped: Tensor | None = None
    """(B, F', h', w') the inner map that was asked for by name."""

    def rows(self, start: int, stop: int) -> SegOutput:
        """The output for the images `start` to `stop` - 1 of the batch."""
        return self._map(lambda part: part[start:stop])

    def detach(self) -> SegOutput:
        """The output without its graph."""
        return self._map(Tensor.detach)

    def _map(self, change: Callable[[Tensor], Tensor]) -> SegOutput:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = change(value)
            elif isinstance(value, tuple):
                changed[field.name] = tuple(change(part) for part in value)
        return replace(self, **changed)


@dataclass(frozen=True, slots=True)
class LossReport:
    """The outcome of one training step."""

    terms: Mapping[str, Tensor]
    """Weighted scalars attached to the graph; their sum is optimised."""
    stats: Mapping[str, Tensor | float]
    """Detached values for the logs: scalars, or 1-D tensors of one value a class, NaN for a class
    that has none in this step. They stay on their device until a line is logged."""

    @property
    def total(self) -> Tensor:
        """The scalar that is optimised."""
        return torch.stack([term.float() for term in self.terms.values()]).sum()


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of one stream, as the workers hand it over: small integers, nothing normalised."""

    image: Tensor
    """(B, 3, H, W) uint8 RGB, the weak view."""
    valid: Tensor
    """(B, H, W) bool: a pixel of the photograph, not padding."""
    index: Tensor
    """(B,) int64 position of the image in its stream's sample list."""
    ids: tuple[str, ...]
    """Names of the images, for messages."""
    geometry: Tensor
    """(B, 2, 3) float32 affine map from crop to source pixels (x, y), to replay views."""
    mask: Tensor | None = None
    """(B, H, W) uint8 class ids with the ignore index; None where the stream has no labels."""
    strong: tuple[Tensor, ...] = ()
    """Strongly distorted copies of `image` (same geometry), each (B, 3, H, W) uint8."""
    hidden_mask: Tensor | None = None
    """(B, H, W) uint8 of an unlabelled stream: masks that exist but must not be learnt from, only
    to measure pseudo-labels; the ignore index where there is none. None unless asked for."""
    grid_box: Tensor | None = None
    """(B, 5) int64 of paired views: (top, left, height, width, flip) of the crop that `image` shows
    of `strong[0]`, in cells of the feature map."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch on another device."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, so that copies to a GPU can overlap."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = change(value)
            elif field.name == "strong":
                moved[field.name] = tuple(change(view) for view in value)
        return replace(self, **moved)
