"""Label maps in MATLAB files, as SBD, PASCAL-Context and COCO-Stuff 10k distribute them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelcontrast.core.errors import DataError

_KEYS = ("LabelMap", "S", "GTcls")
"""Variable that holds the ids: PASCAL-Context, COCO-Stuff 10k, SBD (a struct)."""


def matlab_ids(data: bytes, path: str | Path) -> NDArray[np.integer]:
    """The (H, W) ids in a MATLAB file (version 5, which all three data sets use).

    Args:
        data: content of the file.
        path: the file, for messages.

    Raises:
        DataError: when the file is damaged or holds none of the known variables.
    """
    from scipy.io import loadmat  # slow to import, and most data sets need none of it

    try:
        # The stubs know paths alone; scipy reads any file object.
        file: Any = io.BytesIO(data)
        found = loadmat(file, variable_names=_KEYS)
    except Exception as reason:  # scipy raises many kinds on damaged files
        raise DataError(
            f"the MATLAB file cannot be read ({reason})", where=path, fix="restore the file"
        ) from reason
    key = next((key for key in _KEYS if key in found), None)
    ids = found.get(key or "")
    if key == "GTcls" and ids is not None:
        ids = ids["Segmentation"][0, 0]
    if ids is None or ids.ndim != 2 or ids.dtype.kind not in "ui":
        raise DataError(
            "the MATLAB file holds no label map",
            where=path,
            fix=f"expected one of the variables {', '.join(_KEYS)}",
        )
    return np.asarray(ids)
