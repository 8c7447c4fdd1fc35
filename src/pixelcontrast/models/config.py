"""Configuration of the network: what a recipe may say about encoder, decoder and heads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pixelcontrast.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A segmentation network without its embedding head."""

    encoder: str = "resnet50"
    """A timm model name, with or without a weight tag (`resnet50.tv_in1k`)."""
    decoder: str = "deeplabv3plus"
    """A key of `pixelcontrast.models.DECODERS`."""
    output_stride: Literal[8, 16, 32] | None = None
    """Largest stride of the encoder, reached by dilation. None: what the decoder was published
    with, 16 for the DeepLab decoders (1706.05587, 1802.02611), 32 for FPN and HRNet."""
    multi_grid: tuple[int, ...] | None = None
    """Factors on the dilation of the last stage's blocks in a ResNet of 50 layers or more;
    U2PL (2203.03884) has [1, 2, 4]."""
    pretrained: bool = True
    """Fetch the encoder's published weights through timm; `weights_file` makes that needless."""
    weights_file: Path | None = None
    """Encoder weights on disk (.safetensors or .pth, timm's key names), used in place of a
    download."""
    init: Path | None = None
    """A run's folder or model file to begin with: its encoder, its decoder where it is of the same
    kind, its classifier where that was trained for the same classes."""
    decoder_channels: int | None = None
    """Width of the classifier's input. None: the decoder's published width, 256 for DeepLab and
    FPN, the concatenated width (720 for W48) for HRNet."""
    dropout: float = 0.1
    """Channel dropout before the classifiers (official HRNet and OCRNet code)."""
    auxiliary: bool = False
    """A second classifier on the last but one encoder stage, in training only."""
    unit_features: bool = False
    """Bring the classifier's input to unit length at every pixel, so that its weights can be the
    centroids of clusters (PiCIE)."""
    freeze: bool = False
    """Keep the encoder as it was loaded: no gradients, batch norm in evaluation mode."""
    checkpointing: bool = False
    """Compute the encoder's blocks again in the backward pass instead of storing what they
    computed: less memory, about a third more time (1604.06174)."""
    align_corners: bool = False
    """Corner convention of every bilinear up-sampling. The code of PiCo, U2PL and RankMatch uses
    True; their recipes say so."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ConfigError("dropout must lie in [0, 1)", where=f"model.dropout={self.dropout}")
        if self.init is not None and self.weights_file is not None:
            raise ConfigError(
                "weights_file and init both name the first weights of the encoder",
                where=f"model.init={self.init}",
                fix="set one of them to null",
            )
        if self.multi_grid is not None and (not self.multi_grid or min(self.multi_grid) < 1):
            raise ConfigError(
                "the factors of a multi-grid are positive",
                where=f"model.multi_grid={list(self.multi_grid)}",
                fix="for example [1, 2, 4], or null",
            )
        if self.decoder_channels is not None and self.decoder_channels < 1:
            raise ConfigError(
                "a decoder needs at least one channel",
                where=f"model.decoder_channels={self.decoder_channels}",
            )


@dataclass(frozen=True, slots=True)
class EmbeddingConfig:
    """The projection head that turns features into pixel embeddings."""

    dim: int = 256
    """Length D of an embedding (PiCo, U2PL, PRCL and label-contrastive pretraining all use 256)."""
    layers: int = 2
    """Convolutions, the last one 1x1; 1 is a linear head, 2 is that of PiCo (2101.11939) and PRCL
    (2210.14670), 3 that of U2PL (2203.03884) and label-contrastive pretraining (2012.06985)."""
    hidden: int | None = None
    """Width between the convolutions. None: the width of the tap, as in PiCo's code."""
    batch_norm: bool = True
    """Batch norm before each ReLU, as in PiCo's code."""
    kernel: Literal[1, 3] = 1
    """Size of the convolutions before the last one; 3 in U2PL and PRCL, with `hidden` 256."""
    dropout: float = 0.0
    """Channel dropout after each ReLU; 0.1 in U2PL's code."""
    normalise: bool = True
    """Bring embeddings to unit length. PRCL and U2PL keep the length and compare directions."""
    tap: str | None = None
    """Feature map the head reads: `features` (the classifier's input), `encoder` (the deepest
    stage) or a name the decoder offers in `tap_channels`. None: the decoder's `default_tap`."""
    variance: bool = False
    """A second head on the same tap gives every component of an embedding a variance (PRCL)."""
    variance_lr: float = 1.0
    """Learning rate of the variance head relative to that of the other heads; PRCL's 5e-5 beside
    3.2e-3 is 1/64."""

    def __post_init__(self) -> None:
        if self.dim < 1 or (self.hidden is not None and self.hidden < 1):
            raise ConfigError(
                "an embedding head needs at least one channel",
                where=f"embedding.dim={self.dim}, embedding.hidden={self.hidden}",
            )
        if self.layers not in (1, 2, 3):
            raise ConfigError(
                "an embedding head has 1, 2 or 3 layers", where=f"embedding.layers={self.layers}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(
                "dropout must lie in [0, 1)", where=f"embedding.dropout={self.dropout}"
            )
        if not self.variance_lr > 0:
            raise ConfigError(
                "a learning-rate factor must be positive",
                where=f"embedding.variance_lr={self.variance_lr}",
            )


@dataclass(frozen=True, slots=True)
class LevelHeadsConfig:
    """Projection heads on encoder stages: one embedding for every level."""

    dim: int = 256
    """Length D of an embedding (Contextrast and Pissas et al., ECCV 2022)."""
    levels: tuple[int, ...] | None = None
    """Stages that get a head, counted from 1 at the shallowest; None: all (Contextrast: 1 to 4)."""

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError("a head needs at least one channel", where=f"heads.dim={self.dim}")
        if self.levels is not None and (
            not self.levels or self.levels[0] < 1 or list(self.levels) != sorted(set(self.levels))
        ):
            raise ConfigError(
                "levels are different stages in rising order, from 1 on",
                where=f"heads.levels={list(self.levels)}",
                fix="for example [1, 2, 3, 4]",
            )
