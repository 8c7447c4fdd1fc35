"""The best network of a run together with its embedding heads, which its model file leaves out."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from pixelcontrast.methods import method_class
from pixelcontrast.models import Segmentor, build_segmentor

if TYPE_CHECKING:
    from pixelcontrast.engine.config import RunConfig
    from pixelcontrast.engine.folder import RunFolder


def segmentor_with_heads(
    folder: RunFolder, config: RunConfig, num_classes: int
) -> Segmentor | None:
    """The network that `model.safetensors` was made from, in evaluation mode, on the CPU.

    Args:
        folder: the run.
        config: its configuration.
        num_classes: C.

    Returns:
        None where the method has no embedding head or the best checkpoint is gone or unusable: the
        embeddings then cannot be looked at, everything else can.
    """
    embedding = method_class(config.method_name).embedding_head(config.method)
    if embedding is None:
        return None
    try:
        checkpoint = torch.load(folder.best, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return None
    which = (folder.read_record().get("best") or {}).get("which")
    # The trained network lies in the method itself, averaged ones in a module of their name.
    prefix = "segmentor." if which == "student" else f"{which}.module."
    weights = {
        name.removeprefix(prefix): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    model = replace(config.model, pretrained=False, weights_file=None)
    segmentor = build_segmentor(model, num_classes, embedding=embedding)
    try:
        segmentor.load_state_dict(weights)
    except RuntimeError:
        return None
    return segmentor.requires_grad_(False).eval()
