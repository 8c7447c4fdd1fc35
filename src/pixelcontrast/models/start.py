"""Beginning a network with the weights of another: what fits, what is left out, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixelcontrast.core.errors import CheckpointError
from pixelcontrast.models.weights import read_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from pixelcontrast.models.segmentor import Segmentor

_NORMALISATION = ("mean", "std")


def start_from(segmentor: Segmentor, path: Path, classes: Sequence[str]) -> str:
    """Copies encoder, decoder and classifier of a model file into a network, as far as they fit.

    The encoder must fit, since without it nothing would be left. Another kind of decoder stays as
    it is. The classifier is taken where it was trained for the same classes; heads of training
    are never in a model file.

    Args:
        segmentor: the network to fill.
        path: a file written by `save_model`.
        classes: names of the classes the network will tell apart.

    Returns:
        One sentence on what was loaded and what was not.

    Raises:
        CheckpointError: a file that is missing or damaged, or parts of another shape.
    """
    state, metadata = read_model(path)
    there, here = metadata["model"], segmentor.config
    taken, left = ["encoder"], []
    _require_fit(segmentor, state, "encoder", there, path)
    if there.get("decoder") == here.decoder:
        _require_fit(segmentor, state, "decoder", there, path)
        taken.append("decoder")
    else:
        left.append(f"the decoder (there {there.get('decoder')}, here {here.decoder})")
    if reason := _classifier_reason(segmentor, state, metadata, classes, taken):
        left.append(f"the classifier ({reason})")
    else:
        taken.append("classifier")
    parts = tuple(f"{part}." for part in taken)
    segmentor.load_state_dict(
        {k: v for k, v in state.items() if k.startswith(parts) or k in _NORMALISATION},
        strict=False,
    )
    new = f"; not loaded: {' and '.join(left)}" if left else ""
    return f"the network begins with {', '.join(taken)} of {path}{new}"


def _classifier_reason(
    segmentor: Segmentor,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    classes: Sequence[str],
    taken: Sequence[str],
) -> str:
    """Why the classifier of the file is of no use here; empty if it is."""
    if not metadata.get("classifies", True):
        return "it was not trained"
    if "decoder" not in taken:
        return "it belongs to that decoder"
    known = metadata.get("classes", classes)
    if len(known) != len(classes):
        return f"there {len(known)} classes, here {len(classes)}"
    if list(known) != list(classes):
        return "the classes have other names"
    mine = {k: v for k, v in segmentor.state_dict().items() if k.startswith("classifier.")}
    fits = all(k in state and state[k].shape == v.shape for k, v in mine.items())
    return "" if fits else "its shape is another"


def _require_fit(
    segmentor: Segmentor, state: Mapping[str, Tensor], part: str, there: Any, path: Path
) -> None:
    """Refuse a file whose `part` is not that of the network."""
    mine = {k: v for k, v in segmentor.state_dict().items() if k.startswith(f"{part}.")}
    file = {k for k in state if k.startswith(f"{part}.")}
    missing = [k for k in mine if k not in state]
    alien = sorted(file - mine.keys())
    shapes = [k for k, v in mine.items() if k in state and state[k].shape != v.shape]
    if not (missing or alien or shapes):
        return
    listed = [
        f"{len(keys)} {word} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for keys, word in ((missing, "missing"), (alien, "unknown"), (shapes, "of another shape"))
        if keys
    ]
    names = (part, "decoder_channels") if part == "decoder" else (part,)
    wanted = ", ".join(f"model.{name}={there.get(name)}" for name in names)
    raise CheckpointError(
        f"the {part} of this model does not fit the network: {'; '.join(listed)}",
        where=path,
        fix=f"nothing was loaded; set {wanted} as in the file",
    )
