"""Model files: a segmentor's weights and everything needed to use them, in one safetensors file.

The heads of training are left out. The header carries, each as a JSON string, the network's
configuration, class count, normalisation, and whatever the caller adds (class names, palette,
ignore index, split ...), so that a file can be loaded, and read by other tools, without this
project's run folder. Loading executes nothing from the file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from pixelcontrast.core.errors import CheckpointError, ConfigError
from pixelcontrast.core.files import atomic_path
from pixelcontrast.models.config import ModelConfig
from pixelcontrast.models.segmentor import Segmentor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

FORMAT = "pixelcontrast-1"
"""Value of the header's `format`; a change of layout changes the number."""

_TRAINING_HEADS = ("embedding_head.", "variance_head.", "auxiliary_head.")
_OWN_KEYS = ("format", "model", "num_classes", "mean", "std")
_CLASSIFIER = "classifier.1.weight"
_REMADE = "export the model again; the file is damaged or of another program"


def save_model(segmentor: Segmentor, path: Path, metadata: Mapping[str, Any]) -> None:
    """Writes weights and metadata; an existing file is replaced only by a complete new one.

    Args:
        segmentor: the network; its embedding and auxiliary heads are left out.
        path: the file, by custom `model.safetensors`.
        metadata: further JSON values for the header.

    Raises:
        PixelContrastError: a place that cannot be written or is full; the old file stays.
    """
    config = asdict(segmentor.config) | {"weights_file": None, "init": None, "pretrained": False}
    own = {
        "format": FORMAT,
        "model": config | {"auxiliary": False},
        "num_classes": segmentor.num_classes,
        "mean": segmentor.mean.flatten().tolist(),
        "std": segmentor.std.flatten().tolist(),
    }
    clash = sorted(own.keys() & metadata.keys())
    if clash:
        raise ValueError(f"metadata keys {clash} are written by save_model itself")
    header = {key: json.dumps(value) for key, value in {**metadata, **own}.items()}
    with atomic_path(path) as temporary:
        # Serialised in memory first: a full disk is then an ordinary OSError.
        temporary.write_bytes(save(inference_state(segmentor), header))


def load_model(path: Path) -> tuple[Segmentor, dict[str, Any]]:
    """The network of a model file, in evaluation mode on the CPU, and its metadata.

    Args:
        path: a file written by `save_model`.

    Raises:
        CheckpointError: a file that is missing, damaged, or not a model of this project.
    """
    state, metadata = read_model(path)
    known = {field.name for field in fields(ModelConfig)}
    try:
        config = ModelConfig(**{k: v for k, v in metadata["model"].items() if k in known})
        segmentor = Segmentor(config, metadata["num_classes"])
    except (ConfigError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the network of the model file cannot be built ({error})",
            where=path,
            fix="use the version of pixelcontrast and timm that wrote the file",
        ) from error
    load_state(segmentor, state, where=path)
    return segmentor.eval(), metadata


def load_weights(segmentor: Segmentor, path: Path) -> None:
    """Copies the weights of a model file into a network of the same shape.

    Embedding and auxiliary head, which model files do not hold, are left as they are.

    Args:
        segmentor: the network to fill.
        path: a file written by `save_model`.

    Raises:
        CheckpointError: a file that is missing, damaged, or of another network or class count.
    """
    load_state(segmentor, read_model(path)[0], where=path)


def load_state(segmentor: Segmentor, state: Mapping[str, Tensor], *, where: Path) -> None:
    """Copies a state dictionary into a network, or explains why it does not fit.

    Args:
        segmentor: the network to fill.
        state: its weights; those of the training heads may be missing.
        where: the file they came from, for the message.

    Raises:
        CheckpointError: another class count (both are named) or another architecture.
    """
    mine = segmentor.state_dict()
    if _CLASSIFIER in state and len(state[_CLASSIFIER]) != segmentor.num_classes:
        raise CheckpointError(
            f"the weights are for {len(state[_CLASSIFIER])} classes, "
            f"the network has {segmentor.num_classes}",
            where=where,
            fix="use the data set the weights were trained on, or train anew",
        )
    missing = [k for k in mine if k not in state and not k.startswith(_TRAINING_HEADS)]
    alien = [k for k in state if k not in mine and not k.startswith(_TRAINING_HEADS)]
    shapes = [k for k in mine if k in state and state[k].shape != mine[k].shape]
    if missing or alien or shapes:
        example = (missing + alien + shapes)[0]
        raise CheckpointError(
            "the weights belong to another network than "
            f"{segmentor.config.encoder} + {segmentor.config.decoder}: {len(missing)} missing, "
            f"{len(alien)} unknown, {len(shapes)} of another shape, for example {example!r}",
            where=where,
            fix="set model.encoder, model.decoder and model.decoder_channels to what was trained",
        )
    segmentor.load_state_dict({k: v for k, v in state.items() if k in mine}, strict=False)


def inference_state(segmentor: Segmentor) -> dict[str, Tensor]:
    """The weights inference needs, contiguous and on the CPU."""
    return {
        key: value.detach().cpu().contiguous()
        for key, value in segmentor.state_dict().items()
        if not key.startswith(_TRAINING_HEADS)
    }


def read_model(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and decoded header of a model file.

    Raises:
        CheckpointError: a file that is missing, damaged, or not a model of this project.
    """
    if not path.is_file():
        raise CheckpointError("the model file does not exist", where=path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the model file cannot be read ({error})", where=path, fix=_REMADE
        ) from error
    try:
        metadata = {key: json.loads(value) for key, value in header.items()}
    except json.JSONDecodeError:
        metadata = {}
    if metadata.get("format") != FORMAT or not metadata.keys() >= set(_OWN_KEYS):
        raise CheckpointError(
            f"the file is not a pixelcontrast model of format {FORMAT!r} "
            f"(found {metadata.get('format')!r})",
            where=path,
            fix="give the model.safetensors of a run, or upgrade pixelcontrast",
        )
    return state, metadata
