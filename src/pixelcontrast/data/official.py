"""What the published data sets have in common: files by id, and counts to compare with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pixelcontrast.data.dataset import Colour, DatasetInfo, Sample, SegDataset
from pixelcontrast.data.folder import assemble
from pixelcontrast.data.problems import Problem, warning

Splits = Mapping[str, tuple[str, ...]]


def voc_colours(count: int) -> tuple[Colour, ...]:
    """The first `count` colours of PASCAL VOC's map: the bits of the id, spread over R, G and B."""
    colours = []
    for number in range(count):
        rgb = [0, 0, 0]
        for place in range(8):
            for channel in range(3):
                rgb[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
        colours.append((rgb[0], rgb[1], rgb[2]))
    return tuple(colours)


def first_folder(*places: Path) -> Path | None:
    """The first of `places` that is a folder."""
    return next((place for place in places if place.is_dir()), None)


def files_by_id(folder: Path | None, tail: str, *, depth: int = 1) -> dict[str, Path]:
    """Id -> file of the files below `folder` whose names end with `tail`, sorted by id.

    Folders are listed once instead of asking for each file, which is what costs time on network
    disks. A missing folder has no files.

    Args:
        folder: where to look.
        tail: end of the names, which the id lacks.
        depth: 1 for files in the folder itself, 2 for those in its folders.
    """
    found: dict[str, Path] = {}
    if folder is None or not folder.is_dir():
        return found
    for entry in os.scandir(folder):
        if depth > 1 and entry.is_dir():
            below = files_by_id(folder / entry.name, tail, depth=depth - 1)
            found.update({f"{entry.name}/{name}": path for name, path in below.items()})
        elif depth == 1 and entry.name.endswith(tail) and not entry.name.startswith("."):
            found[entry.name[: -len(tail)]] = folder / entry.name
    return dict(sorted(found.items()))


def pair(
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    instances: Mapping[str, Path] | None = None,
) -> tuple[Sample, ...]:
    """One sample an image, with the mask and the instance map of the same id where they exist."""
    other = instances or {}
    return tuple(Sample(i, path, masks.get(i), other.get(i)) for i, path in images.items())


def complete(
    root: Path,
    info: DatasetInfo,
    samples: tuple[Sample, ...],
    listed: Splits,
    replaced: Splits,
    published: Mapping[str, int],
    problems: tuple[Problem, ...] = (),
) -> SegDataset:
    """A published data set, with a warning where the copy at hand is not the whole.

    Args:
        root: the folder.
        info: its description.
        samples: the images at hand.
        listed: the official splits; ids without a file are left out.
        replaced: splits given by the caller.
        published: split -> number of images it was published with.
        problems: findings so far.
    """
    known = {sample.id for sample in samples}
    here = {name: tuple(i for i in ids if i in known) for name, ids in listed.items()}
    given = {name: ids for name, ids in here.items() if ids}
    found = [*problems, *partial_copy(root, info.name, samples, given, published)]
    return assemble(root, info, samples, given, replaced, found)


def partial_copy(
    root: Path,
    name: str,
    samples: tuple[Sample, ...],
    splits: Splits,
    published: Mapping[str, int],
) -> list[Problem]:
    """A warning where fewer or more images or masks are at hand than were published.

    Args:
        root: the folder.
        name: of the data set.
        samples: the images at hand.
        splits: the official splits, with the images at hand.
        published: split -> number of images it was published with.
    """
    masked = {sample.id for sample in samples if sample.mask is not None}
    counts = {split: len(splits.get(split, ())) for split in published}
    found = [
        f"{split} has {counts[split]:,} of {whole:,} images"
        for split, whole in published.items()
        if counts[split] != whole
    ]
    bare = {split: len(set(splits.get(split, ())) - masked) for split in ("train", "val")}
    found += [
        f"{count:,} images of {split} lack their masks" for split, count in bare.items() if count
    ]
    if not found:
        return []
    return [
        warning(
            "partial-copy",
            f"not the whole of {name}: {'; '.join(found)}",
            file=root,
            fix="scores cannot be compared with published ones; "
            f"`pixelcontrast data prepare {name}` says what belongs there",
        )
    ]
