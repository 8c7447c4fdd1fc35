"""What every contrastive term shares, so that one term can join any method.

A contrast term looks at the pixels of one step, labelled and pseudo-labelled alike, and answers
with weighted losses. The method decides which images, labels and networks it sees; the term
decides which pixels are anchors, positives and negatives, and what is remembered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from pixelcontrast.core.distributed import world_size
from pixelcontrast.core.errors import unknown_name
from pixelcontrast.core.types import LossReport, SegOutput

if TYPE_CHECKING:
    from pixelcontrast.methods.base import Method, Task
    from pixelcontrast.models import EmbeddingConfig, LevelHeadsConfig

CONTRASTS: dict[str, str] = {
    "pico": "pixelcontrast.methods.pico:PicoContrast",
    "contextrast": "pixelcontrast.methods.contextrast:ContextrastContrast",
    "u2pl": "pixelcontrast.methods.u2pl_contrast:U2PLContrast",
    "prcl": "pixelcontrast.methods.prcl_contrast:PRCLContrast",
}
"""`module:class` of every term by the name of its method."""


@dataclass(frozen=True, slots=True)
class ContrastChoice:
    """A contrast term by name with its settings: `method.contrast` of a recipe."""

    name: str
    """A key of `CONTRASTS`."""
    config: Any
    """An instance of the term's `Config`."""


@dataclass(frozen=True, slots=True)
class ContrastBatch:
    """The images of one step as a contrast term sees them, the labelled ones first."""

    student: SegOutput
    """The trained network's output for all B images, with embeddings."""
    labels: Tensor
    """(B, H, W) class ids: ground truth, then hard pseudo-labels; the ignore index where there is
    neither (padding included)."""
    labelled: int
    """How many of the B images carry ground truth."""
    step: int
    """Optimiser steps done."""
    teacher: SegOutput | None = None
    """The teacher's output for the same B images, with embeddings, without gradient; None where
    the method has no teacher."""
    confidence: Tensor | None = None
    """(B, H, W) largest probability behind each pseudo-label, 1 for ground truth; None where all
    labels are ground truth."""
    valid: Tensor | None = None
    """(B, H, W) bool: a pixel of the photograph, not padding; None where that is not known."""
    scores: Tensor | None = None
    """(B - labelled, C, h', w') the class scores behind the pseudo-labels; None: the teacher's."""
    trusted: Tensor | None = None
    """(B - labelled, H, W) bool: pseudo-labels to rely on; None: all that are given."""
    unreliable: Tensor | None = None
    """(B - labelled, H, W) bool: pixels the method holds for too unsure to be learnt; None where it
    does not say."""
    index: Tensor | None = None
    """(B,) number of each image in the training set, for memories with a slot an image."""


class ContrastTerm(nn.Module, ABC):
    """A contrastive loss with its memory.

    Args:
        config: an instance of `Config`.
        task: the classes, the length and the seed of the run.
        random: gives the generator for one purpose in this step (`Method.random`).
        align_corners: how the network's scores are resized.
    """

    Config: ClassVar[type]
    needs_teacher: ClassVar[bool] = False
    """Whether `ContrastBatch.teacher` must be given."""

    def __init__(
        self,
        config: Any,
        task: Task,
        random: Callable[[str], torch.Generator],
        *,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.task = task
        self.random = random
        self.align_corners = align_corners

    @classmethod
    @abstractmethod
    def embedding_head(cls, config: Any) -> EmbeddingConfig | LevelHeadsConfig:
        """The head (or heads, one a level) whose embeddings the term compares."""

    def needs_embedding(self, step: int) -> bool:
        """Whether this step's forward pass needs embeddings; else a method may save their cost."""
        return True

    @abstractmethod
    def forward(self, batch: ContrastBatch) -> LossReport:
        """Weighted loss terms (attached to the graph even when there is nothing to compare)."""

    def after_step(self) -> None:
        """Called once per optimiser step: write to the memory what the forward pass kept."""


def labelled_first(images: int, labelled: int, device: torch.device) -> Tensor:
    """The images of all processes in the order of a single one: all labelled ones come first.

    Args:
        images: B, images of each process.
        labelled: how many of them, at the front, have ground truth.
        device: where the result lies.

    Returns:
        (W B,) numbers of images, counted in rank order over W processes.
    """
    ranks = torch.arange(world_size() * images, device=device).view(world_size(), images)
    return torch.cat([ranks[:, :labelled].flatten(), ranks[:, labelled:].flatten()])


def contrast_class(name: str) -> type[ContrastTerm]:
    """The class of a contrast term.

    Raises:
        ConfigError: no term has this name.
    """
    if name not in CONTRASTS:
        raise unknown_name("contrast term", name, CONTRASTS)
    module, _, attribute = CONTRASTS[name].partition(":")
    found: type[ContrastTerm] = getattr(import_module(module), attribute)
    return found


def build_contrast(choice: ContrastChoice, method: Method) -> ContrastTerm:
    """The term of a choice as part of a method."""
    return contrast_class(choice.name)(
        choice.config,
        method.task,
        method.random,
        align_corners=method.segmentor.align_corners,
    )
