"""Stored mask values to class ids, with the label map of the data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelcontrast.core.errors import DataError
from pixelcontrast.data.dataset import Colour, DatasetInfo

_RANGE = 1 << 16
"""Stored integers are below this."""


@dataclass(frozen=True, slots=True)
class StoredMask:
    """The content of a mask file before the label map."""

    values: NDArray[np.integer]
    """(H, W) ids or palette indices, or (H, W, 3) uint8 colours."""
    palette: NDArray[np.uint8] | None = None
    """(256, 3) colours of the indices when the file has a palette."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.values.shape[:2]
        return height, width


def map_mask(stored: StoredMask, info: DatasetInfo, path: str | Path) -> NDArray[np.uint8]:
    """Class ids (H, W) uint8 of a stored mask.

    Integer keys of the label map apply to grey and palette files (to the palette's indices),
    colour keys to colour files. A map of colours alone also translates palette and grey files by
    their colours; a colour file whose channels are equal everywhere is grey.

    Raises:
        DataError: when a value or colour is not declared.
    """
    keyed = stored_keys(stored, info)
    if keyed.ndim == 3:
        mapped = _colour_table(_frozen(info))[pack_colours(keyed)]
    elif keyed.dtype == np.uint8:
        mapped = np.asarray(cv2.LUT(np.ascontiguousarray(keyed), value_table(info)))
    else:
        mapped = value_targets(keyed.astype(np.int64), info)
    unknown = mapped == undeclared_mark(info)
    if unknown.any():
        raise _undeclared(keyed[unknown], info, path)
    return mapped


def stored_keys(stored: StoredMask, info: DatasetInfo) -> NDArray[np.integer]:
    """The stored values in the form of the map's keys: (H, W) integers or (H, W, 3) colours."""
    values = stored.values
    keys = info.label_map or {}
    colours_only = bool(keys) and not any(isinstance(key, int) for key in keys)
    if values.ndim == 2 and colours_only:
        if stored.palette is not None:
            return np.take(stored.palette, values, axis=0)
        return np.repeat(np.clip(values, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    if values.ndim == 3 and not any(isinstance(key, tuple) for key in keys):
        red = values[:, :, 0]
        if (values == red[:, :, None]).all():
            return np.ascontiguousarray(red)
    return values


def undeclared_mark(info: DatasetInfo) -> int:
    """The id that stands for undeclared pixels in the tables: never a class, never ignored."""
    return 254 if info.ignore_index == 255 else 255


def value_table(info: DatasetInfo, size: int = 256) -> NDArray[np.uint8]:
    """(size,) table from stored integer to class id, `undeclared_mark` where none is declared."""
    table = np.full(size, undeclared_mark(info), np.uint8)
    table[info.ignore_index] = info.ignore_index
    if info.label_map is None:
        table[: info.num_classes] = np.arange(info.num_classes)
        return table
    for key, target in info.label_map.items():
        if isinstance(key, int) and 0 <= key < size:
            table[key] = target
    return table


def value_targets(values: NDArray[np.int64], info: DatasetInfo) -> NDArray[np.uint8]:
    """Class id of each stored integer, `undeclared_mark` where none is declared."""
    inside = (values >= 0) & (values < _RANGE)
    targets = value_table(info, _RANGE)[np.where(inside, values, 0)]
    targets[~inside] = undeclared_mark(info)
    return targets


def colour_targets(codes: NDArray[np.int64], info: DatasetInfo) -> NDArray[np.uint8]:
    """Class id of each colour 0xRRGGBB, `undeclared_mark` where none is declared."""
    mark, pairs = _frozen(info)
    known = dict(pairs)
    return np.array([known.get(code, mark) for code in codes.tolist()], np.uint8)


def pack_colours(colours: NDArray[np.integer]) -> NDArray[np.int32]:
    """Colours (..., 3) as integers 0xRRGGBB."""
    wide = colours.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def unpack_colour(code: int) -> Colour:
    """The colour of an integer 0xRRGGBB."""
    return code >> 16, code >> 8 & 255, code & 255


def colour_name(colour: Colour) -> str:
    """The colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


_Frozen = tuple[int, tuple[tuple[int, int], ...]]


def _frozen(info: DatasetInfo) -> _Frozen:
    pairs: Mapping[int | Colour, int] = info.label_map or {}
    coded = (
        (pack_colours(np.array(k)).item(), v) for k, v in pairs.items() if not isinstance(k, int)
    )
    return undeclared_mark(info), tuple(sorted(coded))


@lru_cache(maxsize=2)
def _colour_table(frozen: _Frozen) -> NDArray[np.uint8]:
    # 16 MiB, but one gather a pixel: about ten times faster than a search in the sorted colours.
    mark, pairs = frozen
    table = np.full(1 << 24, mark, np.uint8)
    for code, target in pairs:
        table[code] = target
    return table


def _undeclared(found: NDArray[np.integer], info: DatasetInfo, path: str | Path) -> DataError:
    if found.ndim == 2:
        codes, counts = np.unique(pack_colours(found), return_counts=True)
        names = [colour_name(unpack_colour(int(code))) for code in codes]
    else:
        codes, counts = np.unique(found, return_counts=True)
        names = [str(code) for code in codes]
    order = np.argsort(-counts)[:8]
    shown = ", ".join(f"{names[i]} ({counts[i]} px)" for i in order)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    kind = "colours" if found.ndim == 2 else "label values"
    if found.ndim == 2 and not any(isinstance(key, tuple) for key in info.label_map or {}):
        return DataError(
            f"the mask holds colours, and no label map says what they mean: {shown}{more}",
            where=path,
            fix="add label_map to dataset.yaml; `pixelcontrast data check` proposes one",
        )
    return DataError(
        f"undeclared {kind} in the mask: {shown}{more}",
        where=path,
        fix="declare them in label_map of dataset.yaml, as a class or as 'ignore'",
    )
