import hashlib
import shutil

import pytest
from tests.data.layouts import draw_voc

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.data.catalog import DATASETS, recognise
from pixelcontrast.data.download import Archive
from pixelcontrast.data.guides import GUIDES, Guide, download_missing, guide


def test_every_published_data_set_has_a_guide():
    assert set(GUIDES) == {name for name, layout in DATASETS.items() if layout.info is not None}
    for one in GUIDES.values():
        assert one.steps
        assert all(":" in archive.checksum for archive in one.archives)
    assert {name for name, one in GUIDES.items() if one.archives} == {"camvid", "voc"}


def test_unknown_name():
    with pytest.raises(ConfigError, match="did you mean 'cityscapes'"):
        guide("cityscape")


def test_only_what_is_missing_is_downloaded(tmp_path):
    draw_voc(tmp_path / "drawn", masks="none")
    packed = shutil.make_archive(str(tmp_path / "voc"), "zip", tmp_path / "drawn", "VOCdevkit")
    with open(packed, "rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    place = "VOCdevkit/VOC2012"
    names = ("JPEGImages", "SegmentationClass", "ImageSets")
    steps = Guide("page", "terms", ("step",), (
        Archive("https://example.invalid/voc.zip", f"md5:{digest}", place, place, names),
    ))  # fmt: skip
    out = tmp_path / "out"
    assert download_missing(steps, out, source=tmp_path.as_uri()) == ["voc.zip"]
    assert recognise(out) == "voc"
    assert download_missing(steps, out) == []
    assert not (out / ".downloads").exists()
