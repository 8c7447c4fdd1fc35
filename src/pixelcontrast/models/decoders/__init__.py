"""Decoders: encoder stages in, the classifier's input out. One file each, listed by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelcontrast.models.decoders.base import ClassHead, Decoded, Decoder, Scores
from pixelcontrast.models.decoders.deeplabv3 import DeepLabV3
from pixelcontrast.models.decoders.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusSeparable
from pixelcontrast.models.decoders.dpt import DPT
from pixelcontrast.models.decoders.fcn import FCN
from pixelcontrast.models.decoders.fpn import FPN
from pixelcontrast.models.decoders.hrnet import HRNetHead
from pixelcontrast.models.decoders.maskformer import MaskFormer
from pixelcontrast.models.decoders.ocrnet import OCRNet
from pixelcontrast.models.decoders.picie_fpn import PiCIEFPN
from pixelcontrast.models.decoders.segformer import SegFormerHead
from pixelcontrast.models.decoders.segmenter import Linear, Segmenter
from pixelcontrast.models.decoders.upernet import UPerNet

if TYPE_CHECKING:
    from collections.abc import Mapping

DECODERS: Mapping[str, type[Decoder]] = {
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "deeplabv3plus_separable": DeepLabV3PlusSeparable,
    "dpt": DPT,
    "fcn": FCN,
    "fpn": FPN,
    "hrnet": HRNetHead,
    "linear": Linear,
    "maskformer": MaskFormer,
    "ocrnet": OCRNet,
    "picie_fpn": PiCIEFPN,
    "segformer": SegFormerHead,
    "segmenter": Segmenter,
    "upernet": UPerNet,
}

__all__ = [
    "DECODERS",
    "DPT",
    "FCN",
    "FPN",
    "ClassHead",
    "Decoded",
    "Decoder",
    "DeepLabV3",
    "DeepLabV3Plus",
    "DeepLabV3PlusSeparable",
    "HRNetHead",
    "Linear",
    "MaskFormer",
    "OCRNet",
    "PiCIEFPN",
    "Scores",
    "SegFormerHead",
    "Segmenter",
    "UPerNet",
]
