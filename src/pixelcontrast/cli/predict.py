"""`pixelcontrast predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pixelcontrast.core.errors import DataError, unknown_name
from pixelcontrast.engine.folder import model_file


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a model.safetensors.")],
    images: Annotated[list[Path], typer.Argument(help="Images or folders, of any sizes.")],
    out: Annotated[Path, typer.Option(help="Where the masks go.")] = Path("predictions"),
    kinds: Annotated[
        str, typer.Option(help="Which pictures to write.")
    ] = "ids,colour,overlay,confidence",
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
) -> None:
    """Segment images: class ids, colours, overlays and confidence as PNG files."""
    model_file(run)

    from typing import get_args

    from pixelcontrast.engine.predict import Kind, load, predict_files

    wanted = kinds.split(",")
    for kind in wanted:
        if kind not in get_args(Kind):
            raise unknown_name("picture", kind, get_args(Kind))
    done: list[Path] = []
    errors = predict_files(
        load(run, device=device),
        images,
        out,
        kinds=wanted,  # type: ignore[arg-type]
        on_done=lambda path, _: done.append(path),
    )
    typer.echo(f"{len(done)} images segmented into {out}/{{{','.join(wanted)}}}")
    for error in errors:
        typer.echo(f"error: {error}", err=True)
    if errors:
        raise DataError(f"{len(errors)} of {len(done) + len(errors)} images could not be read")
