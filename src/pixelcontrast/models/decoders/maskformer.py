"""MaskFormer: a set of masks, each with one class, in place of a class for every pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models.attention import Attention, tokens_of
from pixelcontrast.models.blocks import size_of
from pixelcontrast.models.decoders.base import ClassHead, Decoded, Decoder, Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

_QUERIES = 100
_LAYERS = 6
_HEADS = 8
_GROUPS = 32
_WIDTH_STEP = 64  # two channels a group, so that a map of a single pixel has a variance
_SMALLEST_SCORE = 1e-6  # keeps the logarithm of the semantic scores finite


class MaskFormer(Decoder):
    """The pixel decoder of MaskFormer (Cheng et al., 2107.06278, sections 3.4 and 4.1).

    A feature pyramid with group norm, 256 channels; its output are the per-pixel embeddings that
    the masks are made of. The deepest stage is handed to the transformer, which is the classifier.

    Taps: `features` (default: the per-pixel embeddings), `encoder`.
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
        self.channels = inner = width or 256
        if inner % _WIDTH_STEP:
            raise ConfigError(
                f"MaskFormer's width is a multiple of {_WIDTH_STEP}, for its group norms and heads",
                where=f"model.decoder_channels={inner}",
                fix="leave it out for the published 256",
            )
        self.context_channels = channels[-1]
        self.tap_channels = {}
        self.stem = _conv_group_norm(channels[-1], inner, 3)
        self.laterals = nn.ModuleList(_conv_group_norm(c, inner, 1) for c in channels[:-1])
        self.smooths = nn.ModuleList(_conv_group_norm(inner, inner, 3) for _ in channels[:-1])
        self.embed = nn.Conv2d(inner, inner, 3, padding=1)

    def forward(self, stages: Sequence[Tensor]) -> Decoded:
        """Encoder stages -> per-pixel embeddings at the shallowest stage's resolution."""
        top = self.stem(stages[-1]).relu()
        for place in range(len(stages) - 2, -1, -1):
            level = self.laterals[place](stages[place])
            level = level + F.interpolate(top, size=size_of(level), mode="nearest")
            top = self.smooths[place](level).relu()
        return Decoded(self.embed(top), context=stages[-1])

    def build_classifier(self, num_classes: int, dropout: float) -> MaskClassifier:
        """The transformer that gives each of its queries a mask and a class."""
        return MaskClassifier(self.context_channels, self.channels, num_classes, dropout)


class MaskClassifier(ClassHead):
    """Transformer decoder, class and mask of every query, and their sum as class scores.

    The logits are logarithms of the semantic scores of section 3.5, the sum over queries of class
    probability times mask probability. Their arg max is the published prediction, their softmax the
    scores divided by their sum, which is what pseudo-labels and confidences are made of.

    Published values: 100 queries, 6 layers, 8 heads, hidden layers of 2048, dropout 0.1, sine
    positions on the keys (DETR, 2005.12872).

    Args:
        inputs: channels of the deepest encoder stage.
        width: channels of the queries and of the per-pixel embeddings.
        num_classes: C.
        dropout: share of dropped activations in the layers.
    """

    def __init__(self, inputs: int, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Conv2d(inputs, width, 1)
        self.queries = nn.Parameter(torch.randn(_QUERIES, width))
        self.layers = nn.ModuleList(_Layer(width, dropout) for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(width)
        self.class_map = nn.Linear(width, num_classes + 1)
        self.mask_map = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
        )
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, decoded: Decoded) -> Scores:
        """Class scores in float32, and in training the masks and classes of every layer."""
        assert decoded.context is not None  # the decoder of this file gives it
        image = self.project(decoded.context)
        keys = tokens_of(image)
        places = keys + sine_positions(image)
        positions = self.queries.expand(len(keys), -1, -1)
        queries = torch.zeros_like(positions)
        refined = []
        for layer in self.layers:
            queries = layer(queries, positions, keys, places)
            refined.append(queries)
        kept = refined if self.training else refined[-1:]
        classes, masks = [], []
        for state in kept:
            normed = self.norm(state)
            classes.append(self.class_map(normed))
            masks.append(torch.einsum("bqd,bdhw->bqhw", self.mask_map(normed), decoded.features))
        logits = semantic_logits(classes[-1], masks[-1])
        if not self.training:
            return Scores(logits)
        return Scores(logits, query_classes=tuple(classes), query_masks=tuple(masks))


def semantic_logits(classes: Tensor, masks: Tensor) -> Tensor:
    """Logarithm of each class's score at each pixel (section 3.5), in float32.

    Args:
        classes: (B, Q, C + 1) class scores of the queries, the last of them "no object".
        masks: (B, Q, h, w) scores of their masks.

    Returns:
        (B, C, h, w).
    """
    with torch.autocast(classes.device.type, enabled=False):
        probability = classes.float().softmax(2)[..., :-1]
        scores = torch.einsum("bqc,bqhw->bchw", probability, masks.float().sigmoid())
        return (scores + _SMALLEST_SCORE).log()


def sine_positions(image: Tensor) -> Tensor:
    """Sines and cosines of a map's rows and columns, each scaled to 2 pi (DETR, appendix A.4).

    Args:
        image: (B, F, h, w), F a multiple of 4; only its size, type and device matter.

    Returns:
        (h w, F), rows first.
    """
    height, width = size_of(image)
    half = image.shape[1] // 2
    pair = torch.arange(half, device=image.device) // 2
    period = 10_000 ** (2 * pair.float() / half)
    sides = []
    for side in (height, width):
        places = torch.arange(1, side + 1, device=image.device, dtype=torch.float32)
        angle = (places / (side + 1e-6) * 2 * math.pi)[:, None] / period
        sides.append(torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1))
    rows = sides[0][:, None].expand(-1, width, -1)
    columns = sides[1][None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1).to(image.dtype)


class _Layer(nn.Module):
    """Queries attend to each other, then to the image (DETR, appendix A.3), norms afterwards."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.among = Attention(width, _HEADS)
        self.among_norm = nn.LayerNorm(width)
        self.across = Attention(width, _HEADS)
        self.across_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 8 * width), nn.ReLU(), nn.Linear(8 * width, width)
        )
        self.mlp_norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, queries: Tensor, positions: Tensor, keys: Tensor, places: Tensor) -> Tensor:
        """Refines (B, Q, D) queries by (B, h w, D) keys; `places` are keys with positions."""
        placed = queries + positions
        queries = self.among_norm(queries + self.drop(self.among(placed, placed, queries)))
        read = self.across(queries + positions, places, keys)
        queries = self.across_norm(queries + self.drop(read))
        out: Tensor = self.mlp_norm(queries + self.drop(self.mlp(queries)))
        return out


def _conv_group_norm(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution without bias and group norm; the input's size is kept."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(_GROUPS, outputs),
    )
