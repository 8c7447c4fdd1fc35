"""Reading a run folder, whatever state the run left it in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pixelcontrast.core.errors import DataError
from pixelcontrast.evaluation import BoundaryScores, FeatureScores, SegScores

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image of an evaluation."""

    id: str
    miou: float | None
    accuracy: float | None
    role: str | None
    """`panel`, `worst` or None."""
    files: Mapping[str, Path]
    """`image`, `truth` and `pred`; empty where no pictures were kept."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """Features of one layer as points in the plane."""

    layer: str
    labels: tuple[int, ...]
    pca: tuple[tuple[float, float], ...]
    pca_share: float | None
    """Of the variance that the two principal components hold."""
    tsne: tuple[tuple[float, float], ...]
    """Empty where it was not computed."""


@dataclass(frozen=True, slots=True)
class SplitResult:
    """Scores and pictures of one split."""

    split: str
    step: int | None
    protocol: Mapping[str, Any]
    scores: SegScores
    names: tuple[str, ...]
    images: tuple[ImageEntry, ...]
    boundary: BoundaryScores | None = None
    features: tuple[FeatureScores, ...] = ()
    instances: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Tables of instance-weighted scores by name; empty where the data has no instances."""
    embeddings: tuple[Embedding, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Everything a run folder tells. Missing parts are empty; damaged ones are listed."""

    folder: Path
    record: Mapping[str, Any]
    config: Mapping[str, Any]
    train: tuple[Line, ...]
    val: tuple[Line, ...]
    results: tuple[SplitResult, ...]
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the user called it."""
        return str(self.record.get("name") or self.folder.name)

    @property
    def method(self) -> str:
        """Key of the method."""
        return str(self.record.get("method") or self.get("method.name") or "unknown method")

    @property
    def seed(self) -> int | None:
        """The seed of the run."""
        value = self.record.get("seed", self.config.get("seed"))
        return value if isinstance(value, int) else None

    @property
    def finished(self) -> bool:
        """Whether training came to its planned end."""
        return self.record.get("status") == "finished"

    @property
    def result(self) -> SplitResult | None:
        """The evaluation the report speaks of: on the validation split, else the first one."""
        wanted = self.get("data.val")
        first = self.results[0] if self.results else None
        return next((result for result in self.results if result.split == wanted), first)

    @property
    def best(self) -> Mapping[str, Any]:
        """Step, mIoU and network of the best validation."""
        return mapping(self.record.get("best"))

    @property
    def miou(self) -> float | None:
        """The headline: of the evaluation, else of the best validation during training."""
        return self.result.scores.miou if self.result else number(self.best.get("miou"))

    @property
    def dataset(self) -> Mapping[str, Any]:
        """What the record says about the data."""
        return mapping(self.record.get("dataset"))

    @property
    def data_name(self) -> str:
        """Name of the data set; empty where it is not known."""
        name = self.dataset.get("name") or self.get("data.name")
        return name if isinstance(name, str) else ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, from the record or the evaluation."""
        names = self.dataset.get("classes")
        if isinstance(names, list):
            return tuple(map(str, names))
        return self.result.names if self.result else ()

    def get(self, path: str) -> Any:
        """A value of the configuration by dotted path; None where it is missing."""
        value: Any = self.config
        for key in path.split("."):
            value = mapping(value).get(key)
        return value


def read_run(folder: Path) -> Run:
    """Reads a run folder.

    Raises:
        DataError: the folder does not exist or holds no run.
    """
    if not (folder / "run.json").is_file():
        raise DataError(
            "there is no run in this folder (no run.json)",
            where=folder.absolute(),
            fix="give the folder that `pixelcontrast train` wrote, for example runs/NAME",
        )
    problems: list[str] = []
    record = _read_mapping(folder / "run.json", problems)
    config = _read_mapping(folder / "config.yaml", problems)
    lines = _read_lines(folder / "metrics.jsonl", problems)
    for stage in mapping(config.get("stages")):
        lines += _stage_lines(folder / "stages" / str(stage), str(stage))
    paths = sorted(folder.glob("evaluation/*/scores.json"))
    results = [result for path in paths if (result := _read_result(path, problems))]
    return Run(
        folder=folder,
        record=record,
        config=config,
        train=tuple(line for line in lines if line.get("kind") == "train"),
        val=tuple(line for line in lines if line.get("kind") == "val"),
        results=tuple(results),
        problems=tuple(problems),
    )


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """`value` as a finite float, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _read_mapping(path: Path, problems: list[str]) -> Mapping[str, Any]:
    """A JSON or YAML file (JSON is YAML) as a mapping; a problem and {} where it is none."""
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
        return {}
    except (OSError, ValueError, yaml.YAMLError):
        problems.append(f"{path.name} is damaged and was left out")
        return {}
    if not isinstance(value, Mapping):
        problems.append(f"{path.name} holds no settings and was left out")
        return {}
    return value


def _read_lines(path: Path, problems: list[str]) -> list[Line]:
    """The log lines in step order. Half a line at the end is normal: the run was killed."""
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        problems.append(f"{path.name} is missing: no curves")
        return []
    lines: list[Line] = []
    damaged = 0
    for place, text in enumerate(texts):
        try:
            line = json.loads(text)
        except ValueError:
            damaged += place < len(texts) - 1
            continue
        if isinstance(line, dict) and number(line.get("step")) is not None:
            lines.append(line)
    if damaged:
        problems.append(f"{damaged} damaged lines of {path.name} were left out")
    return sorted(lines, key=lambda line: float(line["step"]))


def _stage_lines(folder: Path, stage: str) -> list[Line]:
    """Losses and statistics of an earlier stage, by names that begin with that of the stage."""
    path = folder / "metrics.jsonl"
    lines = _read_lines(path, []) if path.is_file() else []
    return [
        {
            "stage": stage,
            **{k: v for k, v in line.items() if k in ("kind", "step", "seconds")},
            **{
                f"{kind}/{stage}/{name}": value
                for key, value in line.items()
                if (kind := key.partition("/")[0]) in ("loss", "stat")
                and (name := key.partition("/")[2])
            },
        }
        for line in lines
        if line.get("kind") == "train"
    ]


def _read_result(path: Path, problems: list[str]) -> SplitResult | None:
    shown = f"evaluation/{path.parent.name}/{path.name}"
    before = len(problems)
    values = _read_mapping(path, problems)
    if len(problems) > before:
        problems[before:] = [f"{shown} is damaged and was left out"]
        return None
    stored = mapping(values.get("scores"))
    try:
        scores = SegScores.from_dict(stored)
    except (ValueError, TypeError, RuntimeError):
        problems.append(f"{shown} holds no usable scores and was left out")
        return None
    rows = stored.get("classes")
    rows = rows if isinstance(rows, list) else []
    names = [str(mapping(row).get("name", "?")) for row in rows[: scores.num_classes]]
    names += [f"class {c}" for c in range(len(names), scores.num_classes)]
    images = values.get("images")
    step = values.get("step")
    return SplitResult(
        split=str(values.get("split") or path.parent.name),
        step=step if isinstance(step, int) else None,
        protocol=mapping(values.get("protocol")),
        scores=scores,
        names=tuple(names),
        images=tuple(
            _image_entry(mapping(image), path.parent)
            for image in (images if isinstance(images, list) else [])
        ),
        boundary=_read_boundary(values.get("boundary"), scores.num_classes),
        features=_read_features(values.get("features"), scores.num_classes, shown, problems),
        instances={k: mapping(v) for k, v in mapping(values.get("instances")).items()},
        embeddings=_read_embeddings(path.with_name("embedding.json"), scores.num_classes),
    )


def _read_boundary(values: Any, classes: int) -> BoundaryScores | None:
    distance = number(mapping(values).get("distance"))
    if distance is None:
        return None
    try:
        scores = SegScores.from_dict(values)
    except (ValueError, TypeError, RuntimeError):
        return None
    return BoundaryScores(distance, scores) if scores.num_classes == classes else None


def _read_features(
    values: Any, classes: int, shown: str, problems: list[str]
) -> tuple[FeatureScores, ...]:
    try:
        found = [FeatureScores.from_dict(layer) for layer in values or ()]
    except (KeyError, TypeError, ValueError, AttributeError):
        problems.append(f"{shown} holds unusable feature scores, which were left out")
        return ()
    return tuple(layer for layer in found if len(layer.classes) == classes)


def _read_embeddings(path: Path, classes: int) -> tuple[Embedding, ...]:
    """The pictures whose every part has the same length; others are as good as missing."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    found = []
    for entry in map(mapping, stored if isinstance(stored, list) else []):
        labels = entry.get("labels")
        pca, tsne = _points(entry.get("pca")), _points(entry.get("tsne"))
        if (
            isinstance(labels, list)
            and all(isinstance(label, int) and 0 <= label < classes for label in labels)
            and len(pca) == len(labels)
            and len(tsne) in (0, len(labels))
        ):
            layer, share = str(entry.get("layer", "?")), number(entry.get("pca_share"))
            found.append(Embedding(layer, tuple(labels), pca, share, tsne))
    return tuple(found)


def _points(values: Any) -> tuple[tuple[float, float], ...]:
    """Pairs of finite numbers; empty unless all are."""
    found = []
    for pair in values if isinstance(values, list) else []:
        x, y = map(number, pair) if isinstance(pair, list) and len(pair) == 2 else (None, None)
        if x is None or y is None:
            return ()
        found.append((x, y))
    return tuple(found)


def _image_entry(values: Mapping[str, Any], folder: Path) -> ImageEntry:
    """An image's scores and the pictures that exist inside `folder`, and nowhere else."""
    files = {}
    for kind in ("image", "truth", "pred"):
        name = mapping(values.get("files")).get(kind)
        if isinstance(name, str):
            path = (folder / name).resolve()
            if path.is_relative_to(folder.resolve()) and path.is_file():
                files[kind] = path
    return ImageEntry(
        id=str(values.get("id", "?")),
        miou=number(values.get("miou")),
        accuracy=number(values.get("accuracy")),
        role=values.get("role") if values.get("role") in ("panel", "worst") else None,
        files=files if len(files) == 3 else {},
    )
