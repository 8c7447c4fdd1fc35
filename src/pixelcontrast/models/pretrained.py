"""Encoder weights from a file: read by timm, and proved to have arrived."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import timm
import torch

from pixelcontrast.core.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

_SEED = 0x5EEDF11E  # nobody's first choice: untrained weights of a common seed are no false alarm
_FIX = "give a .safetensors or .pth file of weights with timm's names for this very model"


@contextmanager
def leaving_the_classifier() -> Iterator[None]:
    """Silence timm about weights of the ImageNet classifier, which a feature extractor leaves."""

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Unexpected keys")

    logger = logging.getLogger("timm.models._builder")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


def build_with_file(name: str, options: dict[str, Any], path: Path) -> Any:
    """A timm feature extractor with the weights of `path`.

    timm loads feature extractors leniently: a file of another model would leave the random
    initialisation in place without a word. Hence the model is built twice from one seed; a weight
    matrix or kernel that equals its random twin was not in the file.

    Args:
        name: timm model name.
        options: options of the feature extractor.
        path: the file.

    Raises:
        CheckpointError: a file that is missing, unreadable, or of another model.
    """
    if not path.is_file():
        raise CheckpointError("the file of encoder weights does not exist", where=path)
    with torch.random.fork_rng(devices=[]):
        random = _seeded(name, options, pretrained=False)
        # Without `custom_load` timm takes a transformer's file for a NumPy archive.
        source = {"file": str(path), "url": "", "hf_hub_id": "", "custom_load": False}
        try:
            with leaving_the_classifier():
                model = _seeded(name, options, pretrained=True, pretrained_cfg_overlay=source)
        except Exception as error:  # zip, pickle, safetensors and shape errors have no common base
            raise CheckpointError(
                f"the file does not hold weights of encoder {name!r} "
                f"({type(error).__name__}: {_brief(error)})",
                where=path,
                fix=_FIX,
            ) from error
    untouched = [
        key
        for (key, value), twin in zip(model.named_parameters(), random.parameters(), strict=True)
        if value.ndim > 1 and value.any() and torch.equal(value, twin)
    ]
    if untouched:
        raise CheckpointError(
            f"the file lacks {len(untouched)} weights of encoder {name!r}, "
            f"for example {untouched[0]!r}",
            where=path,
            fix=_FIX,
        )
    return model


def _seeded(name: str, options: dict[str, Any], **kwargs: Any) -> Any:
    torch.manual_seed(_SEED)
    return timm.create_model(name, features_only=True, **options, **kwargs)


def _brief(error: Exception) -> str:
    """The part of a message a user can read: torch lists one mismatch a line after a heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] if lines else "no details"
