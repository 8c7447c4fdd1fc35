"""The file `dataset.yaml`: class names, colours, ignore index and label map of a data folder."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pixelcontrast.core.errors import DataError, did_you_mean
from pixelcontrast.core.files import write_text
from pixelcontrast.data.dataset import Colour, DatasetInfo
from pixelcontrast.data.labels import colour_name

KEYS = ("name", "classes", "palette", "ignore_index", "label_map")
"""What `dataset.yaml` may hold; all of it is optional."""

IGNORE = "ignore"
"""The word that stands for the ignore index in a label map."""


def read_description(path: Path) -> dict[str, Any]:
    """The checked content of a `dataset.yaml`: only known keys, colours as tuples.

    `label_map` keys may be integers, `"#rrggbb"`, `"r, g, b"` or `[r, g, b]`; its values class
    names, class ids or `ignore`.

    Raises:
        DataError: when the file is no mapping, or a key or value has the wrong form.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as reason:
        raise DataError(f"not valid YAML: {reason}", where=path) from reason
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise DataError("a mapping of keys is expected", where=path, fix=f"keys: {', '.join(KEYS)}")
    for key in content:
        if key not in KEYS:
            raise DataError(f"unknown key {key!r}", where=path, fix=did_you_mean(str(key), KEYS))
    found: dict[str, Any] = {k: v for k, v in content.items() if v is not None}
    if "classes" in found:
        found["classes"] = _classes(found["classes"], path)
    if "palette" in found:
        if not isinstance(found["palette"], list):
            raise DataError("palette must be a list of colours", where=path)
        found["palette"] = tuple(_colour(colour, path) for colour in found["palette"])
    if "ignore_index" in found and type(found["ignore_index"]) is not int:
        raise DataError("ignore_index must be an integer", where=path)
    if "label_map" in found:
        found["label_map"] = _label_map(found, path)
    return found


def info_from_description(found: Mapping[str, Any], name: str, path: Path) -> DatasetInfo:
    """The `DatasetInfo` of a checked description that names its classes.

    Args:
        found: what `read_description` returned, with `classes` filled in.
        name: used when the description has no name.
        path: the file, for messages.
    """
    try:
        return DatasetInfo(**{"name": name, **found})
    except DataError as reason:
        raise DataError(reason.what, where=path, fix=reason.fix) from None


def write_description(path: Path, info: DatasetInfo) -> None:
    """Write `info` as a `dataset.yaml` that `read_description` reads back to the same values."""
    content: dict[str, Any] = {
        "name": info.name,
        "classes": list(info.classes),
        "palette": [colour_name(colour) for colour in info.palette],
        "ignore_index": info.ignore_index,
    }
    if info.label_map is not None:
        content["label_map"] = {
            key if isinstance(key, int) else colour_name(key): (
                IGNORE if target == info.ignore_index else info.classes[target]
            )
            for key, target in info.label_map.items()
        }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
    write_text(path, text)


class _Loader(yaml.SafeLoader):
    """Reads lists as keys (colours) and refuses keys that occur twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            key = tuple(key) if isinstance(key, list) else key
            if not isinstance(key, Hashable) or key in mapping:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} occurs twice or is no key", key_node.start_mark
                )
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


def _classes(value: Any, path: Path) -> tuple[str, ...]:
    if isinstance(value, dict):
        if sorted(value, key=str) != sorted(range(len(value)), key=str):
            raise DataError(
                "classes given by id must be numbered 0, 1, ... without gaps",
                where=path,
                fix="list the names in order and use label_map for other stored values",
            )
        value = [value[i] for i in range(len(value))]
    if not isinstance(value, list) or not value:
        raise DataError("classes must be a list of names", where=path, fix="classes: [sky, road]")
    bad = [name for name in value if not isinstance(name, str) or not name or name == IGNORE]
    if bad:
        raise DataError(
            f"{bad[0]!r} is no class name", where=path, fix="put names in quotes; 'ignore' is taken"
        )
    return tuple(value)


def _colour(value: Any, path: Path) -> Colour:
    if isinstance(value, str):
        if re.fullmatch(r"#[0-9a-fA-F]{6}", value):
            return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
        parts: list[Any] = [int(p) for p in re.findall(r"\d+", value)]
    else:
        parts = list(value) if isinstance(value, (list, tuple)) else []
    if len(parts) != 3 or not all(type(p) is int and 0 <= p <= 255 for p in parts):
        raise DataError(
            f"{value!r} is no colour", where=path, fix="write [r, g, b] of 0..255 or '#rrggbb'"
        )
    return parts[0], parts[1], parts[2]


def _label_map(found: Mapping[str, Any], path: Path) -> dict[int | Colour, int]:
    stored = found["label_map"]
    classes: tuple[str, ...] = found.get("classes", ())
    if not isinstance(stored, dict) or not stored:
        raise DataError(
            "label_map must map stored values to classes",
            where=path,
            fix='label_map: {0: road, 255: ignore} or {"#804080": road}',
        )
    if not classes:
        raise DataError("label_map needs classes", where=path, fix="add classes: [...]")
    result: dict[int | Colour, int] = {}
    for key, target in stored.items():
        place: int | Colour = key if type(key) is int else _colour(key, path)
        if isinstance(place, int) and not 0 <= place <= 65535:
            raise DataError(f"{place} cannot be a stored value", where=path, fix="use 0..65535")
        if place in result:
            raise DataError(f"label_map names {key!r} twice", where=path)
        if target in (None, IGNORE):
            result[place] = found.get("ignore_index", 255)
        elif isinstance(target, str):
            if target not in classes:
                raise DataError(
                    f"label_map names the unknown class {target!r}",
                    where=path,
                    fix=did_you_mean(target, classes),
                )
            result[place] = classes.index(target)
        elif type(target) is int:
            result[place] = target
        else:
            raise DataError(f"label_map cannot send {key!r} to {target!r}", where=path)
    return result
