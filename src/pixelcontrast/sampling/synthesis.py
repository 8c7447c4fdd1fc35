"""Hard negatives made by mixing negatives with each other or with the anchor."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from pixelcontrast.sampling.selection import Selection


class Mixture(NamedTuple):
    """Recipes `z = normalise(weight * x + (1 - weight) * n)` for S synthetic negatives an anchor.

    n is a key; x is another key, or the anchor itself where `other` is negative.
    """

    key: Tensor
    """(N, S) int64 row of n."""
    other: Tensor
    """(N, S) int64 row of x, -1 for the anchor."""
    weight: Tensor
    """(N, S) float32 weight of x."""
    valid: Tensor
    """(N, S) bool: the anchor has the negatives it takes."""


def draw_mixtures(
    negatives: Selection, *, pairs: int = 512, with_anchor: int = 512, generator: Generator
) -> Mixture:
    """Random mixtures of each anchor's own selected negatives.

    Zhou & Wang, "Cross-Image Pixel Contrasting" (TPAMI 2024), with the coefficients of Kalantidis
    et al., "Hard Negative Mixing for Contrastive Learning" (NeurIPS 2020): two different
    negatives with weight a ~ U(0, 1), or anchor and negative with weight b ~ U(0, 0.5) of the
    anchor, so that the negative dominates.

    Args:
        negatives: what `select_keys` returned second.
        pairs: mixtures of two negatives an anchor; a quarter of the 2,048 selected ones.
        with_anchor: mixtures of the anchor with a negative; as many.
        generator: source of randomness, on the device of the selection.
    """
    number = negatives.valid.sum(1, keepdim=True)
    rows = number.shape[0]
    uniform = torch.rand((3, rows, pairs + with_anchor), generator=generator, device=number.device)
    first = (uniform[0] * number).long().minimum((number - 1).clamp(min=0))
    step = 1 + (uniform[1] * (number - 1)).long().minimum((number - 2).clamp(min=0))
    second = (first + step) % number.clamp(min=1)
    anchor_mix = torch.arange(pairs + with_anchor, device=number.device) >= pairs
    return Mixture(
        key=negatives.key.gather(1, first),
        other=torch.where(anchor_mix, -1, negatives.key.gather(1, second)),
        weight=torch.where(anchor_mix, 0.5 * uniform[2], uniform[2]),
        valid=torch.where(anchor_mix, number >= 1, number >= 2),
    )


def mixed_vectors(mixture: Mixture, anchors_ND: Tensor, keys_KD: Tensor) -> Tensor:
    """The synthetic negatives themselves, detached: (N, S, D) unit vectors in float32.

    Args:
        mixture: from `draw_mixtures`.
        anchors_ND: (N, D) unit vectors.
        keys_KD: (K, D) unit vectors of any float type.
    """
    with torch.no_grad():

        def rows(index: Tensor) -> Tensor:
            # Three times the speed of keys[index] on a CPU.
            found = keys_KD.index_select(0, index.flatten()).float()
            return found.view(*index.shape, keys_KD.shape[1])

        other = torch.where(
            (mixture.other < 0)[:, :, None],
            anchors_ND.float()[:, None],
            rows(mixture.other.clamp(min=0)),
        )
        mixed = rows(mixture.key).lerp_(other, mixture.weight[:, :, None])
        return F.normalize(mixed, dim=2, out=mixed)


def mixed_similarities(
    mixture: Mixture, anchors_ND: Tensor, keys_KD: Tensor, *, tile_elements: int = 1 << 22
) -> Tensor:
    """Cosine of each anchor with its synthetic negatives, (N, S); -inf where not valid.

    The gradient goes to the anchors alone, in their role as anchors. The vectors are made tile
    by tile, in the backward pass once more, so that (N, S, D) numbers never exist at once: the
    keys must not change in between.

    Args:
        mixture: from `draw_mixtures`.
        anchors_ND: (N, D) unit vectors.
        keys_KD: (K, D) unit vectors of any float type.
        tile_elements: numbers of synthetic vectors held at once.
    """
    per_anchor = max(1, mixture.key.shape[1] * anchors_ND.shape[1])
    tile = max(1, tile_elements // per_anchor)

    def similarities(anchors: Tensor, *fields: Tensor) -> Tensor:
        vectors = mixed_vectors(Mixture(*fields), anchors, keys_KD)
        with torch.autocast(vectors.device.type, enabled=False):
            return torch.einsum("nsd,nd->ns", vectors, anchors.float())

    if tile >= anchors_ND.shape[0]:
        return torch.where(mixture.valid, similarities(anchors_ND, *mixture), -torch.inf)
    tiles = [
        checkpoint(
            similarities,
            anchors_ND[start : start + tile],
            *(field[start : start + tile] for field in mixture),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for start in range(0, anchors_ND.shape[0], tile)
    ]
    return torch.where(mixture.valid, torch.cat(tiles), -torch.inf)
