"""Networks: timm encoders, decoders, heads, and the segmentor that joins them.

Names are imported when they are first used, so that configurations and lists of models do not wait
for torch.
"""

from typing import TYPE_CHECKING

from pixelcontrast.core.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcontrast.models.config import EmbeddingConfig as EmbeddingConfig
    from pixelcontrast.models.config import LevelHeadsConfig as LevelHeadsConfig
    from pixelcontrast.models.config import ModelConfig as ModelConfig
    from pixelcontrast.models.decoders import DECODERS as DECODERS
    from pixelcontrast.models.decoders import Decoded as Decoded
    from pixelcontrast.models.decoders import Decoder as Decoder
    from pixelcontrast.models.encoder import Encoder as Encoder
    from pixelcontrast.models.heads import AuxiliaryHead as AuxiliaryHead
    from pixelcontrast.models.heads import Classifier as Classifier
    from pixelcontrast.models.heads import ProjectionHead as ProjectionHead
    from pixelcontrast.models.heads import VarianceHead as VarianceHead
    from pixelcontrast.models.level_heads import LevelHeads as LevelHeads
    from pixelcontrast.models.segmentor import DeployedSegmentor as DeployedSegmentor
    from pixelcontrast.models.segmentor import Segmentor as Segmentor
    from pixelcontrast.models.segmentor import build_segmentor as build_segmentor
    from pixelcontrast.models.segmentor import upsample_logits as upsample_logits
    from pixelcontrast.models.start import start_from as start_from
    from pixelcontrast.models.weights import load_model as load_model
    from pixelcontrast.models.weights import load_state as load_state
    from pixelcontrast.models.weights import load_weights as load_weights
    from pixelcontrast.models.weights import save_model as save_model

_NAMES = {
    "config": ("EmbeddingConfig", "LevelHeadsConfig", "ModelConfig"),
    "decoders": ("DECODERS", "Decoded", "Decoder"),
    "encoder": ("Encoder",),
    "heads": ("AuxiliaryHead", "Classifier", "ProjectionHead", "VarianceHead"),
    "level_heads": ("LevelHeads",),
    "segmentor": ("DeployedSegmentor", "Segmentor", "build_segmentor", "upsample_logits"),
    "start": ("start_from",),
    "weights": ("load_model", "load_state", "load_weights", "save_model"),
}
__all__, __getattr__ = lazy_names(__name__, _NAMES)
