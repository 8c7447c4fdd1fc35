"""Recipes: complete YAML files that say everything about a run, and their `key=value` overrides.

Nothing here imports torch, so that `list` and `show` answer at once.
"""

from __future__ import annotations

import copy
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from pixelcontrast.core.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Tree = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML in which `1_8` is the name of a split, not the number 18."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in kinds if tag != "tag:yaml.org,2002:int"]
    for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0x[0-9a-fA-F]+|[0-9]+)$"), list("-+0123456789")
)


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files(__name__)
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The file of a recipe by name, or of a path ending in .yaml.

    Raises:
        ConfigError: there is no such recipe or file.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ConfigError("the recipe file does not exist", where=path.absolute())
        return path.read_text(encoding="utf-8")
    if name not in recipe_names():
        raise unknown_name("recipe", name, recipe_names())
    return resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def summary(name: str) -> str:
    """The first comment line of a recipe: what it is for."""
    first = recipe_text(name).lstrip().split("\n", 1)[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


class Traits(NamedTuple):
    """What recipes are chosen by."""

    method: str
    data: str
    encoder: str
    decoder: str


def traits(name: str) -> Traits:
    """Method (of stages: the first one's), data set, encoder and decoder of a recipe.

    A recipe for whatever folder it is given has the data set `folder`.
    """
    tree = load_recipe(name)
    stages = tree.get("stages") or {}
    methods = [tree, *stages.values()]
    model, data = tree.get("model") or {}, tree.get("data") or {}
    return Traits(
        method=next(
            (m["method"]["name"] for m in methods if "name" in (m.get("method") or {})), ""
        ),
        data=str(data.get("name") or "folder"),
        encoder=str(model.get("encoder", "")),
        decoder=str(model.get("decoder", "")),
    )


def load_recipe(name: str) -> Tree:
    """A recipe as a nested dictionary, its own name included.

    Raises:
        ConfigError: unknown name, or a file that is not a YAML mapping.
    """
    tree = parse_yaml(recipe_text(name), where=name)
    tree.setdefault("name", Path(name).stem)
    return tree


def parse_yaml(text: str, where: str | Path) -> Tree:
    """A YAML mapping.

    Raises:
        ConfigError: not valid YAML, or not a mapping.
    """
    try:
        tree = yaml.load(text, Loader=_Loader)  # a safe loader
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", where=where) from error
    if not isinstance(tree, dict):
        raise ConfigError("a recipe must be a mapping of sections", where=where)
    return tree


def override(tree: Mapping[str, Any], assignments: Sequence[str]) -> Tree:
    """A copy of `tree` with assignments such as `optim.lr=0.02` applied.

    Values are read as YAML: `true`, `0.1`, `[360, 480]`, `null`, text. Whether a key exists is
    judged when the whole is parsed, since that depends on the method.

    Raises:
        ConfigError: an assignment without `=`, or a path through something that is no section.
    """
    changed = copy.deepcopy(dict(tree))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"cannot read the override {assignment!r}", fix="write section.key=value"
            )
        try:
            value = yaml.load(text, Loader=_Loader) if text else None
        except yaml.YAMLError:
            value = text
        set_value(changed, key, value)
    return changed


def set_value(tree: Tree, key: str, value: Any) -> None:
    """Set a dotted key in a nested dictionary, making sections on the way.

    Raises:
        ConfigError: the path runs through a value that is no section.
    """
    *parents, last = key.split(".")
    node = tree
    for part in parents:
        child = node.setdefault(part, {})
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"{part!r} in {key!r} is a value, not a section")
        node = child
    node[last] = value


def dump(tree: Mapping[str, Any]) -> str:
    """The YAML text of a nested dictionary, in its own order."""
    text: str = yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, width=100)
    return text


def run_name(tree: Mapping[str, Any]) -> str:
    """Name of the run's folder: the recipe, and the seed where it is not 0."""
    seed = tree.get("seed") or 0
    return str(tree.get("name", "run")) + (f"-seed{seed}" if seed else "")
