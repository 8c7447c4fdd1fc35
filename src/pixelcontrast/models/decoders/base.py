"""What every decoder promises: encoder stages in, one feature map and its taps out, no logits.

Most decoders are followed by a 1x1 convolution that gives the class scores. Those whose published
form knows the classes in another way (soft object regions, class tokens, mask classification) name
a classifier of their own in `Decoder.build_classifier`: a `ClassHead`, which sees everything the
decoder computed. All parameters that depend on the classes are in the classifier, never in the
decoder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder computes in one pass."""

    features: Tensor
    """(B, F, h, w) input of the classifier."""
    taps: Mapping[str, Tensor] = field(default_factory=dict)
    """Inner maps an embedding head may read, named and sized as in `Decoder.tap_channels`."""
    context: Tensor | None = None
    """(B, F', h', w') a second map for a classifier that reads two."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a classifier of a decoder's own computes in one pass."""

    logits: Tensor
    """(B, C, h, w) class scores."""
    auxiliary: tuple[Tensor, ...] = ()
    """(B, C, h', w') further scores that are supervised like those of auxiliary heads; in training
    only."""
    query_classes: tuple[Tensor, ...] = ()
    """(B, Q, C + 1) class scores of each mask, the last of them "no object", of every transformer
    layer, first to last; in training only."""
    query_masks: tuple[Tensor, ...] = ()
    """(B, Q, h, w) the masks' scores, beside `query_classes`."""


class ClassHead(nn.Module, ABC):
    """A classifier that needs more than the features."""

    @abstractmethod
    def forward(self, decoded: Decoded) -> Scores:
        """Everything the decoder computed -> class scores."""


class Decoder(nn.Module, ABC):
    """Fuses encoder stages into the classifier's input.

    Args:
        channels: widths of the encoder stages, shallow to deep.
        strides: their strides.
        width: F of the output; None for the published one.
        align_corners: convention of the up-samplings.
    """

    default_stride: ClassVar[int]
    """Output stride of the encoder when the configuration names none."""
    default_tap: ClassVar[str] = "features"
    """Map the embedding head reads when the configuration names none."""

    channels: int
    """F of the output."""
    tap_channels: Mapping[str, int]
    """Widths of the inner maps in `Decoded.taps`."""

    @abstractmethod
    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        width: int | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages, shallow to deep -> features and taps."""

    def build_classifier(self, num_classes: int, dropout: float) -> ClassHead | None:
        """A classifier of this decoder's own; None where a 1x1 convolution of the features does.

        Args:
            num_classes: C.
            dropout: share of dropped channels.
        """
        return None
