"""What one image and its mask hold: the part of the checks that reads files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelcontrast.core.errors import DataError
from pixelcontrast.data.dataset import DatasetInfo, Sample, SegDataset
from pixelcontrast.data.labels import (
    StoredMask,
    colour_targets,
    pack_colours,
    stored_keys,
    value_targets,
)
from pixelcontrast.data.reading import ends_properly, image_size, read_image, read_stored_mask

Progress = Callable[[int, int], None]
"""Called with files done and files in all."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """What is known of one sample after reading it."""

    sample: Sample
    image_error: DataError | None = None
    image_size: tuple[int, int] | None = None
    mask_error: DataError | None = None
    mask_size: tuple[int, int] | None = None
    values: NDArray[np.int64] | None = None
    """Distinct stored integers, or None for a mask of colours."""
    colours: NDArray[np.int64] | None = None
    """Distinct stored colours as 0xRRGGBB, or None for a mask of integers."""
    counts: NDArray[np.int64] | None = None
    """Pixels of each of `values` or `colours`; None when there is no readable mask."""

    def targets(self, info: DatasetInfo) -> NDArray[np.uint8]:
        """Class id of each of `values` or `colours`, `undeclared_mark` where there is none."""
        if self.colours is not None:
            return colour_targets(self.colours, info)
        return value_targets(self.values if self.values is not None else np.zeros(0, int), info)


def inspect_samples(
    samples: Sequence[Sample],
    info: DatasetInfo,
    *,
    workers: int | None = None,
    decode: bool = False,
    progress: Progress | None = None,
) -> list[Inspected]:
    """Read every mask and every image header, in threads; decoding releases the interpreter lock.

    Args:
        samples: what to read.
        info: decides whether grey values or colours of a mask count.
        workers: number of threads; None means one a core, at most 8.
        decode: decode the images too; otherwise a JPEG or PNG image is decoded only when its end
            marker is missing.
        progress: called after every sample.
    """
    jobs = workers or min(8, cpu_count() or 1)
    found: list[Inspected] = []
    for result in _in_threads(lambda s: inspect_sample(s, info, decode=decode), samples, jobs):
        found.append(result)
        if progress is not None:
            progress(len(found), len(samples))
    return found


def inspect_sample(sample: Sample, info: DatasetInfo, *, decode: bool = False) -> Inspected:
    """Read one mask and one image header."""
    image_error = mask_error = None
    size: tuple[int, int] | None = None
    stored: StoredMask | None = None
    try:
        size = image_size(sample.image)
        if decode or not ends_properly(sample.image):
            read_image(sample.image)
    except DataError as reason:
        image_error = reason
    if sample.mask is not None:
        try:
            stored = read_stored_mask(sample.mask)
        except DataError as reason:
            mask_error = reason
    if stored is None:
        return Inspected(sample, image_error, size, mask_error)
    keys = stored_keys(stored, info)
    if keys.ndim == 3:
        codes, counts = count_values(pack_colours(keys))
        return Inspected(sample, image_error, size, None, stored.size, None, codes, counts)
    values, counts = count_values(keys)
    return Inspected(sample, image_error, size, None, stored.size, values, None, counts)


def count_classes(
    dataset: SegDataset, *, workers: int | None = None, progress: Progress | None = None
) -> dict[str, NDArray[np.int64]]:
    """Id -> pixels of each class and, last, ignored ones, (C + 1,), for every readable mask."""
    masked = [sample for sample in dataset.samples if sample.mask is not None]
    found = inspect_samples(masked, dataset.info, workers=workers, progress=progress)
    return class_counts(found, dataset.info)


def class_counts(found: Iterable[Inspected], info: DatasetInfo) -> dict[str, NDArray[np.int64]]:
    """`count_classes` of samples that have been inspected; undeclared pixels are not counted."""
    result: dict[str, NDArray[np.int64]] = {}
    for item in found:
        if item.counts is not None:
            pixels = np.zeros(256, np.int64)
            np.add.at(pixels, item.targets(info), item.counts)
            result[item.sample.id] = np.append(
                pixels[: info.num_classes], pixels[info.ignore_index]
            )
    return result


def count_values(codes: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct values of (H, W) integers and how many pixels have each.

    Only the first pixel of every run along the rows is sorted; masks consist of long runs.
    """
    flat = codes.ravel()
    change = np.ones(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=change[1:])
    starts = np.flatnonzero(change)
    lengths = np.diff(starts, append=flat.size)
    values, inverse = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(inverse, weights=lengths, minlength=len(values))
    return values.astype(np.int64), counts.astype(np.int64)


def stored_values(path: Path) -> NDArray[np.int64]:
    """Distinct integers of a mask file; nothing for one that is unreadable or holds colours."""
    try:
        keys = stored_keys(read_stored_mask(path), DatasetInfo("", ()))
    except DataError:
        return np.zeros(0, np.int64)
    return count_values(keys)[0] if keys.ndim == 2 else np.zeros(0, np.int64)


def _in_threads(
    work: Callable[[Sample], Inspected], samples: Iterable[Sample], jobs: int
) -> Iterator[Inspected]:
    if jobs == 1:
        yield from map(work, samples)
        return
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        yield from pool.map(work, samples)
