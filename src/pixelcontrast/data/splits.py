"""Lists of images with a name: read, write, complete, draw, verify, hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.core.files import write_text
from pixelcontrast.data.dataset import Sample, SegDataset
from pixelcontrast.data.problems import Problem, error, warning
from pixelcontrast.data.reading import IMAGE_SUFFIXES

HOLD_OUT = 0.2
"""Share of the images with masks that becomes `val` when the folder names no such split."""


@dataclass(frozen=True, slots=True)
class Split:
    """A named list of image ids."""

    name: str
    ids: tuple[str, ...]
    uncovered: tuple[str, ...] = ()
    """Classes that occur in the data but in no image of the split."""

    @property
    def sha256(self) -> str:
        """`split_hash` of the ids."""
        return split_hash(self.ids)


def split_hash(ids: Iterable[str]) -> str:
    """SHA-256 of the sorted, distinct ids joined by newlines: the same set has the same hash."""
    return hashlib.sha256("\n".join(sorted(set(ids))).encode()).hexdigest()


def read_split(path: Path) -> tuple[str, ...]:
    """The ids in a text file, one a line; empty lines and lines that start with `#` are skipped.

    Raises:
        DataError: when the file cannot be read as text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as reason:
        raise DataError(f"cannot read the split ({reason})", where=path) from reason
    lines = (line.strip().replace("\\", "/") for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def write_split(path: Path, ids: Iterable[str]) -> None:
    """Write `ids` one a line; the folder is made, and the file appears whole or not at all."""
    write_text(path, "".join(f"{i}\n" for i in ids))


def verify_split(
    dataset: SegDataset, ids: Sequence[str], *, sha256: str | None = None, masks: bool = True
) -> None:
    """Check that a list fits a data set.

    Args:
        dataset: where the images must exist.
        ids: the list.
        sha256: the hash the list must have.
        masks: whether every image must have a mask.

    Raises:
        DataError: when an image or a mask is missing, an id occurs twice, or the hash differs.
    """
    if sha256 is not None and split_hash(ids) != sha256:
        raise DataError(
            f"the list has the hash {split_hash(ids)[:12]}..., expected {sha256[:12]}...",
            where=dataset.root,
            fix="restore the original list, or name the new one differently",
        )
    if len(set(ids)) != len(ids):
        raise DataError(f"{len(ids) - len(set(ids))} ids occur twice", where=dataset.root)
    samples = dataset.with_splits({"list": ids}).select("list")
    without = [sample.id for sample in samples if sample.mask is None]
    if masks and without:
        raise DataError(
            f"{len(without)} images of the list have no mask, for example {without[0]}",
            where=dataset.root,
        )


def make_split(
    dataset: SegDataset,
    class_counts: Mapping[str, NDArray[np.int64]],
    *,
    fraction: float | None = None,
    count: int | None = None,
    seed: int = 0,
    of: str = "train",
    cover_classes: bool = True,
    name: str = "labeled",
) -> Split:
    """Draw some of the images with masks, the same ones for the same seed.

    With `cover_classes`, images are first taken for the class that the fewest images show,
    then for the next one not yet covered, each time the image that shows most uncovered classes;
    the rest is uniform.

    Args:
        dataset: what to draw from.
        class_counts: id -> pixels of each class, (C,) or longer, from `count_classes`.
        fraction: share of the images of `of`, in (0, 1]; at least one image is drawn.
        count: number of images, instead of `fraction`.
        seed: of the draw.
        of: the split that is drawn from.
        cover_classes: whether every class that occurs should be shown where possible.
        name: of the result.

    Raises:
        ConfigError: when not exactly one of `fraction` and `count` is given or it is impossible.
        DataError: when `of` does not exist.
    """
    ids = [sample.id for sample in dataset.select(of) if sample.mask is not None]
    wanted = _wanted(len(ids), fraction, count)
    order = np.random.default_rng(seed).permutation(len(ids))
    shown = np.stack([class_counts[ids[i]][: dataset.info.num_classes] > 0 for i in order])
    chosen: list[int] = []
    covered = np.zeros(shown.shape[1], bool)
    if cover_classes:
        frequency = shown.sum(axis=0)
        for label in np.argsort(frequency, kind="stable"):
            if covered[label] or not frequency[label] or len(chosen) == wanted:
                continue
            gain = (shown & ~covered).sum(axis=1) * shown[:, label]
            best = int(gain.argmax())
            chosen.append(best)
            covered |= shown[best]
    taken = set(chosen)
    rest = [i for i in range(len(ids)) if i not in taken]
    chosen += rest[: wanted - len(chosen)]
    missing = shown.any(axis=0) & ~shown[chosen].any(axis=0)
    return Split(
        name=name,
        ids=tuple(sorted(ids[order[i]] for i in chosen)),
        uncovered=tuple(dataset.info.classes[label] for label in np.flatnonzero(missing)),
    )


def complement(dataset: SegDataset, split: Split, *, of: str = "train") -> Split:
    """The images of `of` that are not in `split`, in their order, as split `unlabeled`."""
    inside = set(split.ids)
    ids = tuple(sample.id for sample in dataset.select(of) if sample.id not in inside)
    return Split("unlabeled", ids)


def listed_splits(
    samples: Sequence[Sample], listed: Mapping[str, Sequence[str]], where: Mapping[str, object]
) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """Ids from split files, matched with the images.

    Ids that are file names lose their suffix. Unknown and repeated ids are left out and reported.

    Args:
        samples: all images.
        listed: split name -> lines of its file.
        where: split name -> its file, for messages.
    """
    known = {sample.id for sample in samples}
    splits: dict[str, tuple[str, ...]] = {}
    problems: list[Problem] = []
    for name, lines in listed.items():
        ids = [_without_suffix(line) if line not in known else line for line in lines]
        unique = tuple(dict.fromkeys(i for i in ids if i in known))
        problems.extend(
            error(
                "split-unknown-id",
                f"split {name!r} names {i!r}, and there is no such image",
                file=where.get(name, ""),
                fix="remove the line or add the image",
            )
            for i in dict.fromkeys(ids)
            if i not in known
        )
        twice = len(ids) - len(set(ids))
        if twice:
            problems.append(
                warning(
                    "split-repeated-id",
                    f"split {name!r} names {twice} images more than once; once is used",
                    file=where.get(name, ""),
                )
            )
        splits[name] = unique
    return splits, problems


def complete_splits(
    samples: Sequence[Sample], given: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """Fill in the usual splits that a folder does not name.

    * `train`: all images that are in no `val` or `test` list, with and without masks.
    * `val`: if the folder names `train`, the images with masks that no list names; otherwise, or
      if there are none, `HOLD_OUT` of the images of `train` with masks (at least one, the same
      ones each time), which leave `train` and `labeled`.
    * `labeled`: the images of `train` that have masks and are not listed as `unlabeled`.
    * `unlabeled`: the rest of `train`, and images without masks that no list names.
    """
    has_mask = {sample.id for sample in samples if sample.mask is not None}
    usable = has_mask - set(given.get("unlabeled", ()))
    splits = {name: tuple(ids) for name, ids in given.items()}
    named = {i for ids in given.values() for i in ids}
    apart = {i for name in ("val", "test") for i in given.get(name, ())}
    train = list(given.get("train", [s.id for s in samples if s.id not in apart]))
    labeled = list(given.get("labeled", [i for i in train if i in usable]))
    problems: list[Problem] = []
    if "val" not in given:
        free = [s.id for s in samples if s.id in has_mask - named] if "train" in given else []
        val = free or _hold_out([i for i in train if i in usable], set(given.get("labeled", ())))
        problems = [_no_val(len(val), free=bool(free))] if has_mask else []
        if val:
            splits["val"] = tuple(val)
            out = set(val)
            train = [i for i in train if i not in out]
            labeled = [i for i in labeled if i not in out]
    splits.update(
        {name: tuple(ids) for name, ids in (("train", train), ("labeled", labeled)) if ids}
    )
    if "unlabeled" not in given:
        inside = set(labeled)
        pool = [i for i in train if i not in inside]
        pool += [s.id for s in samples if s.id not in has_mask | named]
        if pool:
            splits["unlabeled"] = tuple(dict.fromkeys(pool))
    return splits, problems


def _no_val(count: int, *, free: bool) -> Problem:
    if not count:
        return warning(
            "no-val-split",
            "too few images with masks to hold some out for validation",
            fix="add masks, or list at least one image in splits/val.txt",
        )
    origin = "all images with masks that no list names" if free else "a fixed part of train"
    return warning(
        "no-val-split",
        f"no list names the split val; {count} images are used: {origin}",
        fix="list ids in splits/val.txt to choose them yourself",
    )


def _hold_out(masked: list[str], labeled: set[str]) -> list[str]:
    # Labelled images are spared where possible. Ranking by hash keeps the choice for old images
    # when new ones are added.
    if len(masked) < 2:
        return []
    pool = [i for i in masked if i not in labeled] or masked
    ranked = sorted(pool, key=lambda i: hashlib.sha256(i.encode()).digest())
    chosen = set(ranked[: max(1, round(HOLD_OUT * len(masked)))])
    return [i for i in masked if i in chosen]


def _without_suffix(line: str) -> str:
    stem, dot, suffix = line.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else line


def _wanted(total: int, fraction: float | None, count: int | None) -> int:
    if (fraction is None) == (count is None):
        raise ConfigError("give either a fraction or a count of images")
    if fraction is not None:
        if not 0 < fraction <= 1:
            raise ConfigError(f"fraction {fraction} is not in (0, 1]")
        return max(1, round(fraction * total))
    if count is None or not 1 <= count <= total:
        raise ConfigError(
            f"{count} labelled images are wanted, and {total} of the training images have masks",
            where="data.labeled",
            fix=f"use 1 to {total}; images held out for validation do not count",
        )
    return count
