"""Reading a run folder, whatever state the run left it in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pixelcontrast.core.errors import DataError
from pixelcontrast.evaluation import SegScores

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
class SplitResult:
    """Scores and pictures of one split."""

    split: str
    step: int | None
    protocol: Mapping[str, Any]
    scores: SegScores
    names: tuple[str, ...]
    images: tuple[ImageEntry, ...]


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
    )


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
