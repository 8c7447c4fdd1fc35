"""The typed configuration of a run, assembled from the parts' own dataclasses."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from pixelcontrast.core.errors import ConfigError, did_you_mean
from pixelcontrast.data.colour import ColourConfig
from pixelcontrast.data.views import ViewConfig
from pixelcontrast.engine.stages import (
    StageConfig,
    stage_changes,
    stage_settings,
    stage_trees,
)
from pixelcontrast.evaluation import InferenceConfig
from pixelcontrast.methods import method_class
from pixelcontrast.methods.contrast import ContrastChoice, contrast_class
from pixelcontrast.methods.optim import OptimConfig
from pixelcontrast.models import ModelConfig


@dataclass(frozen=True, slots=True)
class ScenesConfig:
    """Size of the generated data set `scenes`, made when its folder does not exist yet."""

    train: int = 200
    val: int = 50
    test: int = 50
    size: tuple[int, int] = (96, 128)
    seed: int = 0
    hard: bool = True


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which images, which masks, how they are read."""

    root: Path | None = None
    """Folder of the data set."""
    name: str = "auto"
    """Layout of the folder; `auto` recognises it."""
    train: str = "train"
    """Split to train on."""
    val: str = "val"
    """Split that is scored during training."""
    labeled: str | int | float | None = None
    """Training images whose masks may be used: a split by name, a count, or a fraction below 1;
    None: those the data set lists as `labeled`, else all that have a mask."""
    labeled_seed: int = 0
    """Seed of the choice when `labeled` is a count or a fraction."""
    workers: int | Literal["auto"] = "auto"
    """Processes per stream that read and augment images; 0 reads in the main process; `auto`
    leaves one core to training and takes at most 8."""
    cache: Literal["none", "memory", "disk"] = "none"
    """Keep decoded images, so that PNG and JPEG decoding is paid once."""
    cache_folder: Path | None = None
    """Folder of the disk cache; runs can share it, and it can be deleted between them."""
    hidden_masks: bool = False
    """Log how good pseudo-labels are, by the masks that unlabelled images happen to have. Nothing
    is trained on them; without this they are not even opened."""
    check: bool = True
    """Read every mask before the first step."""
    scenes: ScenesConfig = field(default_factory=ScenesConfig)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How long, on what, and how often something is saved."""

    steps: int = 40_000
    """Optimiser steps."""
    epochs: int | None = None
    """Showings of every training image, in place of `steps`. Validations and checkpoints then come
    at the end of every epoch unless they are set."""
    batch: int = 8
    """Images per step over all processes, per stream."""
    batch_unlabeled: int | None = None
    """The same for unlabelled streams; None: as many as labelled."""
    accumulate: int = 1
    """Batches whose gradients are summed into one optimiser step."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | Literal["auto"] = "auto"
    """Processes on this node: GPUs, or CPU processes. `auto`: all GPUs, or one CPU process."""
    nodes: int = 1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: bf16 on GPUs that have it, else fp32."""
    compile: bool = False
    """Compile the network with torch.compile."""
    channels_last: bool = False
    """Store feature maps channels-last, which convolutions on recent GPUs prefer."""
    deterministic: bool = False
    """Refuse operations whose result can differ between runs."""
    ema: float | None = None
    """Decay of averaged weights that are scored beside the trained ones; None: none."""
    validate_every: int = 1000
    """Steps between validations; the best network by mIoU is kept."""
    checkpoint_every: int = 500
    """Steps between checkpoints to resume from."""
    log_every: int = 20
    """Steps between lines in metrics.jsonl."""


@dataclass(frozen=True, slots=True)
class EvalConfig:
    """How networks are scored."""

    batch: int = 4
    """Images of equal size per forward pass."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    protocol: str | None = None
    """How clusters are scored, a key of `evaluation.protocols.PROTOCOLS`; None: whole images and
    the classes of the data set."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything about a run."""

    name: str
    seed: int
    data: DataConfig
    view: ViewConfig
    strong: ColourConfig
    model: ModelConfig
    method_name: str
    method: Any
    optim: OptimConfig
    train: TrainConfig
    eval: EvalConfig
    stages: tuple[Stage, ...] = ()
    """The stages that are run in place of the settings above; empty for a plain run."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run, with all it is run by."""

    name: str
    settings: StageConfig
    config: RunConfig


_SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "view": ViewConfig,
    "strong": ColourConfig,
    "model": ModelConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
    "eval": EvalConfig,
}


