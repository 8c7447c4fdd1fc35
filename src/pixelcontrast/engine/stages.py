"""Runs of several stages, as they are written: a recipe's section `stages`.

    stages:
      pretrain:
        method: {name: label_pretrain}
        train: {steps: 2000}
      finetune:
        method: {name: supervised}

Stages run in this order, each from the network that the one before it left. What a stage does not
say is taken from the recipe's own sections; a method of another name starts from its defaults.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pixelcontrast.core.errors import ConfigError, did_you_mean
from pixelcontrast.engine.pseudo_labels import PseudoLabelConfig

Tree = dict[str, Any]

SECTIONS = ("view", "strong", "method", "optim", "train")
"""What a stage may change. Data, network and evaluation belong to the whole run."""
_NAMED = ("method", "contrast")


@dataclass(frozen=True, slots=True)
class StageConfig:
    """What sets a stage apart besides the sections it changes."""

    start: Literal["previous", "initial"] = "previous"
    """Begin with the network of the stage before, or with the weights the run began with."""
    pseudo_labels: PseudoLabelConfig | None = None
    """Before this stage, label the unlabelled images with the network of the stage before. This
    stage and those after it learn from them as well."""


def stage_trees(tree: Mapping[str, Any]) -> dict[str, Tree]:
    """The whole configuration of every stage by its name, in order; empty for a plain run.

    Raises:
        ConfigError: stages of an impossible form or name, or an unknown section.
    """
    stages = tree.get("stages") or {}
    if not isinstance(stages, Mapping):
        raise ConfigError(
            f"stages is a section, got {stages!r}",
            where="stages",
            fix="write one entry a stage: its name and the sections it changes",
        )
    base = {key: value for key, value in tree.items() if key != "stages"}
    trees = {}
    for name, changes in stages.items():
        where = f"stages.{name}"
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)):
            raise ConfigError(f"cannot call a stage {name!r}", where="stages", fix="use a-z, 0-9")
        if not isinstance(changes, Mapping):
            raise ConfigError(f"{where} is a section, got {changes!r}", where=where)
        known = {*SECTIONS, *StageConfig.__dataclass_fields__}
        for key in changes:
            if key not in known:
                raise ConfigError(
                    f"unknown key {f'{where}.{key}'!r}",
                    where=where,
                    fix=f"data, model and eval belong to the whole run; {did_you_mean(key, known)}"
                    if key in base
                    else did_you_mean(str(key), known),
                )
        trees[str(name)] = _merged(base, {k: v for k, v in changes.items() if k in SECTIONS})
    return trees


def stage_settings(tree: Mapping[str, Any], name: str) -> Tree:
    """What a stage says besides its sections."""
    return {key: value for key, value in tree["stages"][name].items() if key not in SECTIONS}


def expanded(tree: Tree) -> list[Tree]:
    """Write every stage's sections out in full, in place, and return them; empty for a plain run.

    Raises:
        ConfigError: as `stage_trees`.
    """
    full = stage_trees(tree)
    if full:
        tree["stages"] = {
            name: stage_settings(tree, name) | {k: v for k, v in stage.items() if k in SECTIONS}
            for name, stage in full.items()
        }
    return [tree["stages"][name] for name in full]


def stage_changes(base: Mapping[str, Any], stage: Mapping[str, Any]) -> Tree:
    """The sections that turn `base` into `stage`, reduced to the values that differ."""
    return _difference({k: base[k] for k in SECTIONS}, {k: stage[k] for k in SECTIONS})


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Tree:
    """A copy of `base` with `changes` laid over it, key by key."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        below = result.get(key)
        if isinstance(below, Mapping) and _goes_on(key, below, value):
            result[key] = _merged(below, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _difference(base: Mapping[str, Any], other: Mapping[str, Any]) -> Tree:
    """What `_merged` has to lay over `base` to get `other`, both with the same keys."""
    changes: Tree = {}
    for key, value in other.items():
        below = base.get(key)
        if isinstance(below, Mapping) and _goes_on(key, below, value):
            if inner := _difference(below, value):
                changes[key] = inner
        elif key not in base or value != below:
            changes[key] = value
    return changes


def _goes_on(key: str, base: Mapping[str, Any], other: Any) -> bool:
    """Whether both values are settings of one thing; methods and their terms differ by name."""
    if not isinstance(other, Mapping):
        return False
    return key not in _NAMED or other.get("name", base.get("name")) == base.get("name")
