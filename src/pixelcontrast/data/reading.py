"""Image and mask files to arrays and back.

8-bit JPEG and PNG files go through OpenCV, which decodes a CamVid frame in under half of Pillow's
time; everything else, and every file that does not look whole, goes through Pillow, which reads
palettes and 16 bit faithfully and refuses truncated files.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pixelcontrast.core.errors import DataError
from pixelcontrast.core.files import atomic_path
from pixelcontrast.data.dataset import Colour, DatasetInfo
from pixelcontrast.data.labels import StoredMask, map_mask
from pixelcontrast.data.matlab import matlab_ids

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
)
"""Suffixes of files that count as images, in lower case."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_EXIF_ORIENTATION = 274


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """The picture in `path` as RGB, (H, W, 3) uint8, turned upright by its EXIF orientation.

    Grey and palette images become RGB; 16 bit is scaled so that 65535 becomes 255; transparency
    is dropped, the stored colours stay. Of an animation the first frame is read.

    Raises:
        DataError: when the file is missing, truncated, damaged or of an unknown kind.
    """
    data = _read_bytes(path)
    if _is_plain_jpeg(data) or _png_kind(data) in {(8, 0), (8, 2)}:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if decoded is not None:
            return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded))
    with _opened(data, path) as picture:
        upright = _upright(picture)
        if upright.mode.startswith("I"):
            return np.repeat(_sixteen_to_eight(upright, path)[:, :, None], 3, axis=2)
        if upright.mode == "F":
            raise DataError(
                "floating-point image; its range is unknown",
                where=path,
                fix="save it with 8 or 16 bits a channel",
            )
        return np.array(upright.convert("RGB"))


def read_mask(path: str | Path, info: DatasetInfo) -> NDArray[np.uint8]:
    """Class ids of the mask in `path` after the label map of `info`, (H, W) uint8.

    Raises:
        DataError: when the file is unreadable or holds a value or colour that `info` does not
            declare; nothing unknown is ever turned into ignored pixels.
    """
    return map_mask(read_stored_mask(path), info, path)


