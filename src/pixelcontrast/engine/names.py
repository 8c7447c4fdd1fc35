"""Names that a person gives to clusters after looking at them: a small YAML beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelcontrast.core.errors import ConfigError, did_you_mean
from pixelcontrast.core.files import write_text
from pixelcontrast.recipes import parse_yaml

FILE = "names.yaml"

_HEAD = """\
# Look at clusters/*.png and write a name behind every cluster. `pixelcontrast predict` then
# speaks of these names; clusters of one name become one class.
"""


@dataclass(frozen=True, slots=True)
class Naming:
    """Classes made of clusters."""

    names: tuple[str, ...]
    """Of the classes, in the order of their first clusters."""
    class_of: tuple[int, ...]
    """For every cluster its class."""

    def first(self, name: str) -> int:
        """The first cluster of a class."""
        return self.class_of.index(self.names.index(name))


def write_names(folder: Path, clusters: Sequence[str]) -> None:
    """The file to fill in, unless there is one."""
    path = folder / FILE
    if not path.exists():
        write_text(path, _HEAD + "".join(f"{name}: {name}\n" for name in clusters))


def read_names(folder: Path, clusters: Sequence[str]) -> Naming:
    """What the clusters are called; a cluster that is not mentioned keeps its name.

    Raises:
        ConfigError: the file names a cluster that does not exist, or something else than a name.
    """
    path = folder / FILE
    given = parse_yaml(path.read_text(encoding="utf-8"), path) if path.is_file() else {}
    for key, value in given.items():
        if key not in clusters:
            raise ConfigError(
                f"there is no cluster {key!r}", where=path, fix=did_you_mean(str(key), clusters)
            )
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(
                f"{key} cannot be called {value!r}", where=path, fix=f"write {key}: sky"
            )
    called = [str(given.get(name, name)).strip() for name in clusters]
    names = tuple(dict.fromkeys(called))
    return Naming(names, tuple(names.index(name) for name in called))
