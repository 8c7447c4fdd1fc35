import pytest
from tests.data.layouts import VOC_SBD, VOC_TRAIN, VOC_VAL, draw_voc

from pixelcontrast.data.catalog import open_dataset, recognise
from pixelcontrast.data.checks import check_dataset
from pixelcontrast.data.published import published_list
from pixelcontrast.data.reading import read_mask


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_the_layout_is_found_from_each_folder(tmp_path, inside):
    root = draw_voc(tmp_path) / inside
    assert recognise(root) == "voc"
    dataset = open_dataset(root)
    assert dataset.splits["train"] == (*VOC_TRAIN, *VOC_SBD)
    assert dataset.splits["val"] == VOC_VAL
    assert "unlabeled" not in dataset.splits
    assert [p.code for p in dataset.problems] == ["partial-copy"]
    assert "train has 3 of 10,582 images" in dataset.problems[0].message


@pytest.mark.parametrize("masks", ["aug", "sbd"])
def test_every_id_is_read(tmp_path, masks):
    dataset = open_dataset(draw_voc(tmp_path, masks=masks))
    for sample in dataset.samples:
        mask = read_mask(sample.mask, dataset.info)
        assert set(mask.ravel()) - {255} == set(range(21))
    by_id = {sample.id: sample for sample in dataset.samples}
    assert by_id[VOC_SBD[0]].mask.suffix == {"aug": ".png", "sbd": ".mat"}[masks]
    assert by_id[VOC_TRAIN[0]].mask.parent.name.startswith("SegmentationClass")
    assert check_dataset(dataset).ok


def test_without_sbd_the_own_list_is_used(tmp_path):
    dataset = open_dataset(draw_voc(tmp_path, masks="none"))
    assert dataset.splits["train"] == VOC_TRAIN
    assert [p.code for p in dataset.problems] == ["without-sbd", "partial-copy"]
    assert dataset.samples[0].mask.parent.name == "SegmentationClass"


def test_published_counts_and_lists_agree():
    train, val = published_list("unimatch/voc/train_aug"), published_list("u2pl/voc/val")
    assert (len(train), len(val)) == (10_582, 1449)
    assert not set(train) & set(val)
