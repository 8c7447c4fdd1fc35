"""Which keys an anchor is compared with: random, hardest or semi-hard ones of a memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from pixelcontrast.core.errors import unknown_name

if TYPE_CHECKING:
    from torch import Generator, Tensor

Strategy = Literal["random", "hardest", "semi_hard"]


class Selection(NamedTuple):
    """Chosen keys of every anchor. Only valid entries are meant; they come first in a row."""

    key: Tensor
    """(N, S) int64 rows of the keys, distinct where valid."""
    valid: Tensor
    """(N, S) bool: false where an anchor has fewer candidates than S."""


@torch.no_grad()
def select_keys(
    anchors_ND: Tensor,
    anchor_labels_N: Tensor,
    keys_KD: Tensor,
    key_labels_K: Tensor,
    *,
    positives: int = 1024,
    negatives: int = 2048,
    strategy: Strategy = "semi_hard",
    window: tuple[float, float] = (0.0, 0.1),
    self_index_N: Tensor | None = None,
    generator: Generator,
    tile_elements: int = 1 << 22,
) -> tuple[Selection, Selection]:
    """Positives (keys of the anchor's class) and negatives (of other classes), without gradient.

    Wang et al. (ICCV 2021), section 3.3. Candidates are ranked by hardness: the most similar
    negatives and the least similar positives come first. "hardest" takes the first ones,
    "random" any, and "semi_hard" draws uniformly from a window of the ranking. The hardest alone
    lead to poor optima, hence the paper's default: the first tenth.

    Args:
        anchors_ND: (N, D) unit vectors.
        anchor_labels_N: (N,) class ids; negative ones get no keys.
        keys_KD: (K, D) unit vectors of any float type; half precision is widened for ranking.
        key_labels_K: (K,) class ids; negative ones are never chosen.
        positives: most positives of an anchor.
        negatives: most negatives of an anchor.
        strategy: see above.
        window: the part of the ranking that "semi_hard" draws from, as shares of an anchor's
            candidates from the hardest on, at least one candidate. (0.25, 0.75) avoids the
            easiest and the hardest.
        self_index_N: (N,) row of the keys that is the anchor itself and is never chosen;
            negative where there is none.
        generator: source of randomness, on the device of the anchors.
        tile_elements: similarities held at once; 4 million of them, with what their ranking
            takes, stay below 150 MB.

    Returns:
        Positives (N, min(positives, K)) and negatives (N, min(negatives, K)).

    Raises:
        ConfigError: an unknown strategy.
    """
    if strategy not in ("random", "hardest", "semi_hard"):
        raise unknown_name("selection strategy", strategy, ("random", "hardest", "semi_hard"))
    keys = keys_KD.float()
    chosen: tuple[list[Selection], list[Selection]] = ([], [])
    tile = max(1, tile_elements // max(len(keys), 1))
    for start in range(0, max(1, len(anchors_ND)), tile):
        part = slice(start, start + tile)
        label = anchor_labels_N[part, None]
        usable = (label >= 0) & (key_labels_K >= 0)
        if self_index_N is not None:
            itself = torch.arange(len(keys), device=keys.device) == self_index_N[part, None]
            usable &= ~itself
        same = label == key_labels_K
        if strategy == "random":
            hardness = torch.rand(same.shape, generator=generator, device=keys.device)
        else:
            with torch.autocast(keys.device.type, enabled=False):
                hardness = anchors_ND[part].float() @ keys.T
        for role, candidates, score, number in (
            (0, usable & same, hardness if strategy == "random" else -hardness, positives),
            (1, usable & ~same, hardness, negatives),
        ):
            score = torch.where(candidates, score, -torch.inf)
            if strategy == "semi_hard":
                found = _draw_from_window(score, candidates.sum(1), number, window, generator)
            else:
                found = _first(score, number)
            chosen[role].append(found)
    first, second = (
        Selection(torch.cat([s.key for s in role]), torch.cat([s.valid for s in role]))
        for role in chosen
    )
    return first, second


def _first(score: Tensor, number: int) -> Selection:
    """The candidates with the highest scores; -inf marks what is no candidate."""
    best = score.topk(min(number, score.shape[1]))
    return Selection(best.indices, best.values > -torch.inf)


def _draw_from_window(
    score: Tensor,
    candidates: Tensor,
    number: int,
    window: tuple[float, float],
    generator: Generator,
) -> Selection:
    """`number` candidates drawn without replacement from the ranks inside the window."""
    low, high = window
    width = score.shape[1]
    depth = min(width, int(high * width + 1e-6) + 1)
    # The tolerance keeps 0.29 * 100 from being 28.
    begin = torch.floor(candidates.double() * low + 1e-6)
    end = torch.maximum(torch.floor(candidates.double() * high + 1e-6), begin + 1)
    end = torch.minimum(end, candidates)
    ranked = score.topk(depth).indices
    rank = torch.arange(depth, device=score.device)
    inside = (rank >= begin[:, None]) & (rank < end[:, None])
    lottery = torch.rand(inside.shape, generator=generator, device=score.device)
    drawn = torch.where(inside, lottery, -1.0).topk(min(number, depth))
    return Selection(ranked.gather(1, drawn.indices), drawn.values >= 0)
