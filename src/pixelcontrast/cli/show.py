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

    if not overrides:
        typer.echo(recipe_text(recipe), nl=False)
        return
    tree = override(load_recipe(recipe), overrides)

    from pixelcontrast.engine.prepare import refuse_unknown

    refuse_unknown(tree)
    typer.echo(dump(tree), nl=False)
