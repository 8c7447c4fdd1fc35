"""`pixelcontrast list`."""

from __future__ import annotations

from typing import Annotated

import typer

from pixelcontrast.core.errors import unknown_name

_TOPICS = ("methods", "models", "recipes", "datasets")


def list_names(
    topic: Annotated[
        str | None, typer.Argument(help="methods, models, recipes or datasets; all if left out.")
    ] = None,
) -> None:
    """List what can be named in a recipe."""
    if topic is not None and topic not in _TOPICS:
        raise unknown_name("list", topic, _TOPICS)
    rows = {"methods": _methods, "models": _models, "recipes": _recipes, "datasets": _datasets}
    for heading in _TOPICS if topic is None else (topic,):
        if topic is None:
            typer.echo(f"{heading}:")
        lines = rows[heading]()
        width = max(len(name) for name, _ in lines)
        for name, text in lines:
            typer.echo(f"{name:<{width}}  {text}")


def _methods() -> list[tuple[str, str]]:
    from pixelcontrast.methods import list_methods

    return [
        (name, f"labels: {entry.labels:<5} {entry.summary}")
        for name, entry in sorted(list_methods().items())
    ]


def _recipes() -> list[tuple[str, str]]:
    from pixelcontrast.recipes import recipe_names, summary

    return [(name, summary(name)) for name in recipe_names()]


def _models() -> list[tuple[str, str]]:
    from pixelcontrast.models.table import DECODER_SUMMARIES, ENCODER_FAMILIES

    return [
        ("decoders:", ""),
        *DECODER_SUMMARIES.items(),
        ("encoders:", ""),
        *ENCODER_FAMILIES.items(),
    ]


def _datasets() -> list[tuple[str, str]]:
    from pixelcontrast.data.table import DATASET_SUMMARIES

    return list(DATASET_SUMMARIES.items())
