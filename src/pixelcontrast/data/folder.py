"""The folder contract: `images/`, optional `masks/`, `dataset.yaml` and `splits/*.txt`.

Without split files, `images/train/`, `images/val/` and so on are the splits.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pixelcontrast.data.dataset import MAX_CLASSES, DatasetInfo, Sample, SegDataset
from pixelcontrast.data.description import info_from_description, read_description
from pixelcontrast.data.inspection import stored_values
from pixelcontrast.data.problems import Problem, error, warning
from pixelcontrast.data.proposals import propose_new, shown_values
from pixelcontrast.data.reading import IMAGE_SUFFIXES
from pixelcontrast.data.splits import complete_splits, listed_splits, read_split

_RARE = 20
"""Values in fewer than one of so many masks may be faults."""
Splits = Mapping[str, tuple[str, ...]]

DESCRIPTION = "dataset.yaml"
INFERRED = frozenset({"classes-inferred", "sparse-values"})
"""Codes of the problems that say that nobody has named the classes."""
SPLIT_FOLDERS = frozenset({"train", "val", "test", "labeled", "unlabeled"})
"""Folders below `images` that are splits, when the folder has no split files."""


def is_contract_folder(root: Path) -> bool:
    """Whether `root` has an `images` folder."""
    return (root / "images").is_dir()


def is_scenes_folder(root: Path) -> bool:
    """Whether `root` is a contract folder that was made by `make_scenes`."""
    path = root / DESCRIPTION
    return is_contract_folder(root) and path.is_file() and b"name: scenes\n" in path.read_bytes()


def is_image_folder(root: Path) -> bool:
    """Whether images lie directly in `root`."""
    return any(_is_image(path) for path in root.iterdir())


def list_contract_folder(root: Path, splits: Splits) -> SegDataset:
    """The data set in a folder that follows the contract; `splits` replace listed ones."""
    images, doubled = _by_id(root / "images")
    masks, doubled_masks = _by_id(root / "masks")
    problems = [_duplicate(kept, other) for kept, other in doubled + doubled_masks]
    problems += _orphans(images, masks, root) + ([] if masks else _misplaced(root))
    samples = tuple(Sample(i, path, masks.get(i)) for i, path in images.items())
    files = {path.stem: path for path in sorted((root / "splits").glob("*.txt"))}
    listed = {name: read_split(path) for name, path in files.items()} or _split_folders(images)
    return assemble(
        root, _describe(root, samples, problems), samples, listed, splits, problems, files
    )


def list_image_folder(root: Path, splits: Splits) -> SegDataset:
    """Images without any masks, directly in a folder."""
    images, doubled = _by_id(root)
    problems = [_duplicate(kept, other) for kept, other in doubled]
    samples = tuple(Sample(i, path) for i, path in images.items())
    return assemble(root, _describe(root, samples, problems), samples, {}, splits, problems)


def assemble(
    root: Path,
    info: DatasetInfo,
    samples: tuple[Sample, ...],
    listed: Mapping[str, tuple[str, ...]],
    replaced: Splits,
    problems: list[Problem],
    files: Mapping[str, Path] | None = None,
) -> SegDataset:
    """A data set with its splits matched and completed.

    Args:
        root: the folder.
        info: its description.
        samples: its images.
        listed: splits found in files.
        replaced: splits given by the caller; a new `labeled` also sets aside a listed `unlabeled`.
        problems: findings so far.
        files: the file of each listed split, for messages.
    """
    if "labeled" in replaced:
        listed = {name: ids for name, ids in listed.items() if name != "unlabeled"}
    where = {name: path for name, path in (files or {}).items() if name not in replaced}
    matched, found = listed_splits(samples, {**listed, **replaced}, where)
    complete, added = complete_splits(samples, matched)
    return SegDataset(info, root, samples, complete, (*problems, *found, *added))


def _describe(root: Path, samples: tuple[Sample, ...], problems: list[Problem]) -> DatasetInfo:
    path = root / DESCRIPTION
    found = read_description(path) if path.exists() else {}
    if "classes" not in found:
        masks = [sample.mask for sample in samples if sample.mask is not None]
        found["classes"] = _infer_classes(masks, found.get("ignore_index", 255), problems)
    return info_from_description(found, root.resolve().name, path)


def _infer_classes(masks: list[Path], ignore: int, problems: list[Problem]) -> tuple[str, ...]:
    """Names for the classes 0..max of the stored values, when nobody has named them."""
    # Damaged and coloured masks are reported by `check_dataset`, each with its remedy.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        found = [set(values.tolist()) - {ignore} for values in pool.map(stored_values, masks)]
    holders = Counter(value for values in found for value in values)
    highest = max(holders, default=-1)
    count = min(highest + 1, MAX_CLASSES, ignore)
    if len(holders) > 1 and highest >= 2 * len(holders):
        problems += _sparse(masks, found, holders)
    elif count:
        problems.append(
            warning(
                "classes-inferred",
                f"{count} classes were inferred from the values 0..{count - 1} of the masks",
                fix=f"name them in {DESCRIPTION}, for example classes: [background, road, ...]",
            )
        )
    return tuple(f"class_{i}" for i in range(count))


def _sparse(
    masks: list[Path], found: Sequence[set[int]], holders: Mapping[int, int]
) -> list[Problem]:
    """What to say of stored values with wide gaps: class ids and a few strays, or no ids at all.

    Args:
        masks: the files.
        found: stored values of each.
        holders: stored value -> number of masks that hold it.
    """
    used = sorted(holders)
    run = [value for i, value in enumerate(used) if value == used[0] + i]
    few = max(1, len(masks) // _RARE)
    strays = [value for value in used[len(run) :] if holders[value] <= few]
    kept = [value for value in used if value not in strays]
    if not strays or len(kept) < 2:
        return [
            error(
                "sparse-values",
                f"the masks hold the values {shown_values(used)}: too sparse to be class ids",
                file=masks[0].parent,
                fix=f"say what they mean in {DESCRIPTION}, with your own names:{propose_new(used)}",
            )
        ]
    fix = (
        f"mend the mask if {shown_values(strays)} is a fault there; else say in {DESCRIPTION} "
        f"whether it is ignored, as here, or a class:{propose_new(kept, ignored=strays)}"
    )
    return [
        error(
            "sparse-values",
            f"holds the value {shown_values(odd)}, far from the others of all masks: "
            f"{shown_values(kept)}",
            file=path,
            fix=fix,
        )
        for path, values in zip(masks, found, strict=True)
        if (odd := sorted(values.intersection(strays)))
    ]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (path for name in sorted(names) if _is_image(path := Path(place, name)))


def _by_id(folder: Path) -> tuple[dict[str, Path], list[tuple[Path, Path]]]:
    """Id -> file below `folder`, and pairs of files that share an id (the first one is kept)."""
    found: dict[str, Path] = {}
    doubled = []
    for path in _walk(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            doubled.append((found[name], path))
        else:
            found[name] = path
    return found, doubled


def _split_folders(images: Mapping[str, Path]) -> dict[str, tuple[str, ...]]:
    """Splits from `images/train/`, `images/val/` ..., if every image lies in such a folder."""
    tops = {i: i.partition("/")[0] if "/" in i else "" for i in images}
    if not set(tops.values()) <= SPLIT_FOLDERS:
        return {}
    return {
        name: tuple(i for i in images if tops[i] == name) for name in dict.fromkeys(tops.values())
    }


def _misplaced(root: Path) -> list[Problem]:
    """Folders beside `images` that may be the masks under another name."""
    beside = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name != "images"]
    return [
        warning(
            "unused-folder",
            "holds images, and nothing reads it",
            file=path,
            fix="if these are the masks, name the folder masks",
        )
        for path in beside
        if next(_walk(path), None) is not None
    ]


def _duplicate(kept: Path, other: Path) -> Problem:
    return error(
        "duplicate-id",
        f"has the same id as {kept.name}",
        file=other,
        fix="rename or remove one: the path without suffix must be unique",
    )


def _orphans(images: Mapping[str, Path], masks: Mapping[str, Path], root: Path) -> list[Problem]:
    orphans = {i: path for i, path in masks.items() if i not in images}
    if not orphans:
        return []
    fix = "give the mask the path of its image, without suffix, or remove it"
    first = next(iter(orphans))
    near = [i for i in images if first.startswith(i) and i]
    if near:
        tail = first[len(max(near, key=len)) :]
        fix = f"mask names end with {tail!r}: remove that, so that both names are the same"
    if len(orphans) == len(masks):
        message = f"none of the {len(masks)} masks belongs to an image, for example {first}"
        return [error("orphan-mask", message, file=root / "masks", fix=fix)]
    return [
        warning("orphan-mask", "no image belongs to this mask", file=path, fix=fix)
        for path in orphans.values()
    ]
