"""Every check of a data set before the first step; all findings come in one list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelcontrast.data.dataset import SegDataset
from pixelcontrast.data.folder import INFERRED
from pixelcontrast.data.inspection import Inspected, Progress, class_counts, inspect_samples
from pixelcontrast.data.problems import (
    Problem,
    error,
    problem_dicts,
    problem_lines,
    raise_on_errors,
    warning,
)
from pixelcontrast.data.proposals import undeclared_problems
from pixelcontrast.data.stats import DatasetStats, summarise

TINY = 32
"""Images with a side below this many pixels are reported: encoders halve them five times."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check_dataset` found."""

    problems: tuple[Problem, ...]
    stats: DatasetStats

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Findings that training must not start with."""
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Oddities."""
        return tuple(p for p in self.problems if p.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether training may start."""
        return not self.errors

    def lines(self, *, per_group: int = 3) -> list[str]:
        """Text, errors first, files with the same problem grouped."""
        return problem_lines(self.problems, per_group=per_group)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON; no file is left out."""
        return {
            "ok": self.ok,
            "problems": problem_dicts(self.problems),
            "stats": self.stats.to_dict(),
        }

    def raise_on_errors(self, where: object) -> None:
        """Raise one `DataError` that holds every error, if there is any."""
        raise_on_errors(self.problems, where)


def check_dataset(
    dataset: SegDataset,
    *,
    splits: Iterable[str] | None = None,
    workers: int | None = None,
    decode_images: bool = False,
    progress: Progress | None = None,
) -> CheckReport:
    """Read every mask and every image header, and find all problems.

    Args:
        dataset: opened with `strict=False`, so that listing errors are part of the report.
        splits: look at the images of these splits alone; None means all images.
        workers: threads; None means one a core, at most 8.
        decode_images: decode every image too, which finds damage inside a file.
        progress: called with files done and files in all.
    """
    samples = dataset.samples
    if splits is not None:
        wanted = {i for name in splits for i in dataset.splits.get(name, ())}
        samples = tuple(sample for sample in samples if sample.id in wanted)
    found = inspect_samples(
        samples, dataset.info, workers=workers, decode=decode_images, progress=progress
    )
    counts = class_counts(found, dataset.info)
    sizes = [item.image_size for item in found if item.image_size is not None]
    stats = summarise(dataset, counts, sizes)
    codes = {problem.code for problem in dataset.problems}
    coding = undeclared_problems(found, dataset.info, named=not codes & INFERRED)
    problems = [
        *dataset.problems,
        *_file_problems(found),
        *coding,
        *_split_problems(dataset),
        *_mask_problems(found, counts),
        *([] if coding or "sparse-values" in codes else _class_problems(dataset, counts, stats)),
    ]
    return CheckReport(tuple(problems), stats)


def _file_problems(found: Sequence[Inspected]) -> list[Problem]:
    problems = []
    for item in found:
        problems += [
            error(
                "unreadable",
                reason.what,
                file=reason.where or item.sample.image,
                fix=reason.fix or "replace the file, or remove image and mask",
            )
            for reason in (item.image_error, item.mask_error)
            if reason is not None
        ]
        size, other = item.image_size, item.mask_size
        if size is not None and min(size) < TINY:
            problems.append(
                warning(
                    "tiny-image",
                    f"{size[1]} x {size[0]} pixels",
                    file=item.sample.image,
                    fix="check that this is no thumbnail",
                )
            )
        if size is not None and other is not None and size != other:
            problems.append(_size_mismatch(item, size, other))
    return problems


def _size_mismatch(item: Inspected, size: tuple[int, int], other: tuple[int, int]) -> Problem:
    fix = "export the mask at the size of its image"
    if size == other[::-1]:
        fix = (
            "the mask was probably drawn on the photograph before its EXIF rotation: rotate the "
            "mask, or remove the rotation from the image"
        )
    return error(
        "size-mismatch",
        f"the mask has {other[1]} x {other[0]} pixels, its image {size[1]} x {size[0]}",
        file=item.sample.mask,
        fix=fix,
    )


def _split_problems(dataset: SegDataset) -> list[Problem]:
    problems = []
    masked = {sample.id for sample in dataset.samples if sample.mask is not None}
    for name, ids in dataset.splits.items():
        if not ids:
            problems.append(
                error(
                    "empty-split",
                    f"split {name!r} has no image",
                    file=dataset.root / "splits" / f"{name}.txt",
                    fix="list one id a line, or remove the file",
                )
            )
        if name in {"val", "test", "labeled"}:
            # Public test sets come without masks; validation and training need theirs.
            make = warning if name == "test" else error
            problems.extend(
                make(
                    "mask-missing",
                    f"is in split {name!r} and has no mask",
                    file=i,
                    fix="add the mask, or move the image to 'unlabeled'",
                )
                for i in ids
                if i not in masked
            )
    for left, right in (("train", "val"), ("train", "test"), ("labeled", "val"),
                        ("labeled", "test"), ("val", "test")):  # fmt: skip
        both = set(dataset.splits.get(left, ())) & set(dataset.splits.get(right, ()))
        if both and not (left == "labeled" and both <= set(dataset.splits.get("train", ()))):
            make = warning if (left, right) == ("val", "test") else error
            shown = ", ".join(sorted(both)[:3]) + (", ..." if len(both) > 3 else "")
            problems.append(
                make(
                    "split-overlap",
                    f"{len(both)} images are in both {left!r} and {right!r}: {shown}",
                    file=dataset.root,
                    fix=f"remove them from one: scores on {right!r} would be too good",
                )
            )
    return problems


def _mask_problems(
    found: Sequence[Inspected], counts: Mapping[str, NDArray[np.int64]]
) -> list[Problem]:
    return [
        warning(
            "all-ignored",
            "the mask holds no pixel of any class",
            file=item.sample.mask,
            fix="label it, or remove the mask so that the image counts as unlabelled",
        )
        for item in found
        if (row := counts.get(item.sample.id)) is not None and row[-1] and not row[:-1].any()
    ]


def _class_problems(
    dataset: SegDataset, counts: Mapping[str, NDArray[np.int64]], stats: DatasetStats
) -> list[Problem]:
    info = dataset.info
    if not stats.labeled:
        message = "no image has a mask; only methods without labels can be trained"
        return [warning("no-masks", message, file=dataset.root)]
    if info.num_classes == 1:
        return [
            error(
                "one-class",
                f"there is a single class, {info.classes[0]!r}: nothing can be told apart",
                file=dataset.root,
                fix="declare the background as a class of its own in label_map",
            )
        ]
    if not any(row[:-1].any() for row in counts.values()):
        return []
    return [
        warning(
            "class-absent",
            f"class {name!r} does not occur in {stats.counted!r}; it cannot be learned",
            file=dataset.root,
            fix="add an image that shows it, or remove the class from dataset.yaml",
        )
        for name in stats.absent
    ]
