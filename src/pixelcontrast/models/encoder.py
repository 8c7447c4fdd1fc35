"""One contract over timm's backbones: any image size in, right-sized stages out."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelcontrast.core.errors import CheckpointError, ConfigError, unknown_name
from pixelcontrast.models import mit  # noqa: F401  (registers its models with timm)
from pixelcontrast.models.pretrained import build_with_file, leaving_the_classifier
from pixelcontrast.models.recompute import blocks_of, recompute

if TYPE_CHECKING:
    from pathlib import Path

_STAGES = 4
_FINEST_STRIDE = 4  # a stem at stride 2 costs memory and no decoder reads it
_FREE = ("apache-2.0", "mit", "bsd-3-clause")


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a timm model has to be built and fed; found by trying it without memory."""

    options: dict[str, Any]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    channels_last: bool
    multiple: int  # images are padded to a multiple of this; 1 where any size is right already


class Encoder(nn.Module):
    """A timm backbone as a pyramid of stages.

    Every stage of stride s has `ceil(H / s)` x `ceil(W / s)` positions for an H x W image, 1 x 1
    included: backbones that need multiples of a patch or of their deepest stride are padded at the
    bottom and right with zeros (the mean colour) and their stages cut. Dilation keeps the previous
    rate in the first block of a dilated stage, as torchvision does. Stages finer than stride 4 are
    dropped; plain vision transformers give four blocks spread over their depth.

    Args:
        name: a timm model name, with or without a weight tag.
        output_stride: largest stride, 8, 16 or 32; deeper stages are dilated instead.
        pretrained: fetch the published weights through timm.
        weights_file: weights on disk to use instead of a download.
        multi_grid: factors on the dilation of the blocks of a ResNet's last stage (Chen et al.,
            1706.05587, section 3.2.1).
        checkpointing: compute the blocks again in the backward pass instead of storing them.

    Raises:
        ConfigError: unknown name, a backbone without stages, or one that cannot be dilated,
            multi-gridded or computed again.
        CheckpointError: weights that cannot be fetched, read, or do not belong to the backbone.
    """

    channels: tuple[int, ...]
    """Widths of the stages, shallow to deep."""
    strides: tuple[int, ...]
    """Their true strides, after dilation."""
    mean: tuple[float, float, float]
    """Mean RGB of the pretraining images, in 0..1."""
    std: tuple[float, float, float]
    """Standard deviation of the pretraining images, in 0..1."""
    license: str
    """Licence of the published weights as timm states it; empty if it states none."""

    def __init__(
        self,
        name: str,
        *,
        output_stride: int = 32,
        pretrained: bool = False,
        weights_file: Path | None = None,
        multi_grid: tuple[int, ...] | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        plan = _plan(name, output_stride)
        if pretrained and weights_file is None:
            _warn_of_licence(name)
        self.net = _build(name, plan.options, pretrained=pretrained, weights_file=weights_file)
        self.channels = plan.channels
        self.strides = plan.strides
        self._multiple = plan.multiple
        self._channels_last = plan.channels_last
        cfg = self.net.pretrained_cfg
        self.mean = tuple(cfg.get("mean") or (0.485, 0.456, 0.406))
        self.std = tuple(cfg.get("std") or (0.229, 0.224, 0.225))
        self.license = cfg.get("license") or ""
        if multi_grid is not None:
            _dilate_blocks(self.net, name, multi_grid)
        if checkpointing and not recompute(self.net):
            raise ConfigError(
                f"encoder {name!r} has no repeated blocks that could be computed again",
                where="model.checkpointing=true",
                fix="set model.checkpointing=false",
            )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Normalised images (B, 3, H, W) -> stages (B, F_s, ceil(H / s), ceil(W / s))."""
        height, width = image.shape[-2:]
        if self._multiple > 1:
            right, bottom = (_ceil(n, self._multiple) * self._multiple - n for n in (width, height))
            image = F.pad(image, (0, right, 0, bottom))
        stages: list[Tensor] = self.net(image)[-len(self.strides) :]
        if self._channels_last:
            stages = [stage.permute(0, 3, 1, 2) for stage in stages]
        if self._multiple > 1:
            stages = [
                stage[..., : _ceil(height, s), : _ceil(width, s)]
                for stage, s in zip(stages, self.strides, strict=True)
            ]
        return tuple(stages)

    def depths(self) -> tuple[list[int], int]:
        """How deep every parameter lies, in the order of `parameters()`, and the number of blocks.

        0 before the first block, k in the k-th block and between it and the next one.
        """
        units = tuple(blocks_of(self.net))
        prefixes = {f"{name}.": depth for depth, name in enumerate(units, start=1)}
        depths: list[int] = []
        latest = 0
        for name, _ in self.net.named_parameters():
            latest = next((d for prefix, d in prefixes.items() if name.startswith(prefix)), latest)
            depths.append(latest)
        return depths, len(units)


def _ceil(size: int, stride: int) -> int:
    """`ceil(size / stride)`; ONNX rounds the quotients of negative numbers towards zero."""
    return (size + stride - 1) // stride


@cache
def _plan(name: str, output_stride: int) -> _Plan:
    """Finds the options under which a timm model takes any size, on memory-less tensors."""
    if not timm.is_model(name):
        raise unknown_name("encoder", name, timm.list_models())
    tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    if "." in name and name not in tags:
        raise unknown_name("encoder weights", name, tags)
    options, model = _sizeable(name)
    info = model.feature_info
    if len(set(info.reduction())) == 1:  # a plain transformer: all blocks have the patch's stride
        depth = len(info.info)
        options["out_indices"] = tuple(depth * (k + 1) // _STAGES - 1 for k in range(_STAGES))
        model = _memoryless(name, options)
    if max(model.feature_info.reduction()) > output_stride:
        options["output_stride"] = output_stride
        try:
            model = _memoryless(name, options)
        except (TypeError, AssertionError, NotImplementedError, KeyError, ValueError) as error:
            raise ConfigError(
                f"encoder {name!r} cannot be dilated to output stride {output_stride}",
                where=f"model.output_stride={output_stride}",
                fix="set model.output_stride=32",
            ) from error
    info = model.feature_info
    kept = [k for k, stride in enumerate(info.reduction()) if stride >= _FINEST_STRIDE]
    strides = tuple(int(info.reduction()[k]) for k in kept)
    layout = str(getattr(getattr(model, "output_fmt", None), "value", "NCHW"))
    return _Plan(
        options=options,
        channels=tuple(int(info.channels()[k]) for k in kept),
        strides=strides,
        channels_last=layout == "NHWC",
        multiple=1 if _rounds_up(model, strides) else max(strides),
    )


def _sizeable(name: str) -> tuple[dict[str, Any], Any]:
    """Options under which the backbone takes sizes other than its own, and a model built so."""
    # The classification widening of HRNet is not part of the segmentation network.
    base = {"feature_location": ""} if name.startswith("hrnet") else {}
    reason = ""
    for extra in ({}, {"dynamic_img_size": True}, {"strict_img_size": False}):
        options = {**base, **extra}
        try:
            model = _memoryless(name, options)
            side = 2 * max(model.feature_info.reduction())
            model(torch.zeros(1, 3, side, 2 * side, device="meta"))
        except Exception as error:  # whatever a third-party constructor or forward may raise
            reason = reason or str(error).partition("\n")[0]
        else:
            return options, model
    raise ConfigError(
        f"timm model {name!r} cannot serve as an encoder: {reason}",
        where=f"model.encoder={name}",
        fix="choose a backbone with feature maps that accepts any image size, such as resnet50",
    )


def _memoryless(name: str, options: dict[str, Any]) -> Any:
    """The backbone in evaluation mode on the meta device: shapes without weights."""
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, features_only=True, **options).eval()


def _rounds_up(model: Any, strides: tuple[int, ...]) -> bool:
    """Whether the stages of an odd image are `ceil(size / stride)` without any padding."""
    size = 2 * max(strides) + 1  # odd at every stage, so that each division has to round up
    try:
        stages = model(torch.zeros(1, 3, size, size, device="meta"))[-len(strides) :]
    except (RuntimeError, AssertionError):
        return False
    return all(
        stage.shape[-1] == math.ceil(size / s) for stage, s in zip(stages, strides, strict=True)
    )


def _dilate_blocks(net: Any, name: str, grid: tuple[int, ...]) -> None:
    """Multiply the dilation of the last stage's 3x3 convolutions, block by block."""
    blocks = list(getattr(net, "layer4", ()))
    convolutions = [block.conv2 for block in blocks if hasattr(block, "conv3")]
    if not blocks or len(convolutions) != len(blocks):
        raise ConfigError(
            f"encoder {name!r} has no bottleneck blocks for a multi-grid",
            where=f"model.multi_grid={list(grid)}",
            fix="set model.multi_grid=null, or use a ResNet of 50 layers or more",
        )
    if len(grid) != len(blocks):
        raise ConfigError(
            f"the last stage of {name!r} has {len(blocks)} blocks",
            where=f"model.multi_grid={list(grid)}",
            fix=f"give {len(blocks)} factors",
        )
    base = convolutions[-1].dilation[0]
    for convolution, factor in zip(convolutions, grid, strict=True):
        convolution.dilation = convolution.padding = (base * factor, base * factor)


def _warn_of_licence(name: str) -> None:
    """Say before a download that its licence is not one of free software."""
    cfg = timm.get_pretrained_cfg(name)
    stated = (cfg and cfg.license) or ""
    if stated.lower() not in _FREE:
        warnings.warn(
            f"the published weights of encoder {name!r} come under the licence "
            f"{stated or 'that timm does not state'}: read it before you use them; "
            "model.pretrained=false does without",
            stacklevel=2,
        )


def _build(
    name: str, options: dict[str, Any], *, pretrained: bool, weights_file: Path | None
) -> Any:
    """The backbone with the weights asked for."""
    if weights_file is not None:
        return build_with_file(name, options, weights_file)
    try:
        with leaving_the_classifier():
            return timm.create_model(name, pretrained=pretrained, features_only=True, **options)
    except Exception as error:
        if not pretrained:
            raise
        # Construction worked on the meta device, so it is the weights that are missing.
        raise CheckpointError(
            f"the weights of encoder {name!r} could not be fetched "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]})",
            where=f"model.encoder={name}",
            fix="go online once, or set model.weights_file=PATH to a copy of the weights, "
            "or train from scratch with model.pretrained=false",
        ) from error
