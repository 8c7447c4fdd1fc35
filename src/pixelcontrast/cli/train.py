"""`pixelcontrast train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.engine.folder import RunFolder, first_process
from pixelcontrast.methods import method_entry
from pixelcontrast.recipes import load_recipe, override, run_name


def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help="A recipe by name or a YAML file, then settings such as optim.lr=0.02.",
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Train by the general recipe of this method.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    classes: Annotated[
        int | None, typer.Option(help="How many clusters to find, where there are no masks.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run [runs/NAME].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run in --out.")] = False,
) -> None:
    """Train a network and write checkpoints, scores and a report."""
    words = words or []
    names = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    if method is not None:
        method_entry(method)  # a misspelt name is no misspelt recipe
        names.append(method)
    if len(names) != 1:
        raise ConfigError(
            "give one recipe" + (f", not {', '.join(names)}" if names else ""),
            fix="pixelcontrast train RECIPE, or --method METHOD --data FOLDER; "
            "'pixelcontrast list recipes' shows all",
        )
    if data is not None:
        overrides.append(f"data.root={data}")
        if not any(item.startswith("data.name=") for item in overrides):
            overrides.append("data.name=auto")
    if classes is not None:
        overrides.append(f"method.clusters={classes}")
    if seed is not None:
        overrides.append(f"seed={seed}")

    # What can be refused without torch is refused at once.
    tree = override(load_recipe(names[0]), overrides)
    folder = RunFolder(out or Path("runs") / run_name(tree))
    settings = tree.get("data")
    if isinstance(settings, dict) and settings.get("root") and settings.get("name") != "scenes":
        # Generated scenes are made there on first use.
        from pixelcontrast.data.catalog import refuse_unreadable

        refuse_unreadable(settings["root"], settings.get("name") or "auto")
    if resume and first_process():
        folder.require_checkpoint()

    from pixelcontrast.engine.train import train as run

    run(names[0], overrides, out=folder.root, resume=resume, force=force)
