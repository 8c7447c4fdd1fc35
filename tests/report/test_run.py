import json

import pytest

from pixelcontrast.core.errors import DataError
from pixelcontrast.report.run import number, read_run


def test_a_whole_run(make_run):
    run = read_run(make_run(seed=3, splits=("test", "val")))
    assert (run.name, run.method, run.seed) == ("pico_streets", "pico", 3)
    assert run.finished
    assert run.problems == ()
    assert run.result.split == "val"
    assert run.miou == run.result.scores.miou
    assert run.classes[:2] == ("sky", "building")
    assert len(run.train) == 40
    assert len(run.val) == 10
    assert {entry.role for entry in run.result.images} == {"panel", "worst", None}


def test_the_headline_falls_back_to_the_best_validation(make_run):
    folder = make_run()
    (folder / "evaluation" / "val" / "scores.json").unlink()
    run = read_run(folder)
    assert run.result is None
    assert run.miou == run.best["miou"]


def test_lines_are_sorted_and_cut_ends_forgiven(make_run):
    folder = make_run(steps=20)
    lines = [{"kind": "train", "step": step, "loss": 1.0} for step in (30, 10, 20)]
    text = "\n".join(map(json.dumps, lines)) + '\n{"kind": "tr'
    (folder / "metrics.jsonl").write_text(text)
    run = read_run(folder)
    assert [line["step"] for line in run.train] == [10, 20, 30]
    assert run.problems == ()


def test_pictures_outside_the_folder_are_not_read(make_run, tmp_path):
    folder = make_run()
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    scores = folder / "evaluation" / "val" / "scores.json"
    values = json.loads(scores.read_text())
    values["images"][0]["files"] = dict.fromkeys(("image", "truth", "pred"), "../../../secret.jpg")
    values["images"][1]["files"] = dict.fromkeys(("image", "truth", "pred"), str(secret))
    scores.write_text(json.dumps(values))
    images = read_run(folder).result.images
    assert images[0].files == {}
    assert images[1].files == {}


def test_number_takes_finite_numbers_only():
    assert number(2) == 2.0
    assert number(0.5) == 0.5
    for wrong in (None, "1", True, float("nan"), float("inf"), [1]):
        assert number(wrong) is None


def test_a_folder_without_record_is_refused(tmp_path):
    with pytest.raises(DataError) as caught:
        read_run(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_boundary_features_instances_and_points_are_read(make_run):
    result = read_run(make_run(features=True, instances=True)).result
    assert result.boundary.distance == 3.0
    assert result.boundary.scores.miou == result.scores.miou
    assert [layer.layer for layer in result.features] == ["classifier input", "embedding"]
    assert result.instances["class_iiou"]["car"] == 0.25
    first = result.embeddings[0]
    assert len(first.labels) == len(first.pca) == len(first.tsne) == 160
    assert first.pca_share == 0.4


def test_runs_without_them_are_read(make_run):
    result = read_run(make_run()).result
    assert (result.boundary, result.features, result.embeddings) == (None, (), ())
    assert result.instances == {}


@pytest.mark.parametrize(
    "features", [3, [3], [{}], [{"layer": "a", "classes": [{"count": "x"}]}], {"a": 1}]
)
def test_damaged_feature_scores_are_left_out(make_run, features):
    folder = make_run(features=True)
    path = folder / "evaluation" / "val" / "scores.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "features": features}))
    run = read_run(folder)
    assert run.result.features == ()
    assert "feature scores" in run.problems[0]
    assert run.miou is not None


@pytest.mark.parametrize("boundary", [3, {"distance": "x"}, {"distance": 3, "confusion": [[1, 2]]}])
def test_damaged_boundary_scores_are_left_out(make_run, boundary):
    folder = make_run(features=True)
    path = folder / "evaluation" / "val" / "scores.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boundary": boundary}))
    assert read_run(folder).result.boundary is None


@pytest.mark.parametrize(
    "change",
    [{"labels": [99] * 160}, {"labels": [0]}, {"pca": [[1, "x"]] * 160}, {"tsne": [[1, 2]]}],
)
def test_pictures_that_do_not_fit_are_left_out(make_run, change):
    folder = make_run(features=True)
    path = folder / "evaluation" / "val" / "embedding.json"
    first, second = json.loads(path.read_text())
    path.write_text(json.dumps([{**first, **change}, second, 3]))
    assert [e.layer for e in read_run(folder).result.embeddings] == ["embedding"]
    path.write_text("{")
    assert read_run(folder).result.embeddings == ()
