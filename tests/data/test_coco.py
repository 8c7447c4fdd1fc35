import json
import os
from pathlib import Path

import numpy as np
import pytest
from tests.data import layouts

from pixelcontrast.data.catalog import open_dataset, recognise
from pixelcontrast.data.checks import check_dataset
from pixelcontrast.data.coco import COCO, STUFF, STUFF10K, STUFF27
from pixelcontrast.data.coco_names import COARSE, FINE, FINE_TO_COARSE, UNUSED
from pixelcontrast.data.reading import read_mask


def test_coco(tmp_path):
    root = layouts.draw_coco(tmp_path)
    assert recognise(root) == "coco"
    dataset = open_dataset(root)
    assert {name: dataset.splits[name] for name in layouts.COCO} == layouts.COCO
    assert set(np.unique(read_mask(dataset.samples[0].mask, dataset.info))) == set(range(81))
    assert [COCO.classes[i] for i in (0, 1, 12, 80)] == [
        "background", "person", "stop sign", "toothbrush",
    ]  # fmt: skip
    assert check_dataset(dataset).ok


def test_stuff(tmp_path):
    root = layouts.draw_stuff(tmp_path)
    assert recognise(root) == "coco_stuff"
    dataset = open_dataset(root)
    mask = read_mask(dataset.samples[0].mask, dataset.info)
    assert set(np.unique(mask)) == {*range(171), 255}
    assert STUFF.classes[STUFF.label_map[0]] == "person"
    assert STUFF.classes[STUFF.label_map[12]] == "stop sign"
    assert STUFF.classes[STUFF.label_map[181]] == "wood"
    assert STUFF.label_map[11] == 255
    assert "train has 2 of 118,287 images" in dataset.problems[0].message
    assert check_dataset(dataset).ok


def test_stuff10k(tmp_path):
    root = layouts.draw_stuff10k(tmp_path)
    assert recognise(root) == "coco_stuff10k"
    dataset = open_dataset(root)
    assert dataset.splits["train"] == layouts.STUFF10K["train"]
    assert dataset.splits["val"] == layouts.STUFF10K["test"]
    mask = read_mask(dataset.samples[0].mask, dataset.info)
    assert set(np.unique(mask)) == {*range(171), 255}
    assert STUFF10K.classes == STUFF.classes
    assert all(STUFF10K.label_map[value + 1] == STUFF.label_map[value] for value in range(182))
    assert check_dataset(dataset).ok


def test_stuff27(tmp_path):
    dataset = open_dataset(layouts.draw_stuff(tmp_path / "all"), "coco_stuff27")
    mask = read_mask(dataset.samples[0].mask, dataset.info)
    assert set(np.unique(mask)) == {*range(27), 255}
    assert [p.code for p in dataset.problems] == ["partial-copy", "without-curated-lists"]
    assert STUFF27.classes[STUFF27.label_map[0]] == "person-things"
    assert STUFF27.classes[STUFF27.label_map[168]] == "plant-stuff"
    curated = open_dataset(layouts.draw_stuff(tmp_path / "some", curated=True), "coco_stuff27")
    assert curated.splits["train"] == layouts.COCO["train"][:1]
    assert [p.code for p in curated.problems] == ["partial-copy"]
    assert "of 49,629 images" in curated.problems[0].message


def test_names():
    assert len(FINE) == len(FINE_TO_COARSE) == 182
    assert (len(COARSE), len(UNUSED), len(STUFF.classes)) == (27, 11, 171)
    for value, group in enumerate(FINE_TO_COARSE):
        assert COARSE[group].endswith("things" if value < 91 else "stuff")


def test_mapping_is_the_reference():
    default = Path(__file__).parents[2].parent / "shared" / "reference"
    folder = Path(os.environ.get("PIXELCONTRAST_REFERENCE", default))
    path = folder / "coco_stuff_fine_to_coarse.json"
    if not path.is_file():
        pytest.skip("no reference values; PIXELCONTRAST_REFERENCE names their folder")
    reference = json.loads(path.read_text())
    assert list(FINE_TO_COARSE) == reference["fine_to_coarse"]
    assert [entry["name"] for entry in reference["fine"]] == list(FINE)
    assert {e["index"] for e in reference["fine"] if not e["annotated"]} == UNUSED