def parse_config(tree: dict[str, Any]) -> RunConfig:
    """The typed configuration of a nested dictionary.

    Raises:
        ConfigError: an unknown section, key or method, or a value of the wrong kind.
    """
    known = {"name", "seed", "method", "stages", *_SECTIONS}
    for key in tree:
        if key not in known:
            raise ConfigError(f"unknown section {key!r}", fix=did_you_mean(key, known))
    settings = tree.get("method") or {}
    if not isinstance(settings, dict):
        raise ConfigError(
            f"method is a section, got {settings!r}",
            where="method",
            fix=f"set method.name={settings}",
        )
    method = dict(settings)
    method_name = method.pop("name", None)
    if not isinstance(method_name, str):
        raise ConfigError("no method is named", where="method.name", fix="set method.name=pico")
    cls = method_class(method_name)
    sections = {
        name: parse_section(kind, tree.get(name) or {}, name) for name, kind in _SECTIONS.items()
    }
    name = str(tree.get("name", method_name))
    return RunConfig(
        name=name,
        seed=parse_section(int, tree.get("seed", 0), "seed"),
        method_name=method_name,
        method=parse_method(cls.Config, method),
        stages=tuple(_parse_stage(tree, name, *item) for item in stage_trees(tree).items()),
        **sections,
    )


def _parse_stage(tree: dict[str, Any], run_name: str, name: str, stage: dict[str, Any]) -> Stage:
    path = f"stages.{name}"
    settings = parse_section(StageConfig, stage_settings(tree, name), path)
    try:
        return Stage(name, settings, parse_config({"name": run_name, **stage}))
    except ConfigError as error:
        raise ConfigError(
            f"in stage {name!r}: {error.what}", where=f"{path}.{error.where}", fix=error.fix
        ) from error


def parse_method(kind: type, values: dict[str, Any]) -> Any:
    """A method's settings, with those of its contrast term read by the term's name.

    Raises:
        ConfigError: unknown key, term or method without a place for a term, or unfit value.
    """
    chosen = values.get("contrast")
    if not isinstance(chosen, dict) or "contrast" not in {f.name for f in dataclasses.fields(kind)}:
        return parse_section(kind, values, "method")
    settings = dict(chosen)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(
            "no contrast term is named",
            where="method.contrast",
            fix="set method.contrast.name, for example to pico, or method.contrast=null",
        )
    parsed = parse_section(contrast_class(name).Config, settings, "method.contrast")
    return parse_section(kind, {**values, "contrast": ContrastChoice(name, parsed)}, "method")


def dump_config(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values that `parse_config` reads back."""
    tree: dict[str, Any] = {"name": config.name, "seed": config.seed}
    for name in ("data", "view", "strong", "model", "method", "optim", "train", "eval"):
        section = getattr(config, name)
        plain = TypeAdapter(type(section)).dump_python(section, mode="json")
        if name == "method":
            if plain.get("contrast"):
                chosen = plain["contrast"]
                plain["contrast"] = {"name": chosen["name"], **chosen["config"]}
            plain = {"name": config.method_name, **plain}
        tree[name] = plain
    if config.stages:
        tree["stages"] = {stage.name: _dump_stage(tree, stage) for stage in config.stages}
    return tree


def _dump_stage(base: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """What the stage changes, so that the rest follows the run's own sections."""
    settings = TypeAdapter(StageConfig).dump_python(stage.settings, mode="json")
    return {**settings, **stage_changes(base, dump_config(stage.config))}


def parse_section(kind: type, value: Any, path: str) -> Any:
    """`value` as an instance of `kind`, with errors that name the key and what is known.

    Raises:
        ConfigError: unknown key or unfit value.
    """
    if dataclasses.is_dataclass(kind):
        _check_keys(kind, value, path)
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([path, *(str(p) for p in first["loc"] if _is_key(p))])
        raise ConfigError(
            f"cannot use {first['input']!r} for {where}: {first['msg'].lower()}", where=where
        ) from error


def _is_key(part: int | str) -> bool:
    """Leave out the tags pydantic adds for the members of a union."""
    return isinstance(part, str) and part.isidentifier() and part not in {"int", "float", "str"}


def _check_keys(kind: type, value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is a section, got {value!r}", where=path)
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    for key, inner in value.items():
        if key not in names:
            raise ConfigError(
                f"unknown key {f'{path}.{key}'!r}", where=path, fix=did_you_mean(str(key), names)
            )
        nested = _dataclass_of(hints[key])
        if nested is not None and isinstance(inner, dict):
            _check_keys(nested, inner, f"{path}.{key}")


def _dataclass_of(hint: Any) -> type | None:
    """The dataclass in a type hint `X` or `X | None`."""
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        found = [h for h in typing.get_args(hint) if _is_dataclass(h)]
        return found[0] if found else None
    return hint if _is_dataclass(hint) else None


def _is_dataclass(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)
