import os

import cv2
import numpy as np
import pytest

from pixelcontrast.core.errors import ConfigError, DataError, PixelContrastError
from pixelcontrast.data import cache as cache_module
from pixelcontrast.data.cache import DiskCache, FileReader, MemoryCache, open_reader
from pixelcontrast.data.dataset import DatasetInfo, Sample

INFO = DatasetInfo("drawn", ("a", "b", "c"))


@pytest.fixture
def samples(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for i, size in enumerate([(12, 17), (1, 1), (9, 4)]):
        image, mask = tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png"
        cv2.imwrite(str(image), rng.integers(0, 256, (*size, 3)).astype(np.uint8))
        cv2.imwrite(str(mask), rng.integers(0, 3, size).astype(np.uint8))
        made.append(Sample(str(i), image, mask))
    return made


@pytest.fixture
def decoded(monkeypatch):
    """Counts what is decoded."""
    calls = []
    for name in ("read_image", "read_mask"):
        real = getattr(cache_module, name)
        monkeypatch.setattr(
            cache_module, name, lambda path, *a, real=real: calls.append(path) or real(path, *a)
        )
    return calls


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_caches_give_what_the_files_give_and_decode_once(samples, tmp_path, decoded, kind):
    cached = open_reader(samples, INFO, cache=kind, folder=tmp_path / "cache")
    plain = FileReader(samples, INFO)
    for _ in range(2):
        for i in range(3):
            np.testing.assert_array_equal(cached.image(i), plain.image(i))
            np.testing.assert_array_equal(cached.mask(i), plain.mask(i))
    assert len(decoded) == 2 * 6 + 6
    assert not cached.image(0).flags.writeable


def test_no_cache_decodes_every_time(samples, decoded):
    reader = open_reader(samples, INFO)
    reader.image(0)
    reader.image(0)
    assert len(decoded) == 2


def test_disk_cache_outlives_the_process_and_notices_changes(samples, tmp_path, decoded):
    folder = tmp_path / "cache"
    open_reader(samples, INFO, cache="disk", folder=folder).image(0)
    again = open_reader(samples, INFO, cache="disk", folder=folder)
    again.image(0)
    assert len(decoded) == 1
    cv2.imwrite(str(samples[0].image), np.full((5, 6, 3), 9, np.uint8))
    assert again.image(0).shape == (5, 6, 3)
    os.utime(samples[0].image, ns=(1, 1))
    again.image(0)
    assert len(decoded) == 3
    again.mask(0)
    relabelled = DatasetInfo("drawn", ("a", "b"), label_map={0: 255, 1: 0, 2: 1})
    other = open_reader(samples, relabelled, cache="disk", folder=folder)
    assert set(np.unique(other.mask(0))) <= {0, 1, 255}
    assert not list(folder.rglob("*.part"))


def test_disk_cache_may_be_deleted_at_any_time(samples, tmp_path):
    reader = DiskCache(FileReader(samples, INFO), tmp_path / "cache")
    first = reader.image(0)
    for file in (tmp_path / "cache").rglob("*.npy"):
        file.unlink()
    np.testing.assert_array_equal(reader.image(0), first)


def test_unwritable_folder_is_named(samples, tmp_path):
    (tmp_path / "file").write_text("")
    reader = DiskCache(FileReader(samples, INFO), tmp_path / "file")
    with pytest.raises(PixelContrastError, match="cannot write"):
        reader.image(0)


def test_missing_source_is_named(samples, tmp_path):
    reader = DiskCache(FileReader(samples, INFO), tmp_path / "cache")
    samples[0].image.unlink()
    with pytest.raises(DataError, match="cannot read") as caught:
        reader.image(0)
    assert caught.value.where == samples[0].image


def test_memory_cache_refuses_what_does_not_fit(samples, monkeypatch):
    monkeypatch.setattr(cache_module, "_available_memory", lambda: 100)
    with pytest.raises(ConfigError, match="GiB"):
        open_reader(samples, INFO, cache="memory")


def test_memory_cache_notices_a_mask_of_another_size(samples):
    cv2.imwrite(str(samples[0].mask), np.zeros((3, 3), np.uint8))
    reader = MemoryCache(FileReader(samples, INFO), masks=True)
    with pytest.raises(DataError, match="3 x 3") as caught:
        reader.mask(0)
    assert caught.value.where == samples[0].mask


def test_disk_cache_needs_a_folder_and_masks_need_files(samples):
    with pytest.raises(ConfigError, match="folder"):
        open_reader(samples, INFO, cache="disk")
    with pytest.raises(DataError, match="no mask"):
        FileReader([Sample("x", samples[0].image)], INFO).mask(0)
