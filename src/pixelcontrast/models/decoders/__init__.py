"""Decoders: encoder stages in, the classifier's input out. One file each, listed by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelcontrast.models.decoders.base import Decoded, Decoder
from pixelcontrast.models.decoders.deeplabv3 import DeepLabV3
from pixelcontrast.models.decoders.deeplabv3plus import DeepLabV3Plus
from pixelcontrast.models.decoders.dpt import DPT
from pixelcontrast.models.decoders.fpn import FPN
from pixelcontrast.models.decoders.hrnet import HRNetHead

if TYPE_CHECKING:
    from collections.abc import Mapping

DECODERS: Mapping[str, type[Decoder]] = {
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "dpt": DPT,
    "fpn": FPN,
    "hrnet": HRNetHead,
}

__all__ = [
    "DECODERS",
    "DPT",
    "FPN",
    "Decoded",
    "Decoder",
    "DeepLabV3",
    "DeepLabV3Plus",
    "HRNetHead",
]
