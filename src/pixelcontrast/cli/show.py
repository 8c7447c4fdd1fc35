"""`pixelcontrast show`."""

from __future__ import annotations

from typing import Annotated

import typer


def show(
    recipe: Annotated[str, typer.Argument(help="A recipe by name, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to apply.")
    ] = None,
) -> None:
    """Print a recipe, with its comments or with settings applied."""
    from pixelcontrast.recipes import dump, load_recipe, override, recipe_text

    text = recipe_text(recipe)
    typer.echo(dump(override(load_recipe(recipe), overrides)) if overrides else text, nl=False)
