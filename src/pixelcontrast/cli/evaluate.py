"""`pixelcontrast eval`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.engine.folder import RunFolder, model_file


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    split: Annotated[
        str | None, typer.Option(help="Split to score [the validation split].")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Another data set folder.")] = None,
    scales: Annotated[
        str | None, typer.Option(help="Image sizes, as factors: 0.5,1,1.5 [as in training].")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirrored image.")] = False,
    slide: Annotated[bool, typer.Option("--slide", help="Slide the training crop.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Score the best network of a run on a split."""
    try:
        factors = tuple(float(part) for part in scales.split(",")) if scales else None
    except ValueError as error:
        raise ConfigError(f"cannot read --scales {scales!r}", fix="write 0.5,1,1.5") from error

    folder = RunFolder(run)
    crop = folder.read_config()["view"]["crop"] if slide else None
    model_file(run)

    import json

    from pixelcontrast.engine.config import parse_config
    from pixelcontrast.engine.scoring import score_run

    protocol = parse_config(folder.read_config()).eval.inference
    if factors:
        protocol = replace(protocol, scales=factors)
    if flip:
        protocol = replace(protocol, flip=True)
    if crop:
        protocol = replace(protocol, mode="slide", crop=tuple(crop))
    outcome = score_run(folder, split=split, data=data, inference=protocol, device=device)
    names = folder.read_record()["dataset"]["classes"]
    if as_json:
        typer.echo(json.dumps(outcome.scores.to_dict(names), indent=2))
    else:
        typer.echo(outcome.scores.table(names))
