import json

import pytest
import torch
from tests.conftest import TINY
from tests.data.layouts import draw_cityscapes, draw_pascal_context

from pixelcontrast.engine.config import DataConfig, parse_config
from pixelcontrast.engine.folder import RunFolder
from pixelcontrast.engine.heads import segmentor_with_heads
from pixelcontrast.engine.predict import load
from pixelcontrast.engine.scoring import _elsewhere, score_run
from pixelcontrast.evaluation import FeatureConfig


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    """The folder of a run with embeddings and averaged weights."""
    from pixelcontrast.engine.train import train

    tree = {**TINY, "data": {**TINY["data"], "root": str(scenes)}}
    tree |= {"name": "tiny", "method": {"name": "pico", "embedding": {"dim": 8}}}
    tree["train"] = {**TINY["train"], "steps": 2, "validate_every": 2}
    return train(tree, out=tmp_path_factory.mktemp("run") / "pico")


def stored(run, name="scores"):
    return json.loads((run.evaluation("val") / f"{name}.json").read_text())


def test_training_leaves_feature_and_boundary_scores(run):
    values = stored(run)
    assert [layer["layer"] for layer in values["features"]] == ["classifier input", "embedding"]
    assert [layer["width"] for layer in values["features"]] == [16, 8]
    assert values["features"][0]["classes"][0]["name"] == values["scores"]["classes"][0]["name"]
    assert values["boundary"]["distance"] == 3.0
    assert 0 < values["boundary"]["pixels"] < values["scores"]["pixels"]
    assert values["instances"] is None
    assert [picture["layer"] for picture in stored(run, "embedding")] == [
        "classifier input",
        "embedding",
    ]


def test_the_network_with_heads_is_the_model_file(run):
    config = parse_config(run.read_config())
    plain = load(run.root).segmentor
    full = segmentor_with_heads(run, config, plain.num_classes)
    image = torch.rand(1, 3, 48, 64) * 255
    assert not full.training
    torch.testing.assert_close(full(image, embed=True).logits, plain(image).logits)
    assert full(image, embed=True).embedding.shape[1] == 8


def test_scores_do_not_depend_on_the_heads(run):
    before = stored(run)
    moved = run.best.rename(run.best.with_suffix(".away"))
    try:
        outcome = score_run(run)
    finally:
        moved.rename(run.best)
    assert [layer.layer for layer in outcome.features] == ["classifier input"]
    after = stored(run)
    assert after["scores"] == before["scores"]
    assert after["features"][0] == before["features"][0]


def test_what_is_not_asked_for_is_not_measured(run):
    outcome = score_run(run, boundary=None, features=None)
    assert outcome.boundary is None
    assert outcome.features == ()
    assert stored(run)["features"] == []
    assert stored(run, "embedding") == []
    outcome = score_run(run, boundary=1.0, features=FeatureConfig(sample=8, neighbours=(2,)))
    assert outcome.boundary.distance == 1.0
    assert set(outcome.features[0].neighbourhood) == {2}


def test_damaged_checkpoints_cost_the_embeddings_alone(run, tmp_path):
    folder = RunFolder(tmp_path)
    folder.best.parent.mkdir()
    folder.best.write_bytes(b"no checkpoint")
    assert segmentor_with_heads(folder, parse_config(run.read_config()), 8) is None


def test_multi_scale_protocols_take_features_from_one_pass(run):
    from dataclasses import replace

    protocol = parse_config(run.read_config()).eval.inference
    plain = score_run(run).features
    several = replace(protocol, scales=(0.5, 1.0, 1.5), flip=True)
    assert score_run(run, inference=several).features == plain


def test_another_folder_is_read_like_the_runs_own_if_it_is_of_its_kind(tmp_path, scenes):
    city = draw_cityscapes(tmp_path / "city")
    context = draw_pascal_context(tmp_path / "context")
    for name, root, expected in (
        ("cityscapes27", city, "cityscapes27"),
        ("cityscapes", city, "cityscapes"),
        ("pascal_context60", context, "pascal_context60"),
        ("cityscapes27", scenes, "auto"),
        ("auto", city, "auto"),
    ):
        config = _elsewhere(DataConfig(name=name), root)
        assert (config.name, config.root) == (expected, root)
