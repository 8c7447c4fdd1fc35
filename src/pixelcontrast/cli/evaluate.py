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
    boundary: Annotated[
        float, typer.Option(help="Also score pixels within this distance of a boundary; 0: not.")
    ] = 3.0,
    features: Annotated[
        bool, typer.Option(help="Measure and draw how features separate the classes.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Score the best network of a run on a split."""
    try:
        factors = tuple(float(part) for part in scales.split(",")) if scales else None
    except ValueError as error:
        raise ConfigError(f"cannot read --scales {scales!r}", fix="write 0.5,1,1.5") from error

    if boundary and not boundary >= 1:
        raise ConfigError(
            f"no pixel lies within {boundary} pixels of another one",
            where="--boundary",
            fix="give 1 or more, or 0 for none",
        )
    folder = RunFolder(run)
    crop = folder.read_config()["view"]["crop"] if slide else None
    model_file(run)

    import json

    from pixelcontrast.engine.config import parse_config
    from pixelcontrast.engine.scoring import FEATURES, score_run

    protocol = parse_config(folder.read_config()).eval.inference
    if factors:
        protocol = replace(protocol, scales=factors)
    if flip:
        protocol = replace(protocol, flip=True)
    if crop:
        protocol = replace(protocol, mode="slide", crop=tuple(crop))
    outcome = score_run(
        folder,
        split=split,
        data=data,
        inference=protocol,
        device=device,
        boundary=boundary or None,
        features=FEATURES if features else None,
    )
    names = folder.read_record()["dataset"]["classes"]
    if as_json:
        values = outcome.to_dict(names)
        typer.echo(json.dumps({**values.pop("scores"), **values}, indent=2))
    else:
        typer.echo(outcome.table(names))
