"""Everything that is decided before the first step: settings, data, network."""

from __future__ import annotations

import copy
import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.data import problem_lines
from pixelcontrast.engine.config import RunConfig, TrainConfig, parse_config, parse_section
from pixelcontrast.engine.folder import RunFolder, model_file
from pixelcontrast.engine.pseudo_labels import class_thresholds, require_unlabelled
from pixelcontrast.engine.sources import Sources, gather_sources, resolve_auto
from pixelcontrast.engine.stages import expanded
from pixelcontrast.engine.streams import epoch_steps, require_distortion
from pixelcontrast.methods import method_class
from pixelcontrast.methods.base import Method, Task
from pixelcontrast.models import build_segmentor, start_from
from pixelcontrast.recipes import load_recipe, override, set_value

_FEW = 5
"""Fewer validation images are warned of."""
_MAY_CHANGE_ON_RESUME = frozenset(
    {
        "data.root",
        "data.workers",
        "data.cache",
        "data.cache_folder",
        "data.check",
        "train.device",
        "train.devices",
        "train.nodes",
        "train.log_every",
    }
)


def assemble(
    recipe: str | Mapping[str, Any],
    overrides: Sequence[str],
    sections: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The configuration tree of a recipe with sections and overrides applied, in this order."""
    tree = load_recipe(recipe) if isinstance(recipe, str) else copy.deepcopy(dict(recipe))
    for key, value in _flat(sections):
        set_value(tree, key, value)
    return override(tree, overrides)


def command_for(
    recipe: str | Mapping[str, Any],
    overrides: Sequence[str],
    sections: Mapping[str, Mapping[str, Any]],
    folder: RunFolder,
) -> str:
    """The command line that trains a run anew, wherever it was started from."""
    given = [f"{key}={json.dumps(value, default=str)}" for key, value in _flat(sections)]
    settings = [*given, *overrides]
    if not isinstance(recipe, str):  # a configuration in memory; the run has it whole
        recipe, settings = str(folder.config), []
    words = ["pixelcontrast", "train", recipe, *settings, "--out", str(folder.root)]
    return shlex.join(words)


def stored_tree(
    folder: RunFolder,
    tree: Mapping[str, Any],
    overrides: Sequence[str],
    sections: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The configuration of a run that goes on, with the few changes that cannot alter it.

    Raises:
        CheckpointError: there is nothing to resume.
        ConfigError: a setting is asked for that would make it another run.
    """
    folder.require_checkpoint()
    stored = folder.read_config()
    wanted = [item.partition("=")[0] for item in overrides] + [key for key, _ in _flat(sections)]
    for key in wanted:
        value, before = _value_at(tree, key), _value_at(stored, key)
        if key in _MAY_CHANGE_ON_RESUME:
            set_value(stored, key, value)
        elif value not in (before, "auto"):
            raise ConfigError(
                f"a resumed run cannot change {key} from {before!r} to {value!r}",
                where=folder.config,
                fix="leave it out, or start a new run with --out FOLDER",
            )
    return stored


def prepare(tree: dict[str, Any]) -> tuple[RunConfig, Sources, list[str]]:
    """Refuse bad settings, then open and check the data, then fill in what depends on it.

    Returns:
        The configuration, the images, and sentences about automatic values and oddities.

    Raises:
        ConfigError: unknown keys or unfit values.
        DataError: data that cannot be used.
    """
    sources = gather_sources(refuse_unknown(tree).data)
    stages = expanded(tree)
    notes = resolve_epochs(tree, sources) + resolve_auto_steps(tree) + resolve_auto(tree, sources)
    if stages:  # the run's own sections only fill what the stages leave open
        notes = []
    for name, stage in zip(tree.get("stages") or (), stages, strict=True):
        found = resolve_epochs(stage, sources) + resolve_auto_steps(stage)
        found += resolve_auto(stage, sources)
        notes += [f"stage {name}: {note}" for note in found]
    if sources.report is not None:
        notes += problem_lines(sources.report.warnings)
    if not sources.val:
        notes.append("no validation image has a mask: networks are not scored during training")
    elif (count := len(sources.val)) < _FEW:
        images = "image" if count == 1 else "images"
        notes.append(
            f"the score of {count} validation {images} says little, and the best network is "
            "chosen by it: list more ids in splits/val.txt"
        )
    config = parse_config(tree)
    for part in (stage.config for stage in config.stages) if config.stages else (config,):
        _refuse_endless_warmup(part)
    _refuse_unlabelling(config, sources)
    return config, sources, notes


def refuse_unknown(tree: Mapping[str, Any]) -> RunConfig:
    """The configuration with defaults in place of what only the data can tell.

    Raises:
        ConfigError: unknown keys or unfit values.
    """
    draft = copy.deepcopy(dict(tree))
    for part in (draft, *expanded(draft)):
        resolve_auto_steps(part)
        if (part.get("view") or {}).get("crop") == "auto":
            del part["view"]["crop"]
        if _value_at(part, "eval.inference.scales") == "auto":
            del part["eval"]["inference"]["scales"]
        if _value_at(part, "method.segmentation.class_weights") == "median_frequency":
            del part["method"]["segmentation"]["class_weights"]
    return parse_config(draft)


def resolve_epochs(tree: dict[str, Any], sources: Sources) -> list[str]:
    """Replace `train.epochs` by the steps that show every image so often.

    Raises:
        ConfigError: the length is given twice.
    """
    train = tree.get("train") or {}
    epochs = train.get("epochs")
    if epochs is None:
        return []
    if "steps" in train:
        raise ConfigError(
            f"the length is given twice, as {epochs} epochs and as {train['steps']} steps",
            where="train.epochs",
            fix="set train.epochs=null",
        )
    config = parse_section(TrainConfig, train, "train")
    streams = method_class(tree["method"]["name"]).streams
    one = epoch_steps(config, sources, streams)
    train["epochs"], train["steps"] = None, epochs * one
    for key in ("validate_every", "checkpoint_every"):
        train.setdefault(key, one)
    return [f"train.steps = {train['steps']}: {epochs} epochs of {one} steps"]


def resolve_auto_steps(tree: dict[str, Any]) -> list[str]:
    """Replace `auto` warm-ups by a share of the run: 1/10 before contrast, 1/50 of the rate."""
    steps = _value_at(tree, "train.steps")
    if steps is None:
        steps = TrainConfig().steps
    if not isinstance(steps, int):
        steps = 0  # parsing says what is wrong with it
    notes = []
    for section, share in (("method", 10), ("optim", 50)):
        values = tree.get(section)
        if isinstance(values, dict) and values.get("warmup_steps") == "auto":
            values["warmup_steps"] = steps // share
            notes.append(f"{section}.warmup_steps = {steps // share}: 1/{share} of train.steps")
    return notes


def _refuse_endless_warmup(config: RunConfig) -> None:
    """A warm-up as long as the run would make the method another one, silently."""
    for section in ("method", "optim"):
        warmup = getattr(getattr(config, section), "warmup_steps", 0)
        if warmup >= config.train.steps:
            raise ConfigError(
                f"{section}.warmup_steps = {warmup} leaves nothing of {config.train.steps} steps",
                where=f"{section}.warmup_steps",
                fix=f"set {section}.warmup_steps={config.train.steps // 10}, "
                f"or train.steps above {warmup}",
            )


def _refuse_unlabelling(config: RunConfig, sources: Sources) -> None:
    """Stages that label images need a network that was trained to, and images without masks."""
    before: str | None = None
    for stage in config.stages:
        if stage.settings.pseudo_labels is not None:
            if before is None or not _knows_classes(before):
                raise ConfigError(
                    "pseudo-labels need a stage before that trains class scores",
                    where=f"stages.{stage.name}.pseudo_labels",
                    fix="put a stage with method.name=supervised before it",
                )
            class_thresholds(stage.settings.pseudo_labels, sources.dataset.info)
            require_unlabelled(sources)
        before = stage.config.method_name


def _knows_classes(name: str) -> bool:
    """Whether a method trains scores of the data set's own classes."""
    cls = method_class(name)
    return cls.classifies and not cls.finds_clusters


def build_method(
    config: RunConfig,
    sources: Sources,
    *,
    weights_follow: bool = False,
    start: Path | None = None,
) -> tuple[Method, list[str]]:
    """The method of a configuration with its network, on the CPU, and what its weights are.

    Args:
        config: the run, or one stage of it.
        sources: its data.
        weights_follow: a checkpoint will be loaded, so no other weights are.
        start: the model file to begin with, in place of the weights of `config.model`.

    Raises:
        CheckpointError: the first weights are missing, or belong to another network.
        ConfigError: the settings do not fit the network.
        DataError: the method cannot learn from this data.
    """
    cls = method_class(config.method_name)
    info = sources.dataset.info
    if not sources.labeled and any(stream.labelled for stream in cls.streams):
        raise DataError(
            f"method {config.method_name!r} needs labelled images and there are none",
            where=sources.dataset.root,
            fix="add masks, or choose a method that learns without: pixelcontrast list methods",
        )
    names = cls.output_names(config.method, info.classes)
    if len(names) < 2:
        raise DataError(
            f"the data set declares {info.num_classes} class; segmentation needs at least 2",
            where=sources.dataset.root,
            fix="name all classes, background included, in dataset.yaml",
        )
    require_distortion(config, cls.streams)
    head = cls.embedding_head(config.method)
    model = config.model
    if start is None and model.init is not None:
        start = model_file(model.init)
    if weights_follow or start is not None:
        model = dataclasses.replace(model, pretrained=False, weights_file=None)
    segmentor = build_segmentor(model, len(names), embedding=head)
    notes = []
    if start is not None and not weights_follow:
        notes.append(start_from(segmentor, start, names))
    task = Task(
        num_classes=len(names),
        ignore_index=info.ignore_index,
        total_steps=config.train.steps,
        seed=config.seed,
        ema_decay=config.train.ema,
        num_images=len(sources.labeled),
        epoch_steps=epoch_steps(config.train, sources, cls.streams),
        crop=config.view.crop,
    )
    return cls(config.method, segmentor, task, config.optim), notes


def _flat(sections: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and plain values of nested sections."""
    pairs: list[tuple[str, Any]] = []
    for key, value in sections.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, str(value) if isinstance(value, Path) else value))
    return pairs


def _value_at(tree: Mapping[str, Any], key: str) -> Any:
    node: Any = tree
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
