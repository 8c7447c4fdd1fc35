"""From a configuration to the images a run works on: open, check, choose, describe."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.data import (
    CheckReport,
    Sample,
    SegDataset,
    ViewConfig,
    check_dataset,
    count_classes,
    full_name,
    image_size,
    make_scenes,
    make_split,
    open_dataset,
    published_list,
    split_hash,
)

if TYPE_CHECKING:
    from pixelcontrast.engine.config import DataConfig

_LARGEST_AUTO_CROP = 512


@dataclass(frozen=True, slots=True)
class Sources:
    """The images of a run."""

    dataset: SegDataset
    labeled: tuple[Sample, ...]
    """Training images whose masks are used."""
    unlabeled: tuple[Sample, ...]
    """The other training images; a mask they may have is never trained on."""
    val: tuple[Sample, ...]
    """Images scored during training; empty when none has a mask."""
    report: CheckReport | None
    """What checking the data found; None when it was switched off."""
    labeled_name: str | None = None
    """Name of the list that chose `labeled`, if a list did."""

    def describe(self) -> dict[str, Any]:
        """The data set as the run's record stores it."""
        info = self.dataset.info
        splits = {"labeled": self.labeled, "unlabeled": self.unlabeled, "val": self.val}
        described: dict[str, Any] = {
            "name": info.name,
            "root": str(self.dataset.root),
            "classes": list(info.classes),
            "palette": [list(colour) for colour in info.palette],
            "ignore_index": info.ignore_index,
            "splits": {
                name: {"count": len(samples), "sha256": split_hash([s.id for s in samples])}
                for name, samples in splits.items()
            },
        }
        if self.labeled_name is not None:
            described["splits"]["labeled"]["name"] = self.labeled_name
        if self.report is not None:
            classes = self.report.stats.classes
            described["statistics"] = {
                "pixels": [c.pixels for c in classes],
                "images": [c.images for c in classes],
                "rare": list(self.report.stats.rare),
                "unlabelled": len(self.unlabeled),
            }
        return described


def open_data(config: DataConfig) -> SegDataset:
    """The data set a configuration names; the generated one is made when its folder is missing.

    Raises:
        ConfigError: no folder is given.
        DataError: the folder is missing or not recognised.
    """
    if config.root is None:
        raise ConfigError(
            "no data set is given",
            where="data.root",
            fix="set data.root=FOLDER or use --data FOLDER",
        )
    root = config.root.expanduser()
    if config.name == "scenes":
        if not root.exists():
            scenes = config.scenes
            make_scenes(
                root,
                train=scenes.train,
                val=scenes.val,
                test=scenes.test,
                size=scenes.size,
                seed=scenes.seed,
                hard=scenes.hard,
            )
        return open_dataset(root, "folder", strict=not config.check)
    return open_dataset(root, config.name, strict=not config.check)


def gather_sources(config: DataConfig) -> Sources:
    """Open, check and split the data of a training run.

    Raises:
        DataError: the data has errors (all of them are listed), or a split is empty.
    """
    dataset, labeled_name = _with_labels(open_data(config), config)
    report = None
    if config.check:
        report = check_dataset(dataset)
        report.raise_on_errors(dataset.root)
    train = dataset.select(config.train)
    val = dataset.select(config.val) if dataset.splits.get(config.val) else ()
    chosen = set(dataset.splits.get("labeled", ()))
    listed = dataset.select("unlabeled") if dataset.splits.get("unlabeled") else ()
    rest = {s.id: s for s in (*train, *listed) if s.id not in chosen}
    return Sources(
        dataset=dataset,
        labeled=tuple(s for s in dataset.select("labeled") if s.mask is not None) if chosen else (),
        unlabeled=tuple(rest.values()),
        val=tuple(s for s in val if s.mask is not None),
        report=report,
        labeled_name=labeled_name,
    )


def _with_labels(dataset: SegDataset, config: DataConfig) -> tuple[SegDataset, str | None]:
    """The data set whose split `labeled` lists the images whose masks may be used; its name."""
    wanted = config.labeled
    if not isinstance(wanted, str):
        return _with_drawn_labels(dataset, config), None
    if wanted in dataset.splits:
        return dataset.with_splits({"labeled": [s.id for s in dataset.select(wanted)]}), wanted
    name = full_name(wanted, dataset.info.name)
    # The list is tried under its own name first, for the message about images that are missing.
    ids = dataset.with_splits({name: published_list(name)}).splits[name]
    return dataset.with_splits({"labeled": ids}), name


def _with_drawn_labels(dataset: SegDataset, config: DataConfig) -> SegDataset:
    wanted = config.labeled
    if wanted is None and "labeled" in dataset.splits:
        return dataset
    if wanted is None and not any(s.mask for s in dataset.select(config.train)):
        return dataset
    if wanted is None:
        masked = [s.id for s in dataset.select(config.train) if s.mask is not None]
        return dataset.with_splits({"labeled": masked})
    amount: dict[str, Any] = {"count" if isinstance(wanted, int) else "fraction": wanted}
    split = make_split(
        dataset, count_classes(dataset), of=config.train, seed=config.labeled_seed, **amount
    )
    return dataset.with_splits({"labeled": split.ids})


def resolve_auto(tree: dict[str, Any], sources: Sources) -> list[str]:
    """Replace `auto` values in a configuration tree by what the data asks for.

    Returns:
        One sentence per value, for the log and the report.
    """
    notes = []
    view = tree.setdefault("view", {})
    if view.get("crop") == "auto":
        height, width = _median_size(sources)
        crop = [min(_LARGEST_AUTO_CROP, height), min(_LARGEST_AUTO_CROP, width)]
        view["crop"] = crop
        notes.append(f"view.crop = {crop}: the median image size, at most {_LARGEST_AUTO_CROP}")
    inference = (tree.get("eval") or {}).get("inference") or {}
    if inference.get("scales") == "auto":
        sides = zip(view.get("crop", ViewConfig().crop), _median_size(sources), strict=True)
        scale = round(max(wanted / side for wanted, side in sides), 3)
        inference["scales"] = [scale]
        notes.append(f"eval.inference.scales = [{scale}]: the size of images in training")
    segmentation = (tree.get("method") or {}).get("segmentation") or {}
    if segmentation.get("class_weights") == "median_frequency":
        weights = median_frequency_weights(sources)
        segmentation["class_weights"] = weights
        notes.append(f"class_weights = {weights}: median class frequency over own frequency")
    return notes


def _median_size(sources: Sources) -> tuple[int, int]:
    """Median (height, width) of the training images."""
    sizes = [image_size(s.image) for s in _spread(sources.labeled or sources.unlabeled, 50)]
    height, width = (int(median(size[axis] for size in sizes)) for axis in (0, 1))
    return height, width


def median_frequency_weights(sources: Sources) -> list[float]:
    """Weight per class: median class frequency over own frequency (SegNet); 0 for absent classes.

    Raises:
        ConfigError: the masks were not counted because checking is switched off.
    """
    if sources.report is None:
        raise ConfigError(
            "class_weights=median_frequency needs the class counts", fix="set data.check=true"
        )
    pixels = [c.pixels for c in sources.report.stats.classes]
    present = [count for count in pixels if count]
    middle = median(present) if present else 0.0
    return [round(middle / count, 4) if count else 0.0 for count in pixels]


def _spread(samples: tuple[Sample, ...], count: int) -> list[Sample]:
    """At most `count` samples, evenly over the list."""
    step = max(1, len(samples) // count)
    return list(samples[::step])[:count]
