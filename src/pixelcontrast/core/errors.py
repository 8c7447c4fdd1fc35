"""Errors a user can act on: what went wrong, where, and how to mend it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class PixelContrastError(Exception):
    """Base of all errors that are the fault of the input, not of the program.

    The command line prints them without a stack trace and exits with `exit_code`.

    Args:
        what: what is wrong, in one sentence.
        where: the file, key or value concerned.
        fix: what the user can do about it.
    """

    exit_code = 2

    def __init__(
        self, what: str, *, where: str | Path | None = None, fix: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.fix is not None:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class ConfigError(PixelContrastError):
    """A recipe, key or value that does not exist or does not fit."""


class DataError(PixelContrastError):
    """An image, mask, split or folder that cannot be used."""


class CheckpointError(PixelContrastError):
    """A checkpoint or weight file that is missing, damaged or of another model."""


class TrainingError(PixelContrastError):
    """Training cannot go on, for example because a loss is no longer finite."""

    exit_code = 3


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped `name`: the closest known names, else all of them."""
    options = sorted(known)
    close = get_close_matches(name, options, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(options[:30]) + (", ..." if len(options) > 30 else "")
    return f"known: {shown}" if options else "nothing is known under this heading"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is in no table, with a suggestion."""
    return ConfigError(f"unknown {kind} {name!r}", fix=did_you_mean(name, known))
