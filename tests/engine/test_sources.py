import cv2
import numpy as np
import pytest
from tests.data.layouts import draw_cityscapes

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.data import published_list, published_lists
from pixelcontrast.engine.config import DataConfig, ScenesConfig
from pixelcontrast.engine.sources import gather_sources, open_data, resolve_auto


def test_the_folders_own_labelled_list_counts(scenes):
    sources = gather_sources(DataConfig(root=scenes))
    assert (len(sources.labeled), len(sources.unlabeled), len(sources.val)) == (8, 4, 4)


@pytest.mark.parametrize(("wanted", "count"), [(3, 3), (0.5, 6), ("train", 12), ("unlabeled", 4)])
def test_labels_by_count_fraction_or_list(scenes, wanted, count):
    sources = gather_sources(DataConfig(root=scenes, labeled=wanted))
    assert len(sources.labeled) == count
    assert len(sources.labeled) + len(sources.unlabeled) == 12
    assert not {s.id for s in sources.labeled} & {s.id for s in sources.unlabeled}


def test_the_seed_chooses_other_images(scenes):
    chosen = {
        tuple(
            s.id for s in gather_sources(DataConfig(root=scenes, labeled=4, labeled_seed=i)).labeled
        )
        for i in range(4)
    }
    assert len(chosen) > 1


def test_images_without_masks_beside_a_train_list_are_unlabelled(tmp_path):
    for name in ("images", "masks", "splits"):
        (tmp_path / name).mkdir()
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), np.zeros((32, 32, 3), np.uint8))
    for i in range(4):
        mask = np.zeros((32, 32), np.uint8)
        mask[:16] = 1
        cv2.imwrite(str(tmp_path / f"masks/{i}.png"), mask)
    (tmp_path / "splits/train.txt").write_text("0\n1\n2\n")
    (tmp_path / "splits/val.txt").write_text("3\n")
    sources = gather_sources(DataConfig(root=tmp_path))
    assert [s.id for s in sources.labeled] == ["0", "1", "2"]
    assert [s.id for s in sources.unlabeled] == ["4", "5"]


def test_scenes_are_made_on_first_use(tmp_path):
    config = DataConfig(
        root=tmp_path / "new", name="scenes", scenes=ScenesConfig(train=3, val=1, test=1)
    )
    assert len(open_data(config).samples) == 5
    before = sorted(p.stat().st_mtime_ns for p in (tmp_path / "new").rglob("*.jpg"))
    open_data(config)
    assert before == sorted(p.stat().st_mtime_ns for p in (tmp_path / "new").rglob("*.jpg"))


def test_all_errors_come_at_once(scenes, tmp_path):
    import shutil

    shutil.copytree(scenes, tmp_path / "bad")
    first, second = sorted((tmp_path / "bad" / "masks").rglob("train*.png"))[:2]
    first.write_bytes(b"")
    cv2.imwrite(str(second), np.zeros((5, 5), np.uint8))
    with pytest.raises(DataError) as caught:
        gather_sources(DataConfig(root=tmp_path / "bad"))
    assert first.name in str(caught.value)
    assert second.name in str(caught.value)


def test_auto_crop_is_the_median_size_and_said(scenes):
    sources = gather_sources(DataConfig(root=scenes))
    tree = {"view": {"crop": "auto"}}
    notes = resolve_auto(tree, sources)
    assert tree["view"]["crop"] == [48, 64]
    assert "view.crop" in notes[0]


def test_median_frequency_weights_are_computed_from_the_labelled_masks(scenes):
    sources = gather_sources(DataConfig(root=scenes))
    tree = {"method": {"segmentation": {"class_weights": "median_frequency"}}}
    resolve_auto(tree, sources)
    weights = np.array(tree["method"]["segmentation"]["class_weights"])
    pixels = np.array([c.pixels for c in sources.report.stats.classes])
    shown = pixels > 0
    np.testing.assert_allclose(
        weights[shown], np.median(pixels[shown]) / pixels[shown], rtol=1e-3, atol=1e-4
    )
    unchecked = gather_sources(DataConfig(root=scenes, check=False))
    tree = {"method": {"segmentation": {"class_weights": "median_frequency"}}}
    with pytest.raises(ConfigError, match=r"data\.check"):
        resolve_auto(tree, unchecked)


def test_the_description_names_lists_by_hash(scenes):
    described = gather_sources(DataConfig(root=scenes)).describe()
    again = gather_sources(DataConfig(root=scenes, labeled=4)).describe()
    assert described["splits"]["labeled"]["sha256"] != again["splits"]["labeled"]["sha256"]
    assert described["splits"]["val"] == again["splits"]["val"]
    assert len(described["statistics"]["pixels"]) == len(described["classes"]) == 8


def test_a_published_list_chooses_the_labels(tmp_path):
    ids = published_list("u2pl/cityscapes/1_16")
    others = ("aachen/aachen_999999_000019",)
    root = draw_cityscapes(tmp_path, train=(*ids, *others))
    config = DataConfig(root=root, check=False, labeled="u2pl/cityscapes/1_16")
    sources = gather_sources(config)
    assert {s.id for s in sources.labeled} == set(ids)
    assert tuple(s.id for s in sources.unlabeled) == others
    labeled = sources.describe()["splits"]["labeled"]
    assert labeled["name"] == "u2pl/cityscapes/1_16"
    assert labeled["sha256"] == published_lists()["u2pl/cityscapes/1_16"].sha256
    with pytest.raises(ConfigError, match="name the family"):
        gather_sources(DataConfig(root=root, check=False, labeled="1_16"))
    with pytest.raises(DataError, match="'unimatch/cityscapes/1_16' names 178 images"):
        gather_sources(DataConfig(root=root, check=False, labeled="unimatch/cityscapes/1_16"))


def test_a_list_that_nobody_has_is_refused(scenes):
    with pytest.raises(ConfigError, match="no split and no published list 'mine'"):
        gather_sources(DataConfig(root=scenes, labeled="mine"))
