"""Segmenter: class scores of a plain vision transformer's patches, linear or by class tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models.attention import Attention, tokens_of
from pixelcontrast.models.blocks import size_of
from pixelcontrast.models.decoders.base import ClassHead, Decoded, Decoder, Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAYERS = 2
_HEAD_WIDTH = 64
_INIT = 0.02


class Linear(Decoder):
    """The patches of the deepest stage, normalised, for a linear classifier.

    The baseline of Segmenter (Strudel et al., 2105.05633, section 3.2, "Linear"), and the linear
    probe of DINOv2. The layer norm is the one a vision transformer ends with; stages of the encoder
    are taken before it. Unlike Segmenter, dropout precedes the classifier; `model.dropout=0` leaves
    it out.

    Taps: `features` (default), `encoder` (before the norm).
    """

    default_stride = 32

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        width: int | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__(channels, strides)
        if width not in (None, channels[-1]):
            raise ConfigError(
                f"a linear decoder is as wide as its encoder, {channels[-1]} channels",
                where=f"model.decoder_channels={width}",
                fix="leave it out",
            )
        self.channels = channels[-1]
        self.tap_channels = {}
        self.norm = LayerNorm2d(self.channels)

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> features at the deepest stage's resolution."""
        return Decoded(self.norm(stages[-1]))


class Segmenter(Decoder):
    """The patches of the deepest stage, normalised, for a mask transformer.

    Strudel et al., 2105.05633, section 3.2. `decoder_channels` is the width of the mask
    transformer, by default (as published) that of the encoder.

    Taps: `features` (default), `encoder` (before the norm).
    """

    default_stride = 32

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        width: int | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__(channels, strides)
        self.channels = channels[-1]
        self.width = width or channels[-1]
        self.tap_channels = {}
        self.norm = LayerNorm2d(self.channels)

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> features at the deepest stage's resolution."""
        return Decoded(self.norm(stages[-1]))

    def build_classifier(self, num_classes: int, dropout: float) -> MaskTransformer:
        """Class tokens that compare themselves with the patches."""
        return MaskTransformer(self.channels, self.width, num_classes, dropout)


class MaskTransformer(ClassHead):
    """Class tokens and patches, refined together by two layers, then compared.

    The score of a class at a patch is the cosine of their vectors, layer-normalised over the
    classes. Released values: two layers, heads of 64 channels, hidden layers 4 times as wide,
    dropout 0.1, weights drawn with deviation 0.02.

    Deviation: layer norm over two classes gives plus or minus one whatever the two scores are, so
    that nothing could be learnt; with two classes each score has a learnt gain and offset instead,
    the gain beginning at the root of the width, which gives random vectors scores of variance one
    (`test_two_classes_can_be_learnt`).

    Args:
        inputs: channels of the features.
        width: channels of the tokens.
        num_classes: C.
        dropout: share of dropped activations in the layers.
    """

    def __init__(self, inputs: int, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.project = nn.Linear(inputs, width)
        self.classes = nn.Parameter(torch.empty(1, num_classes, width))
        self.layers = nn.Sequential(*(_Layer(width, dropout) for _ in range(_LAYERS)))
        self.norm = nn.LayerNorm(width)
        self.patch_map = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.class_map = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.score_norm = nn.LayerNorm(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_INIT)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.classes, std=_INIT)
        if num_classes == 2:
            nn.init.constant_(self.score_norm.weight, width**0.5)

    def forward(self, decoded: Decoded) -> Scores:
        """Class scores at the resolution of the features, in float32."""
        patches = self.project(tokens_of(decoded.features))
        tokens = torch.cat([patches, self.classes.expand(len(patches), -1, -1)], dim=1)
        tokens = self.norm(self.layers(tokens))
        patches, classes = tokens.split(
            [tokens.shape[1] - self.num_classes, self.num_classes], dim=1
        )
        patches, classes = patches @ self.patch_map, classes @ self.class_map
        with torch.autocast(patches.device.type, enabled=False):
            wide = torch.promote_types(patches.dtype, torch.float32)
            cosine = F.normalize(patches.to(wide), dim=2) @ F.normalize(classes.to(wide), dim=2).mT
            scores = self._normalise(cosine)
        return Scores(scores.mT.reshape(len(scores), -1, *size_of(decoded.features)))

    def _normalise(self, cosine: Tensor) -> Tensor:
        norm = self.score_norm
        gain, offset = norm.weight.to(cosine.dtype), norm.bias.to(cosine.dtype)
        if self.num_classes == 2:
            return cosine * gain + offset
        return F.layer_norm(cosine, (self.num_classes,), gain, offset, norm.eps)


class _Layer(nn.Module):
    """A transformer layer with layer norm before each part."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        heads = next(n for n in range(max(1, width // _HEAD_WIDTH), 0, -1) if width % n == 0)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.drop = nn.Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        x = x + self.drop(self.attention(normed, normed, normed))
        out: Tensor = x + self.mlp(x)
        return out
