"""`pixelcontrast list`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pixelcontrast.core.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOPICS = ("methods", "models", "recipes", "datasets")


def list_names(
    topic: Annotated[
        str | None, typer.Argument(help="methods, models, recipes or datasets; all if left out.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Only recipes of this method.")] = None,
    data: Annotated[str | None, typer.Option(help="Only recipes on this data set.")] = None,
    network: Annotated[
        str | None, typer.Option(help="Only recipes whose encoder or decoder contains this.")
    ] = None,
) -> None:
    """List what can be named in a recipe."""
    if (method or data or network) and topic not in (None, "recipes"):
        raise ConfigError(
            "--method, --data and --network choose among recipes", fix="pixelcontrast list recipes"
        )
    if method or data or network:
        topic = "recipes"
    if topic is not None and topic not in _TOPICS:
        raise unknown_name("list", topic, _TOPICS)
    rows = {
        "methods": _methods,
        "models": _models,
        "recipes": lambda: _recipes(method, data, network),
        "datasets": _datasets,
    }
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


def _recipes(method: str | None, data: str | None, network: str | None) -> list[tuple[str, str]]:
    from pixelcontrast.recipes import recipe_names, summary, traits

    kept = []
    for name in recipe_names():
        recipe = traits(name)
        if (
            method in (None, recipe.method)
            and data in (None, recipe.data)
            and (network is None or network in recipe.encoder or network == recipe.decoder)
        ):
            kept.append((name, summary(name)))
    if not kept:
        known = [traits(name) for name in recipe_names()]
        raise ConfigError(
            "no recipe is of this kind",
            where=f"method {method or 'any'}, data {data or 'any'}, network {network or 'any'}",
            fix=f"methods: {_words(k.method for k in known)}; "
            f"data: {_words(k.data for k in known)}",
        )
    return kept


def _words(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))


def _models() -> list[tuple[str, str]]:
    from pixelcontrast.models.backbones import BACKBONES
    from pixelcontrast.models.table import DECODER_SUMMARIES

    return [
        ("decoders:", ""),
        *DECODER_SUMMARIES.items(),
        (
            "encoders:",
            "millions of parameters; output strides; width of the deepest stage; licence",
        ),
        *((name, entry.summary) for name, entry in BACKBONES.items()),
        ("(others)", "any timm backbone with feature maps that takes more than one image size"),
    ]


def _datasets() -> list[tuple[str, str]]:
    from pixelcontrast.data.table import DATASET_SUMMARIES

    return list(DATASET_SUMMARIES.items())
