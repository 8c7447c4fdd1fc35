"""How unsupervised segmentation is scored on named data sets, so that numbers can be compared.

A protocol says which classes of a data set are told apart or merged, which are things, and which
images are trained on and scored. Numbers of two protocols must not stand in one column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_IGNORED = -1


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way to score a data set."""

    name: str
    about: str
    """Whose protocol it is, in a few words for the head of a table."""
    dataset: str
    """Data set, as `open_dataset` knows it, whose class ids are mapped."""
    class_of: tuple[int, ...]
    """For each class of the data set the class here; -1 leaves its pixels out."""
    merged: tuple[str, ...] = ()
    """Names of the classes here; empty if every class stands for one of the data set."""
    things: tuple[int, ...] = ()
    """Classes here that are countable objects; the others are stuff. Empty: no such groups."""
    trained_on: tuple[str, ...] = ("train",)
    scored_on: tuple[str, ...] = ("val",)
    size: int = 320
    """Short side, in pixels, to which an image and its label are brought before the largest centred
    square is cut out and scored (PiCIE, and all who follow it)."""

    @property
    def num_classes(self) -> int:
        """C."""
        return max(self.class_of) + 1

    @property
    def stuff(self) -> tuple[int, ...]:
        """Classes that are no things; empty where the protocol has no such groups."""
        if not self.things:
            return ()
        return tuple(c for c in range(self.num_classes) if c not in self.things)

    def names(self, of_dataset: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the classes here.

        Args:
            of_dataset: names of the classes of the data set.
        """
        if self.merged:
            return self.merged
        if len(of_dataset) != len(self.class_of):
            raise ValueError(f"{len(of_dataset)} names for {len(self.class_of)} classes")
        kept = sorted(
            (c, name) for c, name in zip(self.class_of, of_dataset, strict=True) if c >= 0
        )
        return tuple(name for _, name in kept)

    def relabel(self, mask: Tensor, ignore_index: int = 255) -> Tensor:
        """A mask of the data set with the classes of this protocol.

        Args:
            mask: (..., H, W) uint8 or wider, class ids of the data set or the ignore index.
            ignore_index: label without a class, before and after, 0 .. 255.
        """
        table = torch.full((256,), ignore_index, device=mask.device)
        mapped = torch.tensor(self.class_of, device=mask.device)
        table[: len(mapped)] = torch.where(mapped == _IGNORED, ignore_index, mapped)
        return table[mask.long()].to(mask.dtype)


_COCO = tuple(range(27))
_THINGS = 12
"""The first 12 of the 27 groups of COCO-Stuff are things."""
_CITYSCAPES = tuple(range(27))
_CITYSCAPES_THINGS = tuple(range(17, 27))
"""person .. bicycle: the labels that have instances."""
_CATEGORIES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
_CATEGORY_SIZES = (4, 6, 4, 2, 1, 2, 8)
"""Cityscapes lists its labels by category: so many of the 27 each."""

_ALL = (
    Protocol(
        "coco_stuff27",
        "COCO-Stuff-27 (Cho et al. 2021): 12 things, 15 stuff, curated images",
        "coco_stuff27",
        _COCO,
        things=tuple(range(_THINGS)),
    ),
    Protocol(
        "coco_stuff15",
        "COCO-Stuff-15 (Ji et al. 2019): stuff alone, things left out",
        "coco_stuff27",
        (*(_IGNORED,) * _THINGS, *range(27 - _THINGS)),
    ),
    Protocol(
        "coco_stuff3",
        "COCO-Stuff-3 (Ji et al. 2019): sky, plant, ground",
        "coco_stuff27",
        tuple({23: 0, 22: 1, 21: 2}.get(c, _IGNORED) for c in _COCO),
        merged=("sky", "plant", "ground"),
    ),
    Protocol(
        "cityscapes27",
        "Cityscapes-27 of Hamilton et al. 2022 and later: trained on train, scored on val",
        "cityscapes27",
        _CITYSCAPES,
        things=_CITYSCAPES_THINGS,
    ),
    Protocol(
        "cityscapes27_picie",
        "Cityscapes-27 of Cho et al. 2021: trained on test + train_extra, scored on train + val",
        "cityscapes27",
        _CITYSCAPES,
        things=_CITYSCAPES_THINGS,
        trained_on=("test", "train_extra"),
        scored_on=("train", "val"),
    ),
    Protocol(
        "cityscapes7",
        "Cityscapes-7: the categories of the 27 labels",
        "cityscapes27",
        tuple(c for c, size in enumerate(_CATEGORY_SIZES) for _ in range(size)),
        merged=_CATEGORIES,
        things=(5, 6),
    ),
    Protocol(
        "potsdam3",
        "Potsdam-3 (Ji et al. 2019)",
        "potsdam6",
        (0, 1, 2, 2, 0, 1),
        merged=("roads and cars", "buildings and clutter", "vegetation and trees"),
    ),
)

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _ALL}
"""By name. `coco_stuff27` and `cityscapes27` are data sets of the catalog; Potsdam has the six ids
of its published masks, in their order."""


def protocols_of(dataset: str) -> tuple[Protocol, ...]:
    """The protocols that score a data set; none for most."""
    return tuple(protocol for protocol in _ALL if protocol.dataset == dataset)
