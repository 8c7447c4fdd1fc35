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
    masked = {sample.id: sample.mask is not None for sample in samples}
    here = {name: tuple(i for i in ids if i in masked) for name, ids in listed.items()}
    counts = {name: len(here.get(name, ())) for name in published}
    short = [
        f"{name} has {counts[name]:,} of {whole:,} images"
        for name, whole in published.items()
        if counts[name] != whole
    ]
    bare = [
        f"{sum(not masked[i] for i in here[name]):,} images of {name} lack their masks"
        for name in ("train", "val")
        if not all(masked[i] for i in here.get(name, ()))
    ]
    found = [*problems]
    if short or bare:
        found.append(
            warning(
                "partial-copy",
                f"not the whole of {info.name}: {'; '.join(short + bare)}",
                file=root,
                fix=f"scores cannot be compared with published ones; "
                f"`pixelcontrast data prepare {info.name}` says what belongs there",
            )
        )
    given = {name: ids for name, ids in here.items() if ids}
    return assemble(root, info, samples, given, replaced, found)
