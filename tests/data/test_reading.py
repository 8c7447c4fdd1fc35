import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pixelcontrast.core.errors import DataError, PixelContrastError
from pixelcontrast.data.dataset import DatasetInfo
from pixelcontrast.data.reading import (
    ends_properly,
    image_size,
    read_image,
    read_mask,
    read_stored_mask,
    write_bytes,
    write_mask,
)

RGB = np.random.default_rng(0).integers(0, 256, (21, 34, 3)).astype(np.uint8)
SMOOTH = np.stack(np.meshgrid(np.arange(34) * 7, np.arange(21) * 12), -1).astype(np.uint8)
SMOOTH = np.concatenate([SMOOTH, SMOOTH[..., :1] // 2], axis=-1)
INFO = DatasetInfo("drawn", ("a", "b", "c"))


def encode(picture, format, **options):
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **options)
    return buffer.getvalue()


def png(depth, colour_type, rows):
    """A PNG written by hand, for depths that Pillow does not write."""
    height = len(rows)
    width = len(rows[0]) * 8 // depth

    def chunk(name, data):
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = b"".join(b"\0" + bytes(row) for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_colour_files_are_exact(tmp_path, format):
    path = tmp_path / "x"
    Image.fromarray(RGB).save(path, format=format)
    assert (read_image(path) == RGB).all()
    assert image_size(path) == (21, 34)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lossy_files_agree_with_pillow(tmp_path, format, mode):
    path = tmp_path / "x"
    Image.fromarray(SMOOTH).convert(mode).save(path, format=format)
    expected = np.asarray(Image.open(path).convert("RGB"), int)
    assert np.abs(read_image(path) - expected).max() <= 1


def test_cmyk_and_progressive_jpeg(tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(SMOOTH).convert("CMYK").save(path)
    assert (read_image(path) == np.asarray(Image.open(path).convert("RGB"))).all()
    Image.fromarray(SMOOTH).save(path, progressive=True)
    assert np.abs(read_image(path).astype(int) - np.asarray(Image.open(path))).max() <= 1


def test_grey_palette_and_transparent_images_become_rgb(tmp_path):
    path = tmp_path / "x.png"
    grey = RGB[..., 0]
    Image.fromarray(grey).save(path)
    assert (read_image(path) == grey[..., None]).all()
    paletted = Image.fromarray(RGB).quantize(16)
    paletted.save(path)
    assert (read_image(path) == np.asarray(paletted.convert("RGB"))).all()
    paletted.save(path, transparency=0)
    assert (read_image(path) == np.asarray(paletted.convert("RGB"))).all()
    alpha = np.dstack([RGB, RGB[..., 1]])
    Image.fromarray(alpha).save(path)
    assert (read_image(path) == RGB).all()
    Image.fromarray(RGB[..., :2].copy(), mode="LA").save(path)
    assert (read_image(path) == RGB[..., :1]).all()
    Image.fromarray(grey > 100).save(path)
    assert (read_image(path) == np.where(grey > 100, 255, 0)[..., None]).all()


def test_sixteen_bits_are_scaled(tmp_path):
    path = tmp_path / "x.png"
    values = np.array([[0, 257, 128 * 257, 65535, 300]], np.uint16)
    Image.fromarray(values).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 1, 128, 255, 1]
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif")[0, :, 0].tolist() == [0, 1, 128, 255, 1]
    # Sixteen bits a channel in colour.
    rows = [[200, 0, 100, 0, 50, 0]]
    data = png(16, 2, rows).replace(struct.pack(">II", 3, 1), struct.pack(">II", 1, 1))
    header = data[12:29]
    data = data[:29] + struct.pack(">I", zlib.crc32(header)) + data[33:]
    path.write_bytes(data)
    assert read_image(path).tolist() == [[[200, 100, 50]]]


@pytest.mark.parametrize("values", [np.array([[70000]], np.int32), np.array([[0.5]], np.float32)])
def test_unknown_ranges_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match="image"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied_everywhere_alike(tmp_path, orientation, format):
    path = tmp_path / "x"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(SMOOTH).save(path, format=format, exif=exif)
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"), int)
    image = read_image(path)
    assert image.shape == expected.shape
    assert np.abs(image - expected).max() <= 1
    assert image_size(path) == image.shape[:2]


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(tmp_path / "x.tif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "x.tif") == RGB).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.97])
def test_truncated_images_are_refused(tmp_path, format, keep):
    data = encode(Image.fromarray(RGB), format)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert "cut.img" in str(caught.value)


def test_missing_empty_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_image(tmp_path / "no.png")
    with pytest.raises(DataError, match="does not exist"):
        image_size(tmp_path / "no.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match="empty"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello")
    for read in (read_image, image_size, read_stored_mask):
        with pytest.raises(DataError, match="not an image"):
            read(tmp_path / "text.png")


def test_ends_properly(tmp_path):
    path = tmp_path / "x"
    for format in ("JPEG", "PNG"):
        data = encode(Image.fromarray(RGB), format)
        path.write_bytes(data)
        assert ends_properly(path)
        path.write_bytes(data[:-9])
        assert not ends_properly(path)
    path.write_bytes(b"BM")
    assert ends_properly(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_grey_masks_keep_their_values(tmp_path, dtype):
    values = np.array([[0, 1, 2], [255, 2, 0]], dtype)
    suffix = "tif" if dtype == np.int32 else "png"
    Image.fromarray(values).save(tmp_path / f"m.{suffix}")
    assert (read_stored_mask(tmp_path / f"m.{suffix}").values == values).all()
    assert (read_mask(tmp_path / f"m.{suffix}", INFO) == values).all()


def test_palette_masks_keep_indices_and_colours(tmp_path):
    ids = np.array([[0, 1, 2, 255]], np.uint8)
    write_mask(tmp_path / "m.png", ids, [(9, 8, 7), (200, 0, 0), (0, 0, 200)])
    stored = read_stored_mask(tmp_path / "m.png")
    assert (stored.values == ids).all()
    assert stored.palette[:3].tolist() == [[9, 8, 7], [200, 0, 0], [0, 0, 200]]
    assert (read_mask(tmp_path / "m.png", INFO) == ids).all()


@pytest.mark.parametrize(
    ("depth", "row", "expected"),
    [
        (1, [0b01000000], [0, 1, 0, 0, 0, 0, 0, 0]),
        (2, [0b00011011], [0, 1, 2, 3]),
        (4, [0x01, 0x2F], [0, 1, 2, 15]),
    ],
)
@pytest.mark.parametrize("colour_type", [0, 3])
def test_small_depths_are_not_stretched(tmp_path, depth, row, expected, colour_type):
    data = png(depth, colour_type, [row])
    if colour_type == 3:
        table = b"PLTE" + bytes(range(48))
        chunk = struct.pack(">I", 48) + table + struct.pack(">I", zlib.crc32(table))
        data = data[:33] + chunk + data[33:]
    (tmp_path / "m.png").write_bytes(data)
    assert read_stored_mask(tmp_path / "m.png").values.tolist() == [expected]


def test_transparency_of_masks_is_dropped(tmp_path):
    grey = np.array([[[0, 255], [2, 0]]], np.uint8)
    Image.fromarray(grey, mode="LA").save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", INFO).tolist() == [[0, 2]]
    colour = np.array([[[1, 1, 1, 0], [2, 2, 2, 255]]], np.uint8)
    Image.fromarray(colour).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", INFO).tolist() == [[1, 2]]


def test_lossy_and_floating_masks_are_refused(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "m.jpg")
    with pytest.raises(DataError, match="JPEG"):
        read_mask(tmp_path / "m.jpg", INFO)
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(DataError, match="floating"):
        read_mask(tmp_path / "m.tif", INFO)


def test_mask_rotation_follows_exif(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    ids = np.array([[0, 1, 2], [2, 2, 2]], np.uint8)
    Image.fromarray(ids).save(tmp_path / "m.png", exif=exif)
    assert read_mask(tmp_path / "m.png", INFO).tolist() == [[2, 0], [2, 1], [2, 2]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    data=st.binary(max_size=200),
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]),
)
@example(data=b"II*\x00\x08\x00\x00\x00", start=b"")
def test_random_bytes_never_crash(tmp_path, data, start):
    path = tmp_path / "x"
    path.write_bytes(start + data)
    for read in (read_image, read_stored_mask, image_size):
        with pytest.raises(DataError):
            read(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    mode=st.sampled_from(["1", "L", "P", "I;16", "RGB", "RGBA", "LA"]),
    top=st.sampled_from([1, 2, 3, 40, 255]),
    at=st.integers(0, 10_000),
    change=st.integers(0, 255),
    seed=st.integers(0, 1000),
)
def test_broken_masks_are_read_right_or_refused(tmp_path, mode, top, at, change, seed):
    """Any mode, any values, one byte of the file changed: class ids, or an error with the file."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, top + 1, (5, 7)).astype(np.uint8)
    picture = (
        Image.fromarray(values).convert(mode)
        if mode != "I;16"
        else Image.fromarray(values.astype(np.uint16))
    )
    data = bytearray(encode(picture, "PNG"))
    data[at % len(data)] = change
    path = tmp_path / "m.png"
    path.write_bytes(data)
    mask = refusal = None
    try:
        mask = read_mask(path, INFO)
    except DataError as reason:
        refusal = str(reason)
    if refusal is not None:
        assert "m.png" in refusal
        return
    assert mask.dtype == np.uint8
    assert mask.ndim == 2
    assert set(np.unique(mask).tolist()) <= {0, 1, 2, 255}


def test_written_masks_appear_whole_or_not_at_all(tmp_path):
    write_mask(tmp_path / "sub" / "m.png", np.zeros((3, 4), np.uint8))
    assert read_stored_mask(tmp_path / "sub" / "m.png").values.shape == (3, 4)
    write_bytes(tmp_path / "b", b"1")
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "b", "text")
    assert (tmp_path / "b").read_bytes() == b"1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "sub"]
    with pytest.raises(PixelContrastError, match="cannot write"):
        write_bytes(tmp_path / "b" / "below", b"1")


def test_camvid_reads_like_pillow(real_camvid):
    for name in ("0001TP_006690", "0016E5_00390"):
        path = real_camvid / "train" / f"{name}.jpg"
        assert (read_image(path) == np.asarray(Image.open(path))).all()
        assert image_size(path) == (360, 480)
