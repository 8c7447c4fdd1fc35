"""What every decoder promises: encoder stages in, one feature map and its taps out, no logits."""

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
