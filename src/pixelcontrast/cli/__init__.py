"""The command line: one file a verb. torch and Lightning are imported inside the verbs only."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from pixelcontrast import __version__
from pixelcontrast.cli import (
    data,
    doctor,
    evaluate,
    export,
    listing,
    predict,
    report,
    show,
    similar,
    train,
)
from pixelcontrast.core.errors import PixelContrastError

app = typer.Typer(
    name="pixelcontrast",
    help="Train semantic segmentation networks by pixel contrast when labels are few.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pixelcontrast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train semantic segmentation networks by pixel contrast when labels are few."""


app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("similar")(similar.similar)
app.command("report")(report.report)
app.command("export")(export.export)
app.add_typer(data.app, name="data")
app.command("list")(listing.list_names)
app.command("show")(show.show)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line; user errors are printed plainly and give a non-zero exit status."""
    try:
        app()
    except PixelContrastError as error:
        Console(stderr=True, soft_wrap=True).print(
            f"error: {error}", style="red", highlight=False, markup=False
        )
        sys.exit(error.exit_code)
    except OSError as error:
        Console(stderr=True, soft_wrap=True).print(
            f"error: {error.strerror or error}\n  where: {error.filename or 'unknown'}",
            style="red",
            highlight=False,
            markup=False,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
