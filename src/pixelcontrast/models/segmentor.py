"""The network every method trains: encoder, decoder, classifier and training-time heads."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pixelcontrast.core.errors import ConfigError, unknown_name
from pixelcontrast.core.types import SegOutput
from pixelcontrast.models.blocks import resize, size_of
from pixelcontrast.models.config import LevelHeadsConfig
from pixelcontrast.models.decoders import DECODERS, ClassHead, Scores
from pixelcontrast.models.encoder import Encoder
from pixelcontrast.models.fast import fold_batch_norm, suit_processor
from pixelcontrast.models.heads import AuxiliaryHead, Classifier, ProjectionHead, VarianceHead
from pixelcontrast.models.level_heads import LevelHeads

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from pixelcontrast.models.config import EmbeddingConfig, ModelConfig


def upsample_logits(
    logits: Tensor, size: tuple[int, int], *, align_corners: bool = False
) -> Tensor:
    """Class scores (B, C, h, w) brought bilinearly to `size` (H, W), in float32."""
    return resize(logits.float(), size, align_corners=align_corners)


class Segmentor(nn.Module):
    """Encoder, decoder and classifier, with an embedding head and an auxiliary head for training.

    Images are RGB in 0..255, integer or float; normalisation happens inside with the buffers
    `mean` and `std`, which travel with the weights.

    Args:
        config: the network.
        num_classes: C.
        embedding: the embedding head, or heads on the encoder's stages; None for a network
            without any.

    Raises:
        ConfigError: unknown encoder, decoder or tap, or an encoder that cannot be dilated.
        CheckpointError: encoder weights that cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        config: ModelConfig,
        num_classes: int,
        *,
        embedding: EmbeddingConfig | LevelHeadsConfig | None = None,
    ) -> None:
        super().__init__()
        if config.decoder not in DECODERS:
            raise unknown_name("decoder", config.decoder, DECODERS)
        kind = DECODERS[config.decoder]
        self.config = config
        self.num_classes = num_classes
        self.align_corners = config.align_corners
        self.encoder = Encoder(
            config.encoder,
            output_stride=config.output_stride or kind.default_stride,
            pretrained=config.pretrained,
            weights_file=config.weights_file,
            multi_grid=config.multi_grid,
            checkpointing=config.checkpointing,
        )
        self.register_buffer("mean", _colour(self.encoder.mean))
        self.register_buffer("std", _colour(self.encoder.std))
        self.decoder = kind(
            self.encoder.channels,
            self.encoder.strides,
            width=config.decoder_channels,
            align_corners=config.align_corners,
        )
        self.classifier = self._build_classifier()
        self.auxiliary_head = (
            AuxiliaryHead(self.encoder.channels[-2], num_classes, config.dropout)
            if config.auxiliary
            else None
        )
        self.embedding_head: ProjectionHead | LevelHeads | None = None
        self.variance_head: VarianceHead | None = None
        self.variance_lr = 1.0
        if isinstance(embedding, LevelHeadsConfig):
            self.embedding_head = LevelHeads(
                self.encoder.channels, embedding.dim, levels=embedding.levels
            )
        elif embedding is not None:
            self.tap, width = self.find_tap(embedding.tap or self.decoder.default_tap)
            self.embedding_head = ProjectionHead(
                width,
                embedding.dim,
                layers=embedding.layers,
                hidden=embedding.hidden,
                batch_norm=embedding.batch_norm,
                kernel=embedding.kernel,
                dropout=embedding.dropout,
                normalise=embedding.normalise,
            )
            if embedding.variance:
                self.variance_head = VarianceHead(width, embedding.dim, hidden=embedding.hidden)
                self.variance_lr = embedding.variance_lr
        if config.freeze:
            self.encoder.requires_grad_(False)
        self.train()

    def _build_classifier(self) -> Classifier | ClassHead:
        """The decoder's own classifier, or a 1x1 convolution."""
        config = self.config
        own = self.decoder.build_classifier(self.num_classes, config.dropout)
        if own is None:
            return Classifier(
                self.decoder.channels, self.num_classes, config.dropout, unit=config.unit_features
            )
        if config.unit_features:
            raise ConfigError(
                f"decoder {config.decoder!r} has a classifier of its own, whose weights are not "
                "directions of features",
                where="model.unit_features=true",
                fix="choose another decoder, such as fpn",
            )
        return own

    def find_tap(self, name: str) -> tuple[str, int]:
        """An inner map's name and its channels.

        Raises:
            ConfigError: this network has no such map.
        """
        widths = {
            "encoder": self.encoder.channels[-1],
            "features": self.decoder.channels,
            **self.decoder.tap_channels,
        }
        if name not in widths:
            raise unknown_name("tap", name, widths)
        return name, widths[name]

    def forward(
        self,
        image: Tensor,
        *,
        embed: bool = False,
        perturb: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] | None = None,
        tap: str | None = None,
    ) -> SegOutput:
        """One pass.

        Args:
            image: (B, 3, H, W) RGB in 0..255.
            embed: also compute the embedding, and its variance where there is a head for it.
                Without it these heads cost nothing.
            perturb: changes the encoder's stages before they are decoded (UniMatch's feature
                dropout). It may append rows; logits and features then have as many.
            tap: an inner map to hand out as well, a name `find_tap` knows.

        Returns:
            Logits and features at the decoder's resolution, the encoder's stages, the embedding if
            asked for, the auxiliary logits and the masks of mask classification in training mode,
            and the map of `tap`.

        Raises:
            ConfigError: `embed` on a network without an embedding head.
        """
        stages = self.encoder(self.normalise(image))
        decoded = self.decoder(stages if perturb is None else perturb(stages))
        taps = {"encoder": stages[-1], "features": decoded.features, **decoded.taps}
        embedding = variance = None
        levels: tuple[Tensor, ...] = ()
        if embed:
            if self.embedding_head is None:
                raise ConfigError(
                    "this network has no embedding head",
                    fix="build it with an EmbeddingConfig",
                )
            if isinstance(self.embedding_head, LevelHeads):
                levels = self.embedding_head(stages)
                embedding = levels[-1]
            else:
                embedding = self.embedding_head(taps[self.tap])
                if self.variance_head is not None:
                    variance = self.variance_head(taps[self.tap])
        if isinstance(self.classifier, ClassHead):
            scores: Scores = self.classifier(decoded)
        else:
            scores = Scores(self.classifier(decoded.features))
        auxiliary = scores.auxiliary
        if self.auxiliary_head is not None and self.training:
            auxiliary = (*auxiliary, self.auxiliary_head(stages[-2]))
        return SegOutput(
            logits=scores.logits,
            features=decoded.features,
            stages=stages,
            embedding=embedding,
            variance=variance,
            levels=levels,
            auxiliary=auxiliary,
            query_classes=scores.query_classes,
            query_masks=scores.query_masks,
            tapped=None if tap is None else taps[tap],
        )

    def normalise(self, image: Tensor) -> Tensor:
        """RGB in 0..255 -> zero mean and unit variance, in the precision of the weights."""
        scaled = (image.float() - self.mean.float()) / self.std.float()
        return scaled.to(self.mean.dtype)

    def idle_heads(self, output: SegOutput) -> Tensor:
        """A zero attached to every head parameter that `output` did not use.

        Added to the loss it gives each of them a zero gradient, which distributed training needs
        in steps without a contrast term, at no cost of a forward pass.

        Args:
            output: what this step's forward pass returned.
        """
        idle: list[nn.Module | None] = []
        if output.embedding is None:
            idle += [self.embedding_head, self.variance_head]
        if not output.auxiliary:
            idle.append(self.auxiliary_head)
        zero = output.logits.new_zeros((), dtype=torch.float32)
        for head in idle:
            if head is not None:
                for parameter in head.parameters():
                    zero = zero + 0.0 * parameter.float().sum()
        return zero

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.config.freeze:
            self.encoder.eval()
        return self

    def parameter_groups(
        self,
        lr: float,
        weight_decay: float,
        *,
        head_factor: float = 1.0,
        decay_norm_and_bias: bool = True,
        layer_decay: float = 1.0,
    ) -> list[dict[str, Any]]:
        """Optimiser groups of the trainable parameters.

        Args:
            lr: rate of the encoder.
            weight_decay: decay of all groups but those of norms and biases.
            head_factor: rate of decoder and heads relative to the encoder's (10 in PiCo's
                PASCAL-Context and COCO-Stuff configurations). The variance head's is multiplied
                by `EmbeddingConfig.variance_lr` as well.
            decay_norm_and_bias: whether vectors and scalars decay too, as in the SGD recipes of
                the papers; AdamW recipes usually say no.
            layer_decay: factor on the encoder's rate from each block to the one before it; the
                last block of n has `lr * layer_decay`, what lies before the first one
                `lr * layer_decay ** (n + 1)` (BEiT, 2106.08254).
        """
        rates = {"encoder": lr, "head": lr * head_factor}
        rates["variance_head"] = rates["head"] * self.variance_lr
        depth_of: dict[str, str] = {}
        if layer_decay != 1:
            depths, blocks = self.encoder.depths()
            for depth, (name, _) in zip(depths, self.encoder.named_parameters(), strict=True):
                depth_of[f"encoder.{name}"] = f"encoder_{depth}"
                rates[f"encoder_{depth}"] = lr * layer_decay ** (blocks + 1 - depth)
        groups: dict[str, dict[str, Any]] = {}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            owner = depth_of.get(name) or name.partition(".")[0]
            part = owner if owner in rates else "head"
            decays = decay_norm_and_bias or parameter.ndim > 1
            group = groups.setdefault(
                part if decays else f"{part}_no_decay",
                {
                    "params": [],
                    "lr": rates[part],
                    "weight_decay": weight_decay if decays else 0.0,
                },
            )
            group["params"].append(parameter)
        return [{"name": name, **group} for name, group in groups.items()]

    def inference_copy(self) -> Segmentor:
        """An independent copy in evaluation mode without the heads of training."""
        twin = copy.deepcopy(self)
        twin.embedding_head = twin.variance_head = twin.auxiliary_head = None
        twin.config = replace(self.config, auxiliary=False)
        return twin.requires_grad_(False).eval()

    def deploy(self) -> DeployedSegmentor:
        """A module for export: images in, logits at the image's size out.

        Batch norm is merged into the convolutions.
        """
        deployed = DeployedSegmentor(self.inference_copy())
        side = 2 * max(self.encoder.strides)
        image = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=self.mean.device)
        fold_batch_norm(deployed, image)
        return deployed

    def fast_copy(self) -> Segmentor:
        """A copy that computes the same logits faster, for pictures rather than for files.

        Batch norm is merged into the convolutions, whose weights are arranged for the device the
        network is on.
        """
        copied = self.deploy().segmentor
        if self.mean.device.type == "cpu":
            suit_processor(copied)
        return copied


class DeployedSegmentor(nn.Module):
    """A segmentor as one plain function: (B, 3, H, W) RGB in 0..255 -> (B, C, H, W) logits."""

    def __init__(self, segmentor: Segmentor) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the image's size, in float32."""
        logits = self.segmentor(image).logits
        return upsample_logits(logits, size_of(image), align_corners=self.segmentor.align_corners)


def build_segmentor(
    config: ModelConfig,
    num_classes: int,
    *,
    embedding: EmbeddingConfig | LevelHeadsConfig | None = None,
) -> Segmentor:
    """The network of a configuration; see `Segmentor` for arguments and errors."""
    return Segmentor(config, num_classes, embedding=embedding)


def _colour(values: tuple[float, float, float]) -> Tensor:
    """A colour in 0..1 as a (1, 3, 1, 1) tensor in 0..255."""
    return 255.0 * torch.tensor(values).view(1, 3, 1, 1)
