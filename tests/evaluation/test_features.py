import math

import pytest
import torch
from tests.gloo import two_processes

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.types import SegOutput
from pixelcontrast.evaluation import FeatureConfig, FeatureMeter, FeatureScores
from pixelcontrast.evaluation.features import FeatureMeters, feature_layers
from pixelcontrast.evaluation.separation import mean_distance

NAMES = ["a", "b", "c", "d", "e"]


def meter_of(vectors, labels, *, classes=5, ids=("x",), **options):
    """A meter that has seen rows of features as one image of a single row of pixels."""
    vectors = torch.as_tensor(vectors)
    meter = FeatureMeter("layer", classes, vectors.shape[1], FeatureConfig(**options))
    meter.update(vectors.T[None, :, None], torch.as_tensor(labels)[None, None], ids)
    return meter


def images(count=7, classes=5, width=6, size=(5, 9), seed=0):
    """Feature maps around class centres, labels with ignored pixels, names."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes + 1, (count, *size), generator=generator)
    centres = torch.randn(classes + 1, width, generator=generator)
    noise = torch.randn(count, *size, width, generator=generator)
    features = (centres[labels] + 0.7 * noise).permute(0, 3, 1, 2)
    labels[labels == classes] = 255
    return features, labels.to(torch.uint8), [f"image {i}" for i in range(count)]


def scores_of(features, labels, ids, *, groups=1, batch=100, **options):
    """Scores after a split over `groups` meters and batches, merged at the end."""
    meters = [
        FeatureMeter("layer", 5, features.shape[1], FeatureConfig(**options)) for _ in range(groups)
    ]
    for i, meter in enumerate(meters):
        mine = list(range(i, len(ids), groups))
        for start in range(0, len(mine), batch):
            rows = mine[start : start + batch]
            meter.update(features[rows], labels[rows], [ids[r] for r in rows])
    for other in meters[1:]:
        meters[0].merge(other)
    return meters[0].scores()


def test_two_classes_by_hand():
    scores = meter_of([[1.0, 0], [0, 1], [-1, 0], [-1, 0]], [0, 0, 1, 1], classes=2).scores()
    assert scores.classes[0].alignment == pytest.approx(math.sqrt(2) / 2, abs=1e-12)
    assert scores.classes[1].alignment == 0
    assert scores.alignment == pytest.approx(0.3535534, abs=1e-7)
    assert scores.alignment_squared == pytest.approx(0.5, abs=1e-12)
    assert scores.uniformity == pytest.approx(math.sqrt(2 + math.sqrt(2)), abs=1e-12)
    assert scores.neighbourhood == {1: scores.uniformity}
    low, high = scores.classes[0].bounds
    assert (low, high) == (pytest.approx(0.5), pytest.approx(1.0))
    assert scores.alignment_error == 0
    assert scores.similarity[0][1] == pytest.approx(-math.sqrt(0.5))


def test_three_centres_by_hand():
    scores = meter_of([[1.0, 0], [0, 1], [-1, 0]], [0, 1, 2], classes=3).scores()
    assert scores.uniformity == pytest.approx(1.6094757, abs=1e-7)
    assert scores.neighbourhood == {1: pytest.approx(1.4142136, abs=1e-7)}
    assert scores.alignment == 0
    assert scores.single == (0, 1, 2)


@pytest.mark.parametrize("classes", [2, 5])
def test_orthogonal_classes(classes):
    vectors = torch.eye(classes).repeat(3, 1)
    scores = meter_of(vectors, list(range(classes)) * 3, classes=classes).scores()
    assert scores.alignment == 0
    assert scores.uniformity == pytest.approx(math.sqrt(2), abs=1e-12)
    for value in scores.neighbourhood.values():
        assert value == pytest.approx(math.sqrt(2), abs=1e-12)


def test_the_definition_by_a_slow_form():
    features, labels, ids = images()
    scores = scores_of(features, labels, ids)
    rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]).double()
    rows = rows / rows.norm(dim=1, keepdim=True)
    groups = [rows[labels.flatten() == c] for c in range(5)]
    centres = torch.stack([g.mean(0) / g.mean(0).norm() for g in groups])
    pairs = [
        sum(float((v - w).norm()) for v in group for w in group) / len(group) ** 2
        for group in groups[:2]
    ]
    assert [one.alignment for one in scores.classes[:2]] == pytest.approx(pairs, abs=1e-7)
    squared = [float(torch.cdist(g, g).square().mean()) for g in groups]
    assert scores.alignment_squared == pytest.approx(sum(squared) / 5, abs=1e-9)
    apart = torch.cdist(centres, centres)
    assert scores.uniformity == pytest.approx(float(apart.sum()) / 20, abs=1e-9)
    for near in (1, 3):
        nearest = apart.sort(dim=1).values[:, 1 : near + 1]
        assert scores.neighbourhood[near] == pytest.approx(float(nearest.mean()), abs=1e-9)
    assert set(scores.neighbourhood) == {1, 3}
    assert [one.count for one in scores.classes] == [len(g) for g in groups]


@pytest.mark.parametrize("sample", [4096, 20])
def test_length_order_names_and_rotation_change_nothing(sample):
    features, labels, ids = images()
    before = scores_of(features, labels, ids, sample=sample)
    generator = torch.Generator().manual_seed(4)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    length = torch.rand(7, 1, 5, 9, generator=generator, dtype=torch.float64) + 0.1
    changed = torch.einsum("fg,bghw->bfhw", turn, features.double()) * length
    moved = torch.where(labels == 255, 255, (labels + 2) % 5)
    backwards = list(reversed(range(7)))
    after = scores_of(changed[backwards], moved[backwards], ids[::-1], sample=sample)
    assert after.alignment == pytest.approx(before.alignment, abs=1e-6)
    assert after.uniformity == pytest.approx(before.uniformity, abs=1e-9)
    assert after.neighbourhood[1] == pytest.approx(before.neighbourhood[1], abs=1e-9)
    assert after.alignment_squared == pytest.approx(before.alignment_squared, abs=1e-9)


@pytest.mark.parametrize("groups", [1, 2, 7])
@pytest.mark.parametrize("batch", [1, 3])
def test_any_split_of_the_images_gives_the_same(groups, batch):
    data = images()
    whole = scores_of(*data, sample=16)
    split = scores_of(*data, groups=groups, batch=batch, sample=16)
    assert split.alignment == whole.alignment
    assert split.alignment_error == whole.alignment_error > 0
    assert split.uniformity == pytest.approx(whole.uniformity, abs=1e-12)
    assert split.neighbourhood[3] == pytest.approx(whole.neighbourhood[3], abs=1e-12)
    assert split.alignment_squared == pytest.approx(whole.alignment_squared, abs=1e-12)


def test_a_sample_as_large_as_the_class_is_exact():
    features, labels, ids = images()
    exact = [
        mean_distance(features.permute(0, 2, 3, 1)[labels == c].contiguous()) for c in range(5)
    ]
    scores = scores_of(features, labels, ids, sample=100)
    assert [one.alignment for one in scores.classes] == pytest.approx(exact, abs=1e-12)
    assert scores.alignment_error == 0


def test_a_sample_of_many_features_is_within_its_error():
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(8_000, 8, generator=generator) + torch.tensor([1.0] + [0] * 7)
    meter = meter_of(vectors, [0] * 8_000, classes=1, sample=1024)
    one = meter.scores().classes[0]
    assert 0 < one.error < 0.01
    assert abs(one.alignment - mean_distance(vectors)) < 4 * one.error
    low, high = one.bounds
    assert low < one.alignment < high


def test_one_class_has_no_uniformity_and_no_exception():
    scores = meter_of([[1.0, 0.0], [0.0, 2.0]], [3, 3]).scores()
    assert math.isnan(scores.uniformity)
    assert scores.neighbourhood == {}
    values = scores.to_dict(NAMES)
    assert values["uniformity"] is None
    assert values["alignment"] == pytest.approx(math.sqrt(0.5))
    assert "U -" in scores.line()


def test_nothing_at_all():
    scores = meter_of(torch.zeros(3, 4), [0, 1, 255]).scores()
    assert scores.dropped == 2
    assert math.isnan(scores.alignment)
    assert scores.to_dict(NAMES)["alignment"] is None


def test_vectors_without_direction_are_dropped_and_counted():
    inf, nan = float("inf"), float("nan")
    vectors = [[1.0, 0], [0, 0], [nan, 1], [inf, 1], [0, 1]]
    scores = meter_of(vectors, [0, 0, 0, 1, 1], classes=2).scores()
    assert scores.dropped == 3
    assert [one.count for one in scores.classes] == [1, 1]
    assert scores.uniformity == pytest.approx(math.sqrt(2))


def test_a_class_whose_features_cancel_out_is_named_and_left_out_of_uniformity():
    scores = meter_of([[1.0, 0], [-1, 0], [0, 1], [1, 0]], [0, 0, 1, 2], classes=3).scores()
    assert scores.undirected == (0,)
    assert scores.uniformity == pytest.approx(math.sqrt(2))
    assert scores.classes[0].alignment == pytest.approx(1.0)
    assert scores.similarity[0] == (None, None, None)
    assert scores.similarity[1][0] is None


def test_classes_below_the_minimum_are_left_out_and_named():
    vectors = [[1.0, 0], [0, 1], [0, 1], [-1, 0]]
    scores = meter_of(vectors, [0, 1, 1, 2], classes=4, min_count=2).scores()
    assert scores.used == (1,)
    assert scores.excluded == (0, 2)
    assert scores.to_dict(NAMES[:4])["excluded"] == ["a", "c"]


def test_labels_are_read_at_the_resolution_of_the_features():
    features = torch.eye(4).T.reshape(1, 4, 2, 2)
    labels = torch.full((1, 6, 8), 9)
    labels[0, ::3, ::4] = torch.tensor([[0, 1], [2, 255]])
    meter = FeatureMeter("layer", 4, 4)
    meter.update(features, labels, ["x"])
    assert meter.counts.tolist() == [1, 1, 1, 0]
    assert torch.equal(meter.sums[:3], torch.eye(4, dtype=torch.float64)[:3])


def test_values_survive_json():
    import json

    scores = scores_of(*images(), sample=16)
    stored = json.loads(json.dumps(scores.to_dict(NAMES)))
    assert FeatureScores.from_dict(stored) == scores
    assert FeatureScores.from_dict(stored).alignment_bounds == scores.alignment_bounds
    with pytest.raises(ValueError, match="3 names for 5 classes"):
        scores.to_dict(NAMES[:3])
    with pytest.raises(ValueError, match="similarity"):
        FeatureScores.from_dict({**stored, "similarity": [[1.0]]})


@pytest.mark.parametrize("options", [{"sample": 1}, {"min_count": 0}, {"neighbours": (0,)}])
def test_settings_without_meaning_are_refused(options):
    with pytest.raises(ConfigError, match="feature metrics need"):
        FeatureConfig(**options)


def outputs(features):
    logits = torch.zeros(len(features), 5, *features.shape[-2:])
    return SegOutput(logits=logits, features=features, embedding=-features)


def test_every_layer_has_its_meter():
    features, labels, ids = images()
    output = outputs(features)
    assert list(feature_layers(output)) == ["classifier input", "embedding"]
    meters = FeatureMeters(5, FeatureConfig())
    meters.update(output, labels, ids)
    plain, mirrored = meters.scores()
    assert (plain.layer, mirrored.layer) == ("classifier input", "embedding")
    assert mirrored.alignment == pytest.approx(plain.alignment, abs=1e-12)
    vectors, classes = meters.samples(3)["embedding"]
    assert classes.tolist() == [c for c in range(5) for _ in range(3)]
    assert vectors.shape == (15, 6)


def _shares_of_rank(rank):
    """Scores with every process at work, and with one that has no image."""
    features, labels, ids = images()
    found = []
    for used in ([[0, 2, 4], [1, 3, 5, 6]], [[], [0, 1, 2, 3, 4, 5, 6]]):
        meters = FeatureMeters(5, FeatureConfig(sample=16))
        if rows := used[rank]:
            meters.update(outputs(features[rows]), labels[rows], [ids[r] for r in rows])
        found.append([layer.to_dict(NAMES) for layer in meters.reduce().scores()])
    return found


def test_two_processes_are_one():
    alone = FeatureMeters(5, FeatureConfig(sample=16))
    features, labels, ids = images()
    alone.update(outputs(features), labels, ids)
    first, second = two_processes(_shares_of_rank)
    for found in (*first, *second):
        for whole, stored in zip(alone.scores(), found, strict=True):
            together = FeatureScores.from_dict(stored)
            assert together.alignment == pytest.approx(whole.alignment, abs=1e-12)
            assert together.uniformity == pytest.approx(whole.uniformity, abs=1e-12)
            assert together.alignment_squared == pytest.approx(whole.alignment_squared, abs=1e-12)
            assert [c.count for c in together.classes] == [c.count for c in whole.classes]
