"""Fetch an archive, verify it, and unpack it so that nothing lands outside its folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

from pixelcontrast.core.errors import DataError

_BLOCK = 1 << 20
_TIMEOUT = 60  # seconds without an answer
_RANGE_NOT_SATISFIABLE = 416

Progress = Callable[[int, int | None], None]
"""Called with bytes so far and bytes in all, None where the server does not say."""


@dataclass(frozen=True, slots=True)
class Archive:
    """One file to download, and what of it goes where."""

    url: str
    checksum: str
    """`md5:` or `sha256:` of the file, or `git:`, the tree hash of the folder `inside`."""
    inside: str
    """Folder in the archive whose content is wanted."""
    to: str
    """Where that content goes, below the data folder; may be empty."""
    holds: tuple[str, ...]
    """Names in `to` that exist when the archive has been unpacked."""

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(urlparse(self.url).path).name

    def is_unpacked(self, out: Path) -> bool:
        """Whether `out` holds the content already."""
        return all((out / self.to / name).exists() for name in self.holds)


def install(
    archive: Archive, out: Path, *, source: str | None = None, progress: Progress | None = None
) -> None:
    """Download `archive`, verify it and move its content below `out`.

    The content is unpacked beside its place and moved there when it is whole. The download is
    removed afterwards.

    Args:
        archive: what to fetch.
        out: the data folder; made where it is missing.
        source: address of a folder that holds the same file, instead of the archive's own.
        progress: called after every block.

    Raises:
        DataError: no connection, another checksum, an unsafe archive, or files in the way.
    """
    url = f"{source.rstrip('/')}/{archive.name}" if source else archive.url
    kept = out / ".downloads"
    kept.mkdir(parents=True, exist_ok=True)
    kind, _, _ = archive.checksum.partition(":")
    file = kept / archive.name
    if not file.exists():
        download(url, file, checksum="" if kind == "git" else archive.checksum, progress=progress)
    with tempfile.TemporaryDirectory(dir=kept) as temporary:
        unpack(file, Path(temporary), inside=archive.inside)
        content = Path(temporary, archive.inside)
        if kind == "git" and git_tree_hash(content) != archive.checksum[4:]:
            file.unlink()
            raise _mismatch(url)
        missing = [name for name in archive.holds if not (content / name).exists()]
        if missing:
            raise DataError(f"the archive lacks {', '.join(missing)}", where=url)
        _move(content, out / archive.to)
    file.unlink()
    if not any(kept.iterdir()):
        kept.rmdir()


def download(
    url: str, target: Path, *, checksum: str = "", progress: Progress | None = None
) -> None:
    """Fetch `url` to `target`; an interrupted download goes on where it stopped.

    Args:
        url: http, https or file.
        target: appears when everything has arrived and been verified.
        checksum: `md5:...` or `sha256:...`; empty for none.
        progress: called after every block.

    Raises:
        DataError: no connection, a cut download (what arrived is kept), or another checksum (what
            arrived is removed).
    """
    if urlparse(url).scheme not in {"http", "https", "file"}:
        raise DataError("only http, https and file addresses can be read", where=url)
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _receive(url, part, progress)
    except (URLError, OSError) as reason:
        raise DataError(
            f"cannot download ({getattr(reason, 'reason', None) or reason})",
            where=url,
            fix="run the command again to go on, or download the file by hand and name its "
            "folder with --source file://FOLDER",
        ) from reason
    if checksum and not _matches(part, checksum):
        part.unlink()
        raise _mismatch(url)
    os.replace(part, target)


def unpack(file: Path, folder: Path, *, inside: str = "") -> None:
    """Unpack the members of a zip or tar file that lie below `inside`.

    Regular files alone are written. The whole archive is refused when any member is a link, a
    device, or has a name that leads out of the folder.

    Raises:
        DataError: an unsafe or damaged archive.
    """
    try:
        with _members(file) as members:
            for name, opened in members:
                path = _safe_path(name, file)
                if opened is not None and path.is_relative_to(inside):
                    target = folder / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened() as source, target.open("xb") as copy:
                        shutil.copyfileobj(source, copy, _BLOCK)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, FileExistsError) as reason:
        raise DataError(f"the archive is damaged ({reason})", where=file) from reason


def git_tree_hash(folder: Path) -> str:
    """The hash git gives to a folder of plain files: it depends on every name and every byte.

    Archives that are made on request differ from day to day; their content does not.
    """
    entries = []
    for path in folder.iterdir():
        is_folder = path.is_dir()
        digest = git_tree_hash(path) if is_folder else _git_hash(b"blob", path.read_bytes())
        mode = b"40000" if is_folder else b"100644"
        # Git sorts folders as if their names ended with a slash.
        order = path.name.encode() + (b"/" if is_folder else b"")
        entries.append((order, mode + b" " + path.name.encode() + b"\0" + bytes.fromhex(digest)))
    return _git_hash(b"tree", b"".join(entry for _, entry in sorted(entries)))


def _git_hash(kind: bytes, content: bytes) -> str:
    header = kind + b" " + str(len(content)).encode() + b"\0"
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _receive(url: str, part: Path, progress: Progress | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urlopen(request, timeout=_TIMEOUT)
    except HTTPError as error:
        if have and error.code == _RANGE_NOT_SATISFIABLE:
            return  # everything is here; the checksum decides
        raise
    with answer:
        goes_on = have > 0 and getattr(answer, "status", None) == 206
        done = have if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if goes_on else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
    if total is not None and done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def _matches(file: Path, checksum: str) -> bool:
    kind, _, wanted = checksum.partition(":")
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, kind).hexdigest() == wanted


def _mismatch(url: str) -> DataError:
    return DataError(
        "the download has another checksum than the published file, and was removed",
        where=url,
        fix="run the command again, or use another source",
    )


_Member = tuple[str, Callable[[], IO[bytes]] | None]
"""Name, and how to open it; None for a folder."""


@contextmanager
def _members(file: Path) -> Iterator[Iterator[_Member]]:
    """The members of an archive; all are looked at before the first is given out."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            yield iter([_zip_member(packed, entry, file) for entry in packed.infolist()])
    else:
        with tarfile.open(file) as tar:
            yield iter([_tar_member(tar, entry, file) for entry in tar.getmembers()])


def _zip_member(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, file: Path) -> _Member:
    _safe_path(entry.filename, file)
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise _unsafe(f"{entry.filename} is a link", file)
    return entry.filename, None if entry.is_dir() else lambda: packed.open(entry)


def _tar_member(tar: tarfile.TarFile, entry: tarfile.TarInfo, file: Path) -> _Member:
    _safe_path(entry.name, file)
    if not (entry.isreg() or entry.isdir()):
        raise _unsafe(f"{entry.name} is a link or a device", file)

    def opened() -> IO[bytes]:
        stream = tar.extractfile(entry)
        if stream is None:
            raise tarfile.TarError(f"{entry.name} has no content")
        return stream

    return entry.name, None if entry.isdir() else opened


def _safe_path(name: str, file: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
        raise _unsafe(f"the name {name!r} leads out of the folder", file)
    return path


def _unsafe(what: str, file: Path) -> DataError:
    return DataError(f"the archive is not safe: {what}", where=file, fix="use another source")


def _move(content: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    children = sorted(content.iterdir())
    in_the_way = [child.name for child in children if (target / child.name).exists()]
    if in_the_way:
        raise DataError(
            f"files are in the way: {', '.join(in_the_way[:5])}",
            where=target,
            fix="choose an empty folder, or move them away",
        )
    for child in children:
        os.replace(child, target / child.name)
