"""One self-contained HTML page about one or several runs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from pixelcontrast.core.errors import DataError
from pixelcontrast.core.files import write_text
from pixelcontrast.report.classes import (
    class_rows,
    confusion_of,
    instance_rows,
    occurrences,
    palette_of,
)
from pixelcontrast.report.clusters import cluster_sheets
from pixelcontrast.report.curves import class_curves, diagnostic_curves, learning_curves
from pixelcontrast.report.features import feature_table, similarities
from pixelcontrast.report.groups import Group, grouped, reference_of
from pixelcontrast.report.pictures import IGNORED, WRONG, colour_css, gallery
from pixelcontrast.report.run import Run, SplitResult, read_run
from pixelcontrast.report.scatter import scatters, shown_classes
from pixelcontrast.report.summary import (
    boundary_of,
    comparisons,
    facts_of,
    lead_of,
    notes_of,
    reproduction_of,
    spread_text,
    title_of,
    warnings_of,
)
from pixelcontrast.report.text import duration, percent, points
from pixelcontrast.report.words import method_options, settings


@dataclass(frozen=True, slots=True)
class Entry:
    """One run in the sections on settings and reproduction."""

    label: str
    colour: str
    settings: list[tuple[str, str]]
    options: list[tuple[str, str]]
    notes: list[str]
    config: str
    command: str
    reproduction: list[tuple[str, str]]
    splits: tuple[SplitResult, ...]


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Writes the report of `runs` to the file `out`.

    The page holds everything it shows: no network, fonts or scripts from elsewhere. Runs that
    differ only in the seed are pooled; others are compared with the first supervised one.

    Args:
        runs: run folders, finished or not.
        out: the HTML file; a file of that name is replaced.

    Returns:
        `out`.

    Raises:
        DataError: no folder was given, or one of them holds no run.
    """
    if not runs:
        raise DataError("no run was given", fix="name one or more run folders")
    page = render([read_run(Path(folder)) for folder in runs])
    write_text(out, page)
    return Path(out)


def render(runs: Sequence[Run]) -> str:
    """The page as text."""
    return _template().render(_page(runs))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("pixelcontrast.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.globals |= {
        "percent": percent,
        "points": points,
        "duration": duration,
        "spread": spread_text,
    }
    return environment.get_template("report.html.j2")


def _page(runs: Sequence[Run]) -> dict[str, Any]:
    groups = grouped(runs)
    reference = reference_of(groups)
    first = runs[0]
    palette = palette_of(first)
    shown = max(groups, key=_best_miou)
    result = shown.representative.result
    pictures = gallery(groups, palette)
    rows = class_rows(groups, reference, palette)
    legend = _legend(first, palette)
    script = _asset("report.js")
    page: dict[str, Any] = {
        "title": title_of(groups),
        "lead": lead_of(groups, reference),
        "warnings": [*warnings_of(groups), *pictures.problems],
        "single": len(runs) == 1,
        "facts": facts_of(first),
        "groups": groups,
        "reference": reference,
        "repeated": any(len(group.runs) > 1 for group in groups),
        "compared": comparisons(groups, reference) if len(runs) > 1 else [],
        "panel": pictures.panel,
        "worst": pictures.worst,
        "worst_of": shown.label if len(groups) > 1 else "",
        "columns": pictures.columns,
        "legend": legend,
        "class_rows": rows,
        "boundary": boundary_of(groups),
        "boundary_mean": percent(result.boundary.scores.miou)
        if len(groups) == 1 and result and result.boundary
        else "",
        "instances": instance_rows(groups),
        "features": feature_table(groups, reference),
        "scatters": scatters(groups),
        "scatter_legend": [legend[c] for c in shown_classes(groups) if c < len(legend)],
        "similarities": similarities(groups),
        "confusion": confusion_of(result.scores, result.names) if result else None,
        "confusion_of": f"Of {shown.label}. " if len(groups) > 1 else "",
        "clusters": cluster_sheets(shown.representative),
        "curves": learning_curves(groups),
        "diagnostics": diagnostic_curves(groups),
        "class_diagnostics": class_curves(groups),
        "occurrences": occurrences(first, palette),
        "runs": [_entry(group, run) for group in groups for run in group.runs],
        "ignored_colour": colour_css(IGNORED),
        "wrong_colour": colour_css(WRONG),
        "version": _version(),
        "today": datetime.now(UTC).strftime("%d %B %Y"),
        "style": Markup(_asset("report.css")),
        "script": Markup(script),
        "script_hash": _script_hash(script),
    }
    page["sections"] = _sections(page)
    return page


def _sections(page: dict[str, Any]) -> list[tuple[str, str]]:
    """Anchors and names of the sections that have something to show."""
    every = [
        ("images", "Images", page["panel"]),
        ("classes", "Class by class", page["class_rows"]),
        ("confusion", "Confusion", page["confusion"]),
        ("features", "Features", page["features"]),
        ("worst", "Worst images", page["worst"]),
        ("clusters", "Clusters", page["clusters"]),
        ("curves", "Learning curves", page["curves"]),
        ("diagnostics", "Diagnostics", page["diagnostics"] or page["class_diagnostics"]),
        ("data", "Training labels", page["occurrences"]),
        ("settings", "Settings", True),
        ("reproduce", "Run it again", True),
    ]
    return [(key, heading) for key, heading, content in every if content]


def _entry(group: Group, run: Run) -> Entry:
    config = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
    return Entry(
        label=group.run_label(run),
        colour=group.colour,
        settings=settings(run),
        options=method_options(run),
        notes=notes_of(run),
        config=config if run.config else "",
        command=str(run.record.get("command") or ""),
        reproduction=reproduction_of(run),
        splits=run.results,
    )


def _legend(run: Run, palette: Sequence[tuple[int, int, int]]) -> list[dict[str, str]]:
    pairs = zip(run.classes, palette, strict=False)
    return [{"name": name, "colour": colour_css(colour)} for name, colour in pairs]


def _best_miou(group: Group) -> float:
    value = group.representative.miou
    return -1.0 if value is None else value


def _asset(name: str) -> str:
    text = files("pixelcontrast.report").joinpath("templates", name).read_text(encoding="utf-8")
    return text.strip()


def _script_hash(script: str) -> str:
    """What the page's security policy allows to run: this script and nothing else."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def _version() -> str:
    try:
        return version("pixelcontrast")
    except PackageNotFoundError:
        return "from source"
