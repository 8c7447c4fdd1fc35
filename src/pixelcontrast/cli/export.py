"""`pixelcontrast export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pixelcontrast.core.errors import ConfigError, unknown_name
from pixelcontrast.engine.folder import FORMATS, model_file


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a model.safetensors.")],
    form: Annotated[
        str, typer.Option("--format", help="safetensors, pt2 or onnx.")
    ] = "safetensors",
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
    size: Annotated[str, typer.Option(help="Height x width a program is made for.")] = "512x512",
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Let the size vary.")] = False,
) -> None:
    """Write the best network as weights or as a program, and check what was written."""
    height, _, width = size.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ConfigError(f"cannot read --size {size!r}", fix="write 360x480")

    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    model_file(run)

    from pixelcontrast.engine.export import export as write

    written = write(run, form, out, size=(int(height), int(width)), dynamic=dynamic)
    checked = "" if form == "safetensors" else " (run again and compared with the network)"
    typer.echo(f"{written}{checked}")
