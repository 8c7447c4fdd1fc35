"""The clusters of a run without labels, by the sheets and numbers in its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pixelcontrast.report.pictures import jpeg
from pixelcontrast.report.run import Run, mapping, number
from pixelcontrast.report.text import percent

MOST = 40
"""Sheets on a page, of the largest clusters."""


@dataclass(frozen=True, slots=True)
class ClusterSheet:
    """One cluster."""

    name: str
    text: str
    """Its size in words."""
    data: str
    """A data URI."""


def cluster_sheets(run: Run) -> list[ClusterSheet]:
    """The sheets of a run, largest cluster first; none where a run has no clusters."""
    folder = run.folder / "clusters"
    try:
        stored = json.loads((folder / "clusters.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    rows: Any = mapping(stored).get("clusters")
    known = [mapping(row) for row in rows] if isinstance(rows, list) else []
    found: list[ClusterSheet] = []
    for row in sorted(known, key=lambda row: -(number(row.get("share")) or 0.0)):
        share, images, file = number(row.get("share")), number(row.get("images")), row.get("sheet")
        path = (folder / str(file)).resolve()
        if share is None or images is None or not path.is_relative_to(folder.resolve()):
            continue
        try:
            with Image.open(path) as sheet:
                picture = jpeg(np.asarray(sheet.convert("RGB")))
        except OSError:  # missing, or no picture
            continue
        text = f"{percent(share)} % of the pixels, in {images:.0f} images"
        found.append(ClusterSheet(str(row.get("name", "?")), text, picture))
        if len(found) == MOST:
            break
    return found
