import json

import cv2
import numpy as np
import torch

from pixelcontrast.data.dataset import Sample
from pixelcontrast.engine import contact_sheets
from pixelcontrast.engine.config import parse_config
from pixelcontrast.engine.contact_sheets import describe_clusters, dimmed, write_sheet
from pixelcontrast.engine.folder import RunFolder
from pixelcontrast.engine.predict import Predictor
from pixelcontrast.evaluation import InferenceConfig

NAMES = ("cluster_00", "cluster_01", "cluster_02")


class Brightness(torch.nn.Module):
    """Dark pixels are cluster 0, bright ones cluster 1; nothing is cluster 2."""

    def forward(self, image):
        bright = image.float().mean(1, keepdim=True) > 128
        return torch.cat([~bright, bright, torch.zeros_like(bright)], dim=1) * 4.0


def test_a_sheet_dims_what_is_not_of_the_cluster():
    image = np.full((2, 2, 3), (200, 100, 60), np.uint8)
    inside = np.array([[True, False], [False, False]])
    found = dimmed(image, inside)
    assert found[0, 0].tolist() == [200, 100, 60]
    assert found[1, 1].tolist() == [30, 30, 30]


def test_a_sheet_holds_all_images_in_tiles_of_one_shape(tmp_path):
    images = [np.full((30, 40, 3), 40 * n, np.uint8) for n in range(5)]
    images[3] = np.full((50, 50, 3), 120, np.uint8)
    write_sheet(tmp_path / "sheet.png", images)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 184 - 4, 4 * 244 - 4, 3)  # tiles of 180 x 240, 4 between them
    for place, level in enumerate((0, 40, 80, 120, 160)):
        row, column = divmod(place, 4)
        assert (sheet[row * 184 + 90, column * 244 + 120] == level).all()
    assert (sheet[184 + 90, 244 + 120] == 255).all()


def test_clusters_are_described_by_size_images_sureness_and_sheets(tmp_path, monkeypatch):
    samples = []
    for number, bright in enumerate((0, 2, 8)):
        pixels = np.zeros((8, 8, 3), np.uint8)
        pixels[:bright] = 255
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
        samples.append(Sample(f"{number}", tmp_path / f"{number}.png"))
    palette = [(number, 0, 0) for number in range(3)]
    predictor = Predictor(
        Brightness(), {"classes": NAMES, "palette": palette}, inference=InferenceConfig()
    )
    monkeypatch.setattr(contact_sheets, "load", lambda *args, **kwargs: predictor)
    run = RunFolder(tmp_path / "run")
    tree = {"data": {"root": str(tmp_path), "workers": 0}, "eval": {"batch": 1}}
    config = parse_config({**tree, "method": {"name": "picie"}})
    dark, bright, none = describe_clusters(run, config, samples, torch.device("cpu"))
    assert (dark.name, bright.name, none.name) == NAMES
    assert (dark.share, bright.share, none.share) == ((64 + 48) / 192, (16 + 64) / 192, 0)
    assert (dark.images, bright.images, none.images) == (2, 2, 0)
    sure = np.exp(4) / (np.exp(4) + 2)
    np.testing.assert_allclose((dark.confidence, bright.confidence), sure, rtol=1e-5)
    assert none.confidence is None
    assert none.sheet is None
    made = run.root / "clusters"
    assert sorted(p.name for p in made.glob("*.png")) == ["cluster_00.png", "cluster_01.png"]
    assert len(list((made / "maps").iterdir())) == 3
    described = json.loads((made / "clusters.json").read_text())
    assert described["images"] == 3
    assert [c["share"] for c in described["clusters"]] == [dark.share, bright.share, 0]
    # The image that is all of a cluster comes first on its sheet.
    sheet = cv2.imread(str(made / "cluster_01.png"))
    assert (sheet[120, 120] == 255).all()
    assert (run.root / "names.yaml").is_file()
