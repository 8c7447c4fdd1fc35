"""Writing files so that a crash or a full disk never damages what was there before."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelcontrast.core.errors import DataError, PixelContrastError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator


def data_folder(path: str | Path) -> Path:
    """The folder of a data set, with `~` replaced.

    Raises:
        DataError: it does not exist; folders beside it with a similar name are named.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    parent = folder.absolute().parent
    fix = f"{parent} does not exist either"
    if parent.is_dir():
        fix = did_you_mean(folder.name, [other.name for other in parent.glob("[!.]*/")])
    raise DataError("the data folder does not exist", where=folder.absolute(), fix=fix)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block succeeds.

    Raises:
        PixelContrastError: the folder cannot be written or the disk is full; the old file stays.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise PixelContrastError(
            f"cannot write: {error.strerror or error}",
            where=target,
            fix="free disk space or choose a folder that can be written",
        ) from error
    finally:
        with suppress(OSError):  # for example below a file that was taken for a folder
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Replace a text file in one step."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
