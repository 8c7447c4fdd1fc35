"""Mix Transformer, the encoder of SegFormer: timm models `mit_b0` to `mit_b5`.

timm itself has no such backbone. It is registered there on import, so that weights, features and
names are handled as for every other encoder. Parameters carry the names of the published weight
files; those of the `transformers` library are translated.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.layers.weight_init import trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_HEADS = (1, 2, 5, 8)
_REDUCTIONS = (8, 4, 2, 1)
_STRIDES = (4, 8, 16, 32)
_WIDTH = (64, 128, 320, 512)
_SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mit_b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": (_WIDTH, (2, 2, 2, 2)),
    "mit_b2": (_WIDTH, (3, 4, 6, 3)),
    "mit_b3": (_WIDTH, (3, 4, 18, 3)),
    "mit_b4": (_WIDTH, (3, 8, 27, 3)),
    "mit_b5": (_WIDTH, (3, 6, 40, 3)),
}
"""Widths and depths of the stages: table 6 of 2105.15203."""

_UNUSED: Any = ("num_classes", "in_chans", "global_pool")  # timm annotates a tuple of one

LICENSE = "NVIDIA Source Code License (non-commercial)"
"""Licence of the published weights."""


class MixTransformer(nn.Module):
    """Four stages of transformer blocks without positional embedding (Xie et al., 2105.15203).

    Section 3.1: overlapping patches, attention whose keys and values are reduced by a strided
    convolution, and a feed-forward network with a depthwise 3x3 convolution. Takes any image size;
    stages have `ceil(H / stride)` x `ceil(W / stride)` positions.

    Args:
        widths: channels of the stages.
        depths: blocks of the stages.
        drop_path_rate: share of dropped residual branches at the deepest block, growing linearly
            from 0 (0.1 in the authors' code for all sizes).
    """

    def __init__(
        self, widths: Sequence[int], depths: Sequence[int], *, drop_path_rate: float = 0.1
    ) -> None:
        super().__init__()
        total = sum(depths)
        before = 3
        block = 0
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            self.add_module(f"patch_embed{stage}", _Patches(before, width, first=stage == 1))
            blocks = nn.ModuleList()
            for _ in range(depth):
                drop = drop_path_rate * block / max(1, total - 1)
                blocks.append(
                    _Block(width, _HEADS[stage - 1], _REDUCTIONS[stage - 1], drop_path=drop)
                )
                block += 1
            self.add_module(f"block{stage}", blocks)
            self.add_module(f"norm{stage}", nn.LayerNorm(width, eps=1e-6))
            before = width
        self.feature_info = [
            {"num_chs": width, "reduction": stride, "module": f"norm{stage}"}
            for stage, (width, stride) in enumerate(zip(widths, _STRIDES, strict=True), start=1)
        ]
        self.apply(_initialise)

    def forward_intermediates(self, x: Tensor, **_options: Any) -> list[Tensor]:
        """(B, 3, H, W) -> the four stages (B, F, h, w); timm's options do not apply."""
        stages = []
        for stage in range(1, len(_STRIDES) + 1):
            tokens = getattr(self, f"patch_embed{stage}")(x)
            for block in getattr(self, f"block{stage}"):
                tokens = block(tokens)
            x = getattr(self, f"norm{stage}")(tokens).permute(0, 3, 1, 2)
            stages.append(x)
        return stages


class _Patches(nn.Module):
    """Overlapping patches as tokens: (B, F, H, W) -> (B, h, w, width)."""

    def __init__(self, inputs: int, width: int, *, first: bool) -> None:
        super().__init__()
        kernel, stride = (7, 4) if first else (3, 2)
        self.proj = nn.Conv2d(inputs, width, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return out


class _Block(nn.Module):
    """Attention and feed-forward network, each beside the identity, on (B, h, w, F)."""

    def __init__(self, width: int, heads: int, reduction: int, *, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _MixFFN(width)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class _Attention(nn.Module):
    """Every position looks at a coarser grid: equation 2 with R = `reduction` squared."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.reduction = reduction
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, stride=reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        coarse = x
        if self.reduction > 1:
            grid = x.permute(0, 3, 1, 2)
            # A map smaller than the kernel has no position to reduce to.
            missing = max(0, self.reduction - height), max(0, self.reduction - width)
            if any(missing):
                grid = F.pad(grid, (0, missing[1], 0, missing[0]))
            coarse = self.norm(self.sr(grid).permute(0, 2, 3, 1))
        split = (self.heads, channels // self.heads)
        query = self.q(x).flatten(1, 2).unflatten(-1, split).transpose(1, 2)
        keys, values = (
            part.unflatten(-1, split).transpose(1, 2)
            for part in self.kv(coarse).flatten(1, 2).chunk(2, dim=-1)
        )
        seen = F.scaled_dot_product_attention(query, keys, values)
        out: Tensor = self.proj(seen.transpose(1, 2).reshape(batch, height, width, channels))
        return out


class _MixFFN(nn.Module):
    """Linear, depthwise 3x3 convolution, GELU, linear: equation 3."""

    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__()
        inner = ratio * width
        self.fc1 = nn.Linear(width, inner)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv2d(inner, inner, 3, padding=1, groups=inner)})
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dwconv["dwconv"](self.fc1(x).permute(0, 3, 1, 2))
        out: Tensor = self.fc2(F.gelu(inner.permute(0, 2, 3, 1)))
        return out


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
    if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)


# Names of `transformers` 4 (first) and 5 (second) -> names of the published files; stages are
# counted from 0 there and from 1 here.
_TRANSLATIONS = (
    (r"^segformer\.", ""),
    (r"^encoder\.patch_embeddings\.(\d)\.", r"patch_embed\1."),
    (r"^stages\.(\d)\.patch_embeddings\.", r"patch_embed\1."),
    (r"^(?:encoder\.)?(?:block\.(\d)\.|stages\.(\d)\.blocks\.)", r"block\1\2."),
    (r"^(?:encoder\.layer_norm\.(\d)\.|stages\.(\d)\.layer_norm\.)", r"norm\1\2."),
    (r"(patch_embed\d)\.layer_norm\.", r"\1.norm."),
    (r"\.layer_norm_1\.|\.layernorm_before\.", ".norm1."),
    (r"\.layer_norm_2\.|\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(?:self\.query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(?:self\.key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(?:self\.value|v_proj)\.", ".attn.v."),
    (r"\.attention\.(?:self\.sr|sequence_reduction\.sequence_reduction)\.", ".attn.sr."),
    (r"\.attention\.(?:self|sequence_reduction)\.layer_norm\.", ".attn.norm."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.mlp\.dense(\d)\.", r".mlp.fc\1."),
)


def _published_names(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights of either naming under the names of `model`; classifiers are left out."""
    wanted = model.state_dict().keys()
    if any(key in wanted for key in state):
        return {key: value for key, value in state.items() if key in wanted}
    named = {}
    for key, value in state.items():
        for pattern, new in _TRANSLATIONS:
            key = re.sub(pattern, new, key)
        named[
            re.sub(r"^(patch_embed|block|norm)(\d)", lambda m: m[1] + str(int(m[2]) + 1), key)
        ] = value
    for key in [key for key in named if ".attn.k." in key]:
        value = named.pop(key.replace(".attn.k.", ".attn.v."))
        named[key.replace(".attn.k.", ".attn.kv.")] = torch.cat([named.pop(key), value])
    return {key: value for key, value in named.items() if key in wanted}


def _entry(name: str) -> Callable[..., Any]:
    def build(pretrained: bool = False, **options: Any) -> Any:
        widths, depths = _SIZES[name]
        return build_model_with_cfg(
            MixTransformer,
            name,
            pretrained,
            widths=widths,
            depths=depths,
            pretrained_filter_fn=_published_names,
            kwargs_filter=_UNUSED,
            feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
            **options,
        )

    build.__name__ = name
    build.__doc__ = f"{name}: Mix Transformer of {' + '.join(map(str, _SIZES[name][1]))} blocks."
    return build


default_cfgs = generate_default_cfgs(
    {
        f"{name}.in1k": {
            "hf_hub_id": f"nvidia/{name.replace('_', '-')}",
            "hf_hub_filename": "pytorch_model.bin",
            "input_size": (3, 224, 224),
            "num_classes": 1000,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "license": LICENSE,
        }
        for name in _SIZES
    }
)

for _name in _SIZES:
    if not is_model(_name):  # a later timm may bring its own
        register_model(_entry(_name))
