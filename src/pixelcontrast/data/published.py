"""Published lists of images by name, for example `u2pl/voc/classic_183`.

A name is family / data set / list. The lists are facts taken from the repositories that papers
refer to; `docs/datasets.md` names them. Each comes with the hash that its ids must have.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pixelcontrast.core.errors import ConfigError, DataError, did_you_mean
from pixelcontrast.data.splits import split_hash


@dataclass(frozen=True, slots=True)
class PublishedList:
    """What is known of a list without reading it."""

    name: str
    count: int
    sha256: str
    """`split_hash` of its ids."""


@cache
def published_lists() -> Mapping[str, PublishedList]:
    """Every list that comes with the package, by name."""
    text = _folder().joinpath("checksums.json").read_text(encoding="utf-8")
    return {
        name: PublishedList(name, known["count"], known["sha256"])
        for name, known in json.loads(text).items()
    }


def published_list(name: str) -> tuple[str, ...]:
    """The ids of a list, sorted.

    Raises:
        ConfigError: there is no such list.
        DataError: the packed file is damaged.
    """
    if name not in published_lists():
        raise ConfigError(
            f"no published list {name!r}", fix=did_you_mean(name, list(published_lists()))
        )
    family = name.partition("/")[0]
    ids = _family(family).get(name, ())
    if split_hash(ids) != published_lists()[name].sha256:
        raise DataError(
            "the list differs from the one that was published", where=name, fix="reinstall"
        )
    return ids


def full_name(name: str, dataset: str) -> str:
    """The name of a published list from a short one, for example `classic_183` for `voc`.

    Args:
        name: a full name, or its last part where one family alone has such a list of `dataset`.
        dataset: name of the data set.

    Raises:
        ConfigError: there is no such list, or several families have one of that name: their
            images differ, and with them the scores.
    """
    known = published_lists()
    if name in known:
        return name
    found = [full for full in known if full.split("/")[1:] == [dataset, name]]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"{len(found)} published lists of {dataset} are called {name!r}, with other images",
            where="data.labeled",
            fix=f"name the family: {' or '.join(found)}",
        )
    ours = [full for full in known if full.split("/")[1] == dataset]
    raise ConfigError(
        f"no split and no published list {name!r}",
        where="data.labeled",
        fix=f"published for {dataset}: {', '.join(ours)}" if ours else did_you_mean(name, known),
    )


@cache
def _family(family: str) -> Mapping[str, tuple[str, ...]]:
    """Lists of one family, each under a line with its name in brackets."""
    packed = _folder().joinpath(f"{family}.txt.xz").read_bytes()
    blocks = lzma.decompress(packed).decode().split("[")[1:]
    named = (block.split("]\n", 1) for block in blocks)
    return {name: tuple(ids.split()) for name, ids in named}


def _folder() -> resources.abc.Traversable:
    return resources.files("pixelcontrast.data").joinpath("lists")
