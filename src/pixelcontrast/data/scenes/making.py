"""The data set `scenes`: one image by number, or a whole folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.data.dataset import DatasetInfo, Sample, SegDataset
from pixelcontrast.data.description import read_description, write_description
from pixelcontrast.data.folder import DESCRIPTION
from pixelcontrast.data.reading import write_bytes, write_mask
from pixelcontrast.data.scenes.street import render_street
from pixelcontrast.data.splits import complement, make_split, write_split

SCENES_INFO = DatasetInfo(
    name="scenes",
    classes=("sky", "building", "road", "pavement", "vegetation", "car", "person", "sign"),
    palette=(
        (112, 176, 226), (166, 124, 102), (104, 98, 122), (206, 176, 196),
        (104, 152, 84), (46, 88, 176), (222, 62, 72), (244, 196, 64),
    ),
)  # fmt: skip
"""`sign` holds everything on posts: signs, traffic lights, lamps; bins and the own car's bonnet
have no class."""

_FIRST = {"train": 0, "val": 1_000_000, "test": 2_000_000}
"""Scene number of the first image of each split, so that their sizes do not touch each other."""
_MIN_SIDE = 16


def render_scene(
    index: int, size: tuple[int, int] = (96, 128), seed: int = 0, hard: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scene number `index`: image (H, W, 3) RGB and class ids (H, W), always the same ones.

    Args:
        index: number of the scene, 0 or more.
        size: height and width.
        seed: another seed gives other scenes.
        hard: more fog, rain, night and noise, and colours that tell less about the class.

    Raises:
        ConfigError: when `size` is below 16 x 16 or a number is negative.
    """
    if min(size) < _MIN_SIDE or index < 0 or seed < 0:
        raise ConfigError(
            f"no scene {index} of size {size[0]} x {size[1]} with seed {seed}",
            fix=f"numbers from 0, sizes from {_MIN_SIDE} x {_MIN_SIDE}",
        )
    return render_street(np.random.default_rng([seed, index, int(hard)]), size, hard)


def make_scenes(
    root: str | Path,
    *,
    train: int = 200,
    val: int = 50,
    test: int = 50,
    labeled: int | None = None,
    size: tuple[int, int] = (96, 128),
    seed: int = 0,
    hard: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write scenes as a data folder: JPEG images, PNG masks, `dataset.yaml`, splits.

    All images get masks, so that a run on few labels can be compared with one on all of them.

    Args:
        root: the folder; made if it does not exist.
        train: number of training images.
        val: number of validation images.
        test: number of test images.
        labeled: how many training images are listed as labelled (covering every class where
            possible), the others as unlabelled; None lists all as labelled.
        size: height and width.
        seed: of the scenes and of the choice of labelled ones.
        hard: see `render_scene`.
        overwrite: replace scenes that lie in `root`; other data is never replaced.
        progress: called with images done and images in all.

    Returns:
        `root`.

    Raises:
        DataError: when `root` holds something, and it is not scenes to be overwritten.
        ConfigError: when a number is impossible.
    """
    root = Path(root).expanduser()
    counts = {"train": train, "val": val, "test": test}
    if train < 1 or min(counts.values()) < 0 or not (labeled is None or 1 <= labeled <= train):
        raise ConfigError(f"cannot make {counts} scenes with {labeled} labelled ones")
    _clear(root, overwrite)
    pixels: dict[str, NDArray[np.int64]] = {}
    samples: list[Sample] = []
    splits: dict[str, tuple[str, ...]] = {}
    total, done = sum(counts.values()), 0
    for split, count in counts.items():
        digits = max(4, len(str(count)))
        for number in range(count):
            name = f"{split}_{number:0{digits}}"
            image, mask = render_scene(_FIRST[split] + number, size, seed, hard)
            sample = Sample(name, root / "images" / f"{name}.jpg", root / "masks" / f"{name}.png")
            _write_jpeg(sample.image, image)
            write_mask(root / "masks" / f"{name}.png", mask, SCENES_INFO.palette)
            pixels[name] = np.bincount(mask.ravel(), minlength=256)
            samples.append(sample)
            done += 1
            if progress is not None:
                progress(done, total)
        if count:
            splits[split] = tuple(s.id for s in samples[-count:])
    dataset = SegDataset(SCENES_INFO, root, tuple(samples), splits)
    if labeled is not None:
        chosen = make_split(dataset, pixels, count=labeled, seed=seed)
        splits |= {"labeled": chosen.ids, "unlabeled": complement(dataset, chosen).ids}
    for split, ids in splits.items():
        write_split(root / "splits" / f"{split}.txt", ids)
    write_description(root / DESCRIPTION, SCENES_INFO)
    return root


def _clear(root: Path, overwrite: bool) -> None:
    """Make `root` an empty data folder; only earlier scenes are ever removed."""
    if root.exists() and not root.is_dir():
        raise DataError("the target is a file", where=root)
    if root.is_dir() and any(root.iterdir()):
        description = root / DESCRIPTION
        mine = description.exists() and read_description(description).get("name") == "scenes"
        if not (mine and overwrite):
            raise DataError(
                "the folder holds scenes already" if mine else "the folder is not empty",
                where=root,
                fix="choose another folder" + (" or ask to overwrite them" if mine else ""),
            )
        for name in ("images", "masks", "splits"):
            shutil.rmtree(root / name, ignore_errors=True)
        description.unlink()
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)


def _write_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    # Without chroma subsampling: signs and people are only a few pixels wide.
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR]
    options.append(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    write_bytes(path, encoded.tobytes())
