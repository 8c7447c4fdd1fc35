"""Every data layout the project knows, and the one function that opens them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixelcontrast.core.errors import DataError, unknown_name
from pixelcontrast.core.files import data_folder
from pixelcontrast.data import ade20k, camvid, cityscapes, coco, folder, pascal_context, voc
from pixelcontrast.data.dataset import DatasetInfo, SegDataset
from pixelcontrast.data.description import read_description
from pixelcontrast.data.problems import raise_on_errors
from pixelcontrast.data.splits import read_split
from pixelcontrast.data.table import DATASET_SUMMARIES


@dataclass(frozen=True, slots=True)
class Layout:
    """One way a data set may lie on disk."""

    about: str
    """One line for lists and messages."""
    recognise: Callable[[Path], bool]
    """Whether a folder has this layout; looks at names and descriptions only."""
    open: Callable[[Path, Mapping[str, tuple[str, ...]]], SegDataset]
    """Lists a folder; the second argument replaces splits."""
    info: DatasetInfo | None = None
    """Classes and label map of a published data set."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Split -> number of images of the whole data set."""


DATASETS: Mapping[str, Layout] = {
    "camvid": Layout(
        DATASET_SUMMARIES["camvid"],
        camvid.is_tutorial_layout,
        camvid.list_tutorial_layout,
        camvid.TUTORIAL_INFO,
        camvid.PUBLISHED,
    ),
    "camvid32": Layout(
        DATASET_SUMMARIES["camvid32"],
        camvid.is_original_layout,
        camvid.list_original_layout,
        camvid.ORIGINAL_INFO,
        camvid.PUBLISHED,
    ),
    "cityscapes": Layout(
        DATASET_SUMMARIES["cityscapes"],
        cityscapes.is_cityscapes_layout,
        cityscapes.list_cityscapes_layout,
        cityscapes.INFO,
        cityscapes.PUBLISHED,
    ),
    "cityscapes27": Layout(
        DATASET_SUMMARIES["cityscapes27"],
        cityscapes.is_cityscapes_layout,
        cityscapes.list_cityscapes27_layout,
        cityscapes.INFO27,
        cityscapes.PUBLISHED,
    ),
    "pascal_context": Layout(
        DATASET_SUMMARIES["pascal_context"],
        pascal_context.is_pascal_context_layout,
        pascal_context.list_pascal_context_layout,
        pascal_context.INFO,
        pascal_context.PUBLISHED,
    ),
    "pascal_context60": Layout(
        DATASET_SUMMARIES["pascal_context60"],
        pascal_context.is_pascal_context_layout,
        pascal_context.list_pascal_context60_layout,
        pascal_context.INFO60,
        pascal_context.PUBLISHED,
    ),
    "voc": Layout(
        DATASET_SUMMARIES["voc"],
        voc.is_voc_layout,
        voc.list_voc_layout,
        voc.INFO,
        voc.PUBLISHED,
    ),
    "ade20k": Layout(
        DATASET_SUMMARIES["ade20k"],
        ade20k.is_ade20k_layout,
        ade20k.list_ade20k_layout,
        ade20k.INFO,
        ade20k.PUBLISHED,
    ),
    "coco_stuff10k": Layout(
        DATASET_SUMMARIES["coco_stuff10k"],
        coco.is_stuff10k_layout,
        coco.list_stuff10k_layout,
        coco.STUFF10K,
        coco.PUBLISHED10K,
    ),
    "coco_stuff": Layout(
        DATASET_SUMMARIES["coco_stuff"],
        coco.is_stuff_layout,
        coco.list_stuff_layout,
        coco.STUFF,
        coco.PUBLISHED,
    ),
    "coco_stuff27": Layout(
        DATASET_SUMMARIES["coco_stuff27"],
        coco.is_stuff_layout,
        coco.list_stuff27_layout,
        coco.STUFF27,
        coco.PUBLISHED_CURATED,
    ),
    "coco": Layout(
        DATASET_SUMMARIES["coco"],
        coco.is_coco_layout,
        coco.list_coco_layout,
        coco.COCO,
        coco.PUBLISHED,
    ),
    "scenes": Layout(
        DATASET_SUMMARIES["scenes"],
        folder.is_scenes_folder,
        folder.list_contract_folder,
    ),
    "folder": Layout(
        DATASET_SUMMARIES["folder"],
        folder.is_contract_folder,
        folder.list_contract_folder,
    ),
    "images": Layout(
        DATASET_SUMMARIES["images"],
        folder.is_image_folder,
        folder.list_image_folder,
    ),
}
"""Layout name -> layout, in the order in which they are tried."""


def recognise(root: str | Path) -> str:
    """The name of the layout that `root` has.

    Raises:
        DataError: when the folder does not exist or has none of the layouts.
    """
    root = data_folder(root)
    for name, layout in DATASETS.items():
        if layout.recognise(root):
            return name
    looked = "\n".join(f"    {name:16} {layout.about}" for name, layout in DATASETS.items())
    held = sorted(path.name for path in root.iterdir())
    shown = ", ".join(held[:8]) + (", ..." if len(held) > 8 else "") if held else "nothing"
    raise DataError(
        f"the folder has none of the known layouts; it holds {shown}",
        where=root.absolute(),
        fix=f"arrange it as one of\n{looked}",
    )


def refuse_unreadable(root: str | Path, name: str = "auto") -> None:
    """Refuse what the names of files and the description tell, before anything large is read.

    Raises:
        DataError: when the folder does not exist or has none of the layouts, or its description has
            a mistake.
        ConfigError: when `name` is unknown.
    """
    root = data_folder(root)
    if _layout_name(root, name) == "folder" and (path := root / folder.DESCRIPTION).is_file():
        read_description(path)


def open_dataset(
    root: str | Path,
    name: str = "auto",
    *,
    splits: Mapping[str, str | Path | Sequence[str]] | None = None,
    strict: bool = True,
) -> SegDataset:
    """The data set in a folder; files are listed, and only masks without class names are read.

    Args:
        root: the folder.
        name: a key of `DATASETS`, or `auto` to recognise the layout.
        splits: replaces splits: name -> ids, or a text file (absolute, or below the current
            folder, `root` or `root/splits`).
        strict: raise on errors found while listing; otherwise they stay in `problems`.

    Raises:
        DataError: when the folder has no known layout or no images, or, if `strict`, any error.
        ConfigError: when `name` is unknown.
    """
    root = data_folder(root)
    layout = DATASETS[_layout_name(root, name)]
    replaced = {split: _ids(given, root) for split, given in (splits or {}).items()}
    dataset = layout.open(root, replaced)
    if not dataset.samples:
        raise DataError("no images found", where=root.absolute(), fix=f"expected: {layout.about}")
    if strict:
        raise_on_errors(dataset.problems, root.absolute())
    return dataset


def _layout_name(root: Path, name: str) -> str:
    if name != "auto" and name not in DATASETS:
        raise unknown_name("data set", name, ["auto", *DATASETS])
    return recognise(root) if name == "auto" else name


def _ids(given: str | Path | Sequence[str], root: Path) -> tuple[str, ...]:
    if not isinstance(given, (str, Path)):
        return tuple(given)
    places = [Path(given).expanduser(), root / given, root / "splits" / given]
    for place in places:
        if place.is_file():
            return read_split(place)
    raise DataError(
        f"no split file {str(given)!r}", where=" or ".join(str(place) for place in places)
    )
