"""How PiCo contrasts anchors with a memory: keys chosen for each anchor, and harder ones made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.losses import sampled_info_nce
from pixelcontrast.memory import Keys
from pixelcontrast.sampling import Selection, draw_mixtures, mixed_similarities, select_keys

FurtherSamples = tuple[Tensor, Tensor, Tensor]
"""(N, E) similarities, and bool whether each is a positive and whether it is a negative."""


@dataclass(frozen=True, slots=True)
class PicoSelectionConfig:
    """Which keys of the memory an anchor is compared with; Wang et al. (ICCV 2021), section 3.3."""

    strategy: Literal["all", "random", "hardest", "semi_hard"] = "semi_hard"
    """`semi_hard`: at random from the hardest tenth (paper); `all`: every key (released code)."""
    positives: int = 1024
    """Most positives of an anchor (two implementations made from the paper alone)."""
    negatives: int = 2048
    """Most negatives of an anchor (as before)."""
    window: tuple[float, float] = (0.0, 0.1)
    """Part of the ranking, hardest first, that `semi_hard` draws from; (0.25, 0.75) avoids the
    hardest and the easiest."""

    def __post_init__(self) -> None:
        low, high = self.window
        if not 0 <= low < high <= 1:
            raise ConfigError(
                f"no part of the ranking lies in the window {self.window}",
                where="method.selection.window",
                fix="use two shares, 0 <= low < high <= 1",
            )
        if min(self.positives, self.negatives) < 1:
            raise ConfigError(
                "an anchor needs at least one positive and one negative",
                where="method.selection",
                fix="set positives and negatives to 1 or more",
            )


@dataclass(frozen=True, slots=True)
class PicoSynthesisConfig:
    """Negatives mixed from an anchor's selected ones (TPAMI 2024); 0 switches a kind off."""

    pairs: int | None = None
    """Mixtures of two negatives per anchor; None: a quarter of the selected negatives."""
    with_anchor: int | None = None
    """Mixtures of a negative with the anchor; None: a quarter of the selected negatives."""

    def __post_init__(self) -> None:
        if min(self.pairs or 0, self.with_anchor or 0) < 0:
            raise ConfigError(
                "there cannot be a negative number of mixtures",
                where="method.synthesis",
                fix="use 0 to switch them off",
            )


def contrast_with_selected(
    anchors: Tensor,
    labels: Tensor,
    keys: Keys,
    *,
    selection: PicoSelectionConfig,
    synthesis: PicoSynthesisConfig,
    mutual: bool,
    temperature: float,
    base_temperature: float | None,
    random: Callable[[str], torch.Generator],
) -> Tensor:
    """L_NCE (equation 3) of anchors with keys chosen for each, mixtures of them and each other.

    The gradient reaches the anchors, as anchors and as each other's samples; none is computed for
    the memory, the ranking and the mixtures.

    Args:
        anchors: (N, D) unit length.
        labels: (N,) class ids, -1 for rows without a role.
        keys: the memory.
        selection: which keys; the strategy `all` is `pixel_info_nce`.
        synthesis: how many mixtures.
        mutual: the anchors are each other's positives and negatives, too.
        temperature: see `pixel_info_nce`.
        base_temperature: see `pixel_info_nce`.
        random: gives the generator for a purpose.
    """
    assert selection.strategy != "all"
    positives, negatives = select_keys(
        anchors,
        labels,
        keys.vectors,
        keys.labels,
        positives=selection.positives,
        negatives=selection.negatives,
        strategy=selection.strategy,
        window=selection.window,
        generator=random("selection"),
    )
    further = [mutual_similarities(anchors, labels)] if mutual else []
    quarter = selection.negatives // 4
    pairs = quarter if synthesis.pairs is None else synthesis.pairs
    with_anchor = quarter if synthesis.with_anchor is None else synthesis.with_anchor
    if pairs + with_anchor:
        generator = random("synthesis")
        further.append(made_up_negatives(anchors, keys, negatives, pairs, with_anchor, generator))
    none: tuple[None, None, None] = (None, None, None)
    joined = [torch.cat(fields, 1) for fields in zip(*further, strict=True)]
    similarity, positive, negative = joined or none
    return sampled_info_nce(
        anchors,
        positives.key,
        negatives.key,
        keys.vectors,
        positive_mask_NP=positives.valid,
        negative_mask_NM=negatives.valid,
        extra_NE=similarity,
        extra_positive_NE=positive,
        extra_negative_NE=negative,
        temperature=temperature,
        base_temperature=base_temperature,
    )


def mutual_similarities(anchors: Tensor, labels: Tensor) -> FurtherSamples:
    """The anchors as each other's samples: (N, N), never an anchor as its own."""
    with torch.autocast(anchors.device.type, enabled=False):
        wide = anchors.float()
        similarity = wide @ wide.T
    usable = (labels >= 0)[:, None] & (labels >= 0)
    same = labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return similarity, usable & same & ~itself, usable & ~same


def made_up_negatives(
    anchors: Tensor,
    keys: Keys,
    negatives: Selection,
    pairs: int,
    with_anchor: int,
    generator: torch.Generator,
) -> FurtherSamples:
    """Mixtures of an anchor's own selected negatives, and of these with the anchor."""
    mixture = draw_mixtures(negatives, pairs=pairs, with_anchor=with_anchor, generator=generator)
    similarity = mixed_similarities(mixture, anchors, keys.vectors)
    valid = mixture.valid
    return similarity.masked_fill(~valid, 0.0), torch.zeros_like(valid), valid
