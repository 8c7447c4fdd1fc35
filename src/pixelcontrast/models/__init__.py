"""Networks: timm encoders, decoders, heads, and the segmentor that joins them."""

from pixelcontrast.models.config import EmbeddingConfig, ModelConfig
from pixelcontrast.models.decoders import DECODERS, Decoded, Decoder
from pixelcontrast.models.encoder import Encoder
from pixelcontrast.models.heads import AuxiliaryHead, Classifier, ProjectionHead
from pixelcontrast.models.segmentor import (
    DeployedSegmentor,
    Segmentor,
    build_segmentor,
    upsample_logits,
)
from pixelcontrast.models.weights import load_model, load_state, load_weights, save_model

__all__ = [
    "DECODERS",
    "AuxiliaryHead",
    "Classifier",
    "Decoded",
    "Decoder",
    "DeployedSegmentor",
    "EmbeddingConfig",
    "Encoder",
    "ModelConfig",
    "ProjectionHead",
    "Segmentor",
    "build_segmentor",
    "load_model",
    "load_state",
    "load_weights",
    "save_model",
    "upsample_logits",
]
