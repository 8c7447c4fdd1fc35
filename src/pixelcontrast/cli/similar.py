"""`pixelcontrast similar`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.engine.folder import model_file


def similar(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a model.safetensors.")],
    image: Annotated[Path, typer.Argument(help="The image that is pointed at.")],
    among: Annotated[list[Path], typer.Argument(help="Images or folders to look into.")],
    at: Annotated[str, typer.Option(help="The pixel: ROW,COLUMN.")],
    count: Annotated[int, typer.Option(help="How many images to find.")] = 8,
    out: Annotated[Path, typer.Option(help="A picture of what was found.")] = Path("similar.png"),
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Find the images with the pixels most like one that is pointed at."""
    try:
        row, column = (int(part) for part in at.split(","))
    except ValueError as error:
        raise ConfigError(
            f"cannot read --at {at!r}", fix="write ROW,COLUMN as in 40,120"
        ) from error
    model_file(run)

    import json

    from pixelcontrast.engine.predict import load
    from pixelcontrast.engine.similar import find_similar, write_similar

    place = (row, column)
    found = find_similar(load(run, device=device), image, place, among, count=count)
    write_similar(out, image, place, found)
    if as_json:
        rows = [
            {
                "image": str(one.image),
                "row": one.row,
                "column": one.column,
                "similarity": one.similarity,
            }
            for one in found
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo("similarity   row  column  image")
    for one in found:
        typer.echo(f"{one.similarity:10.3f}{one.row:6}{one.column:8}  {one.image}")
    typer.echo(f"picture: {out}")