def read_stored_mask(path: str | Path) -> StoredMask:
    """The values of the mask in `path` as they are stored, before any label map.

    Palette images give their indices, grey images their values (also of 1, 2, 4 and 16 bits),
    colour images their colours; transparency is dropped. `.mat` files give their label map.

    Raises:
        DataError: when the file is unreadable or cannot be a mask (JPEG, floating point).
    """
    data = _read_bytes(path)
    if Path(path).suffix == ".mat":
        return StoredMask(matlab_ids(data, path))
    if data.startswith(_JPEG_START):
        raise DataError(
            "the mask is a JPEG file, which does not keep label values exactly",
            where=path,
            fix="export the masks as PNG",
        )
    kind = _png_kind(data)
    if kind == (8, 0):
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is not None and decoded.ndim == 2:
            return StoredMask(np.asarray(decoded))
    with _opened(data, path) as picture:
        upright = _upright(picture)
        if upright.mode == "F":
            raise DataError("floating-point mask", where=path, fix="save integer class ids")
        if upright.mode == "P":
            return StoredMask(np.array(upright), palette=_palette(upright))
        if upright.mode == "LA":
            return StoredMask(np.array(upright)[:, :, 0])
        if upright.mode == "1":
            return StoredMask(np.array(upright).astype(np.uint8))
        if upright.mode == "L" and kind in {(2, 0), (4, 0)}:
            # Pillow stretches the values of 2- and 4-bit grey files to 0..255.
            return StoredMask(np.array(upright) // (85 if kind == (2, 0) else 17))
        if upright.mode == "L" or upright.mode.startswith("I"):
            return StoredMask(np.array(upright))
        return StoredMask(np.array(upright.convert("RGB")))


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of `path` as `read_image` would return it, from the header alone.

    Raises:
        DataError: when the file is missing or its header is damaged.
    """
    with _opened(Path(path), path) as picture:
        orientation = _orientation(picture)
        if picture.format == "TIFF" and orientation >= 5:
            # Depending on its version, Pillow has turned the size of a TIFF already, or not.
            picture = _upright(picture)
            orientation = 1
        width, height = picture.size
        return (width, height) if orientation >= 5 else (height, width)


def ends_properly(path: str | Path) -> bool:
    """Whether a JPEG or PNG file ends with its end marker; True for other kinds."""
    with Path(path).open("rb") as file:
        start = file.read(8)
        file.seek(0, os.SEEK_END)
        file.seek(-min(8, file.tell()), os.SEEK_END)
        end = file.read()
    if start.startswith(_PNG_START):
        return end.endswith(_PNG_END)
    return end.endswith(_JPEG_END) if start.startswith(_JPEG_START) else True


def write_mask(
    path: str | Path, mask: NDArray[np.uint8], palette: Sequence[Colour] | None = None
) -> None:
    """Save class ids (H, W) as PNG, with `palette` as its colours; the file appears whole or not.

    Args:
        path: target file.
        mask: class ids; unlisted ids such as the ignore index are shown in black.
        palette: RGB colours of the ids 0, 1, ...; without it the file is grey.
    """
    picture = Image.fromarray(mask)
    if palette is not None:
        flat = np.zeros((256, 3), np.uint8)
        flat[: len(palette)] = np.asarray(palette, np.uint8).reshape(-1, 3)
        picture.putpalette(flat.tobytes())
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace a file in one step: readers never see half of it."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _read_bytes(path: str | Path) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as reason:
        raise DataError(f"cannot read the file: {reason.strerror}", where=path) from reason
    if not data:
        raise DataError("the file is empty", where=path)
    return data


@contextlib.contextmanager
def _opened(source: bytes | Path, path: str | Path) -> Iterator[Image.Image]:
    """A Pillow image whose failures, also later while decoding, become a `DataError`."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            yield picture
    except UnidentifiedImageError as reason:
        raise DataError("not an image file that can be read", where=path) from reason
    except FileNotFoundError as reason:
        raise DataError("the file does not exist", where=path) from reason
    except (
        OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
        struct.error, MemoryError, OverflowError, Image.DecompressionBombError,
    ) as reason:  # fmt: skip
        # Pillow's decoders answer damaged bytes with any of these.
        raise DataError(f"damaged or truncated image file ({reason})", where=path) from reason


def _orientation(picture: Image.Image) -> int:
    # Asking a PNG for EXIF data decodes it; data after the pixels is left aside, as in `_upright`.
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1
    value = picture.getexif().get(_EXIF_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(picture: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(picture) if _orientation(picture) != 1 else picture


def _palette(picture: Image.Image) -> NDArray[np.uint8]:
    colours = np.zeros((256, 3), np.uint8)
    stored = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    colours[: len(stored)] = stored
    return colours


def _sixteen_to_eight(picture: Image.Image, path: str | Path) -> NDArray[np.uint8]:
    values = np.array(picture).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise DataError(
            "integer image with values outside 0..65535",
            where=path,
            fix="save it with 8 or 16 bits a channel",
        )
    return ((values + 128) // 257).astype(np.uint8)


def _png_kind(data: bytes) -> tuple[int, int] | None:
    """Bit depth and colour type of a PNG that looks whole and has no EXIF block, else None."""
    if not (data.startswith(_PNG_START) and data.endswith(_PNG_END)) or len(data) < 33:
        return None
    if b"eXIf" in data[: data.find(b"IDAT")]:
        return None
    return data[24], data[25]


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether this is a JPEG of 8 bits with 1 or 3 components that looks whole."""
    if not (data.startswith(_JPEG_START) and data.endswith(_JPEG_END)):
        return False
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[at + 4] == 8 and data[at + 9] in (1, 3)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False
