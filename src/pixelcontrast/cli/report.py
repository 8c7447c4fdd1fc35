"""`pixelcontrast report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; several are compared.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file.")] = None,
) -> None:
    """Write one self-contained HTML page about one run or several."""
    from pixelcontrast.report import write_report

    default = runs[0] / "report.html" if len(runs) == 1 else Path("comparison.html")
    typer.echo(str(write_report(runs, out or default)))
