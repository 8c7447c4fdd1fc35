"""Masks with values nobody declared: what is wrong, and the label map that would mend it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from pixelcontrast.data.dataset import MAX_CLASSES, DatasetInfo
from pixelcontrast.data.description import IGNORE
from pixelcontrast.data.inspection import Inspected
from pixelcontrast.data.labels import (
    colour_name,
    colour_targets,
    pack_colours,
    undeclared_mark,
    unpack_colour,
    value_targets,
)
from pixelcontrast.data.problems import Problem, error

_SHOWN = 12
_NO_LABELS = (
    "so many {} are no labels: export the masks as PNG with one value a class, without smoothing "
    "or lossy compression"
)


def undeclared_problems(
    found: Sequence[Inspected], info: DatasetInfo, *, named: bool = True
) -> list[Problem]:
    """One error for every mask with undeclared values or colours, or with a binary 0/255 coding.

    Each carries the label map that would fit all masks together.

    Args:
        found: what the masks hold.
        info: the description that they may not fit.
        named: `dataset.yaml` names the classes; otherwise they were only inferred from the masks,
            and a proposal has to name them.
    """
    values = _total((item.values, item) for item in found)
    colours = _total((item.colours, item) for item in found)
    binary = set(values) == {0, 255} and not colours
    if binary and info.label_map is None and info.num_classes <= 2:
        # Under the identity map 255 is ignored, so such masks would teach nothing but class 0.
        return _binary_problems(found, info, named)
    has_map = any(isinstance(key, tuple) for key in info.label_map or {})
    problems = []
    for item in found:
        unknown = _undeclared(item, info)
        if unknown and item.values is not None:
            code, what = "undeclared-values", f"undeclared label values {_counted(unknown)}"
            fix = propose_values(values, info, named=named)
        elif unknown:
            pixels = {colour_name(unpack_colour(code)): n for code, n in unknown.items()}
            code, what = "undeclared-colours", f"undeclared colours {_counted(pixels)}"
            if not has_map:
                code, what = (
                    "colour-mask",
                    f"colours, and no label map for them: {_counted(pixels)}",
                )
            fix = propose_colours(colours, info, beside=values, named=named)
        else:
            continue
        problems.append(error(code, what, file=item.sample.mask, fix=fix))
    return problems


def propose_values(total: Mapping[int, int], info: DatasetInfo, *, named: bool = True) -> str:
    """A label map, as text for `dataset.yaml`, for all stored integers of a data set.

    Args:
        total: stored value -> pixels.
        info: the description the values do not fit.
        named: whether `dataset.yaml` names the classes already.
    """
    values = sorted(value for value in total if value != info.ignore_index)
    count = info.num_classes
    if len(values) > MAX_CLASSES:
        return _NO_LABELS.format("values")
    if not count:
        return f"say what they mean in dataset.yaml, with your own names:{propose_new(values)}"
    shown = () if named else info.classes
    if info.label_map is None and values == list(range(1, count + 1)):
        pairs = dict(zip(values, info.classes, strict=True))
        return f"if the values count from 1, add to dataset.yaml:{_described(pairs, shown)}"
    if info.label_map is None and len(values) == count > 1:
        pairs = dict(zip(values, info.classes, strict=True))
        text = _described(pairs, shown)
        return f"if the values follow the order of the classes, add to dataset.yaml:{text}"
    targets = value_targets(np.array(values, np.int64), info).tolist()
    pairs = {v: _target_text(target, info) for v, target in zip(values, targets, strict=True)}
    return f"say what they mean in dataset.yaml, for example:{_described(pairs, shown)}"


def propose_colours(
    total: Mapping[int, int],
    info: DatasetInfo,
    *,
    beside: Mapping[int, int] | None = None,
    named: bool = True,
) -> str:
    """A label map for all stored colours of a data set, from its palette where that fits.

    Args:
        total: colour 0xRRGGBB -> pixels.
        info: the description the colours do not fit.
        beside: stored value -> pixels of other masks of the same data set that hold class ids. A
            label map is for all masks, so it has to name these values as well.
        named: whether `dataset.yaml` names the classes already.
    """
    greys = {value * 0x010101: count for value, count in (beside or {}).items() if value < 256}
    # A mask of one grey colour alone looks like class ids, from which classes were inferred.
    fresh = not info.num_classes or (not named and set(greys) <= {*total, 0x000000, 0xFFFFFF})
    if fresh:
        total = {**greys, **total}
    if len(total) > MAX_CLASSES:
        return _NO_LABELS.format("colours")
    codes = sorted(total, key=lambda code: -total[code])
    names = [colour_name(unpack_colour(code)) for code in codes]
    if fresh:
        return f"say what they mean in dataset.yaml, with your own names:{propose_new(names)}"
    palette = {
        int(pack_colours(np.array(c))): n for c, n in zip(info.palette, info.classes, strict=True)
    }
    targets = colour_targets(np.array(codes, np.int64), info).tolist()
    mark = undeclared_mark(info)
    meant = {
        name: palette.get(code, IGNORE) if target == mark else _target_text(target, info)
        for name, code, target in zip(names, codes, targets, strict=True)
    }
    shown = () if named else info.classes
    ids = [value for value in beside or {} if value < info.num_classes]
    if ids and info.label_map is None:
        known = {value: info.classes[value] for value in sorted(ids)}
        return (
            "other masks hold class ids: save this one like them, or declare both in dataset.yaml, "
            f"for example:{_described({**known, **meant}, shown)}"
        )
    return f"say what they mean in dataset.yaml, for example:{_described(meant, shown)}"


def propose_new(keys: Sequence[int | str], *, ignored: Sequence[int] = ()) -> str:
    """Lines for `dataset.yaml`, as they can stand there, that make each of `keys` a class.

    Args:
        keys: stored integers or names of colours that nobody has described.
        ignored: stored integers that become no class.
    """
    names = [f"class_{i}" for i in range(len(keys))]
    return _described(
        {**dict(zip(keys, names, strict=True)), **dict.fromkeys(ignored, IGNORE)}, names
    )


def shown_values(values: Sequence[object]) -> str:
    """The first values of a list, as text."""
    shown = ", ".join(str(value) for value in values[:_SHOWN])
    return shown + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")


def _binary_problems(found: Sequence[Inspected], info: DatasetInfo, named: bool) -> list[Problem]:
    kept = named and info.num_classes == 2
    names = info.classes if kept else ("background", "object")
    pairs = dict(zip((0, 255), names, strict=True))
    fix = f"write in dataset.yaml:{_described(pairs, () if kept else names)}"
    return [
        error(
            "binary-mask",
            "the masks hold only 0 and 255, and 255 means ignored, not a class",
            file=item.sample.mask,
            fix=fix,
        )
        for item in found
        if item.values is not None and 255 in item.values
    ]


def _total(masks: Iterable[tuple[np.ndarray | None, Inspected]]) -> Counter[int]:
    total: Counter[int] = Counter()
    for codes, item in masks:
        if codes is not None and item.counts is not None:
            total.update(dict(zip(codes.tolist(), item.counts.tolist(), strict=True)))
    return total


def _undeclared(item: Inspected, info: DatasetInfo) -> dict[int, int]:
    """Undeclared stored integers or colours of a mask -> pixels."""
    codes = item.values if item.values is not None else item.colours
    if codes is None or item.counts is None:
        return {}
    wrong = item.targets(info) == undeclared_mark(info)
    return dict(zip(codes[wrong].tolist(), item.counts[wrong].tolist(), strict=True))


def _counted(pixels: Mapping[int, int] | Mapping[str, int]) -> str:
    ordered = sorted(pixels.items(), key=lambda item: -item[1])
    return shown_values([f"{value} ({count} px)" for value, count in ordered])


def _target_text(target: int, info: DatasetInfo) -> str:
    return info.classes[target] if target < info.num_classes else IGNORE


def _described(pairs: Mapping[Any, str], classes: Sequence[str] = ()) -> str:
    """Lines of YAML: a label map, and the classes where nobody has named them."""
    content = {"classes": list(classes)} if classes else {}
    text = yaml.safe_dump(
        {**content, "label_map": dict(pairs)},
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=float("inf"),
    )
    # Not indented: lines that are copied below others in the file have to begin like them.
    return "\n" + text.rstrip()
