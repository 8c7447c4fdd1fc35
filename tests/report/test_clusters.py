import json

import pytest
from PIL import Image

from pixelcontrast.report.clusters import cluster_sheets
from pixelcontrast.report.run import read_run


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "secret.png").write_bytes(b"secret")
    folder = tmp_path / "clusters"
    folder.mkdir()
    Image.new("RGB", (8, 6), (200, 30, 30)).save(folder / "a.png")
    (folder / "damaged.png").write_bytes(b"no picture")
    rows = [
        {"name": "small", "share": 0.1, "images": 2, "confidence": 0.5, "sheet": "a.png"},
        {"name": "<large>", "share": 0.9, "images": 3, "confidence": 0.5, "sheet": "a.png"},
        {"name": "empty", "share": 0.0, "images": 0, "confidence": None, "sheet": None},
        {"name": "outside", "share": 0.2, "images": 1, "sheet": "../secret.png"},
        {"name": "damaged", "share": 0.3, "images": 1, "sheet": "damaged.png"},
        "nothing",
    ]
    (folder / "clusters.json").write_text(json.dumps({"images": 3, "clusters": rows}))
    return tmp_path


def test_sheets_by_size_and_nothing_from_outside_the_folder(run):
    sheets = cluster_sheets(read_run(run))
    assert [sheet.name for sheet in sheets] == ["<large>", "small"]
    assert sheets[0].text == "90.0 % of the pixels, in 3 images"
    assert sheets[0].data.startswith("data:image/jpeg;base64,")


def test_damaged_or_missing_numbers_are_no_clusters(run):
    (run / "clusters" / "clusters.json").write_text('{"clusters": [')
    assert cluster_sheets(read_run(run)) == []
    (run / "clusters" / "clusters.json").unlink()
    assert cluster_sheets(read_run(run)) == []
