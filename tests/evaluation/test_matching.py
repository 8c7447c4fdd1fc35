"""Clusters matched to classes, against all permutations and against scores by hand."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gloo import two_processes

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.evaluation import ClusterCounts, ConfusionMatrix, match_clusters


def counted(table):
    """Counts that hold a given table."""
    table = torch.tensor(table)
    counts = ClusterCounts(*table.shape)
    counts.counts += table
    return counts


def test_two_classes_by_hand():
    scores = counted([[1, 9], [8, 2]]).match()
    assert scores.class_of_cluster == (1, 0)
    assert scores.pixel_accuracy == pytest.approx(0.85)
    assert scores.iou == pytest.approx((0.75, 8 / 11))
    assert scores.miou == pytest.approx(0.7386, abs=1e-4)
    assert scores.recall == pytest.approx((0.9, 0.8))
    assert scores.group([0]).accuracy == pytest.approx(0.9)
    assert scores.group([0], cropped=True).accuracy == 1


def test_groups_follow_classes_not_clusters():
    # things 0, 1 and stuff 2; clusters in another order
    scores = counted([[0, 8, 2], [1, 3, 6], [10, 0, 0]]).match()
    assert scores.class_of_cluster == (2, 0, 1)
    things, stuff = scores.group([0, 1]), scores.group([2])
    assert things.accuracy == pytest.approx(14 / 20)
    assert things.miou == pytest.approx((8 / 13 + 6 / 12) / 2)
    assert stuff.accuracy == 1
    assert stuff.miou == pytest.approx(10 / 11)
    cropped = scores.group([0, 1], cropped=True)
    assert cropped.accuracy == pytest.approx(14 / 19)
    assert cropped.miou == pytest.approx((8 / 13 + 6 / 11) / 2)


def tables(max_classes=4, max_clusters=5):
    shape = st.tuples(st.integers(1, max_classes), st.integers(1, max_clusters))
    return shape.flatmap(
        lambda s: st.lists(
            st.lists(st.integers(0, 9), min_size=s[1], max_size=s[1]),
            min_size=s[0],
            max_size=s[0],
        )
    )


@settings(max_examples=60, deadline=None)
@given(tables())
def test_hungarian_is_the_best_of_all_one_to_one_assignments(rows):
    table = torch.tensor(rows)
    classes, clusters = table.shape
    owners = match_clusters(table)
    used = [owner for owner in owners if owner >= 0]
    assert len(used) == len(set(used)) == min(classes, clusters)
    found = sum(int(table[owner, k]) for k, owner in enumerate(owners) if owner >= 0)
    longer, shorter = max(classes, clusters), min(classes, clusters)
    square = table if classes <= clusters else table.T
    best = max(
        sum(int(square[i, p]) for i, p in enumerate(order))
        for order in permutations(range(longer), shorter)
    )
    assert found == best


@settings(max_examples=40, deadline=None)
@given(tables(), st.sampled_from(["hungarian", "majority"]))
def test_scores_are_those_of_relabelled_pixels(rows, rule):
    table = torch.tensor(rows)
    grid = torch.meshgrid(*map(torch.arange, table.shape), indexing="ij")
    target, cluster = (i.flatten().repeat_interleave(table.flatten()) for i in grid)
    scores = counted(rows).match(rule)
    predicted = torch.tensor(scores.class_of_cluster)[cluster]
    for c, value in enumerate(scores.iou):
        union = ((target == c) | (predicted == c)).sum()
        both = ((target == c) & (predicted == c)).sum()
        assert value == (pytest.approx(float(both / union)) if union else None)
    right = (predicted == target).double()
    assert scores.pixel_accuracy == (pytest.approx(float(right.mean())) if len(right) else None)
    owners = [int(column.argmax()) if column.sum() else -1 for column in table.T]
    if rule == "majority":
        assert scores.class_of_cluster == tuple(owners)


def test_pixels_of_surplus_clusters_are_errors():
    scores = counted([[5, 0, 5], [0, 10, 0]]).match()
    assert scores.class_of_cluster.count(-1) == 1
    assert scores.pixel_accuracy == 0.75
    assert scores.iou == (0.5, 1.0)
    majority = counted([[5, 0, 5], [0, 10, 0]]).match("majority")
    assert majority.class_of_cluster == (0, 1, 0)
    assert majority.miou == 1


def test_fewer_clusters_than_classes():
    scores = counted([[5], [7], [0]]).match()
    assert scores.class_of_cluster == (1,)
    assert scores.without_cluster == (0, 2)
    assert scores.iou == (0.0, pytest.approx(7 / 12), None)
    assert scores.miou == pytest.approx(7 / 24)
    assert "clusters matched to classes: hungarian" in scores.table(["sky", "road", "car"])


def test_counts_of_maps_leave_out_the_ignored():
    counts = ClusterCounts(2, 3, ignore_index=255)
    target = torch.tensor([[[0, 1, 255, 1]]])
    counts.update(torch.tensor([[[2, 0, 1, 2]]]), target)
    assert counts.counts.tolist() == [[0, 0, 1], [1, 0, 1]]
    assert int(counts.ignored) == 1
    with pytest.raises(DataError, match="value 2"):
        counts.update(torch.zeros(1, 1, 4, dtype=torch.long), target + target.eq(1))
    with pytest.raises(ValueError, match="expected 0 to 2"):
        counts.update(torch.full((1, 1, 4), 3), target)
    # targets beyond a byte take another path
    counts = ClusterCounts(2, 3, ignore_index=-1)
    counts.update(torch.tensor([2, 0, 1]), torch.tensor([1, -1, 0]))
    assert counts.counts.tolist() == [[0, 1, 0], [0, 0, 1]]


def test_logits_of_more_clusters_than_classes():
    counts = ClusterCounts(2, 3)
    logits = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 2, (1, 8, 10), generator=torch.Generator().manual_seed(1))
    counts.update_from_logits(logits, target)
    full = torch.nn.functional.interpolate(logits, (8, 10), mode="bilinear").argmax(1)
    expected = torch.zeros(2, 3, dtype=torch.int64)
    expected.index_put_((target.flatten(), full.flatten()), torch.tensor(1), accumulate=True)
    assert torch.equal(counts.counts, expected)


def test_nothing_counted_gives_no_scores():
    scores = ClusterCounts(3, 3).match()
    assert scores.pixel_accuracy is None
    assert scores.miou is None
    assert scores.group([0, 1], cropped=True).accuracy is None
    assert ClusterCounts(3, 4).match("majority").class_of_cluster == (-1,) * 4


def test_equal_numbers_of_classes_agree_with_the_confusion_matrix():
    table = torch.randint(0, 50, (4, 4), generator=torch.Generator().manual_seed(2))
    table += 100 * torch.eye(4, dtype=torch.int64)
    confusion = ConfusionMatrix(4)
    confusion.counts += table
    scores, plain = counted(table.tolist()).match(), confusion.scores()
    assert scores.class_of_cluster == (0, 1, 2, 3)
    assert scores.iou == plain.iou
    assert scores.recall == plain.accuracy
    values = scores.to_dict(["a", "b", "c", "d"])
    assert values["miou"] == plain.miou
    assert values["classes"][1]["pixels"] == plain.pixels[1]


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match="unknown matching rule 'hungrian'"):
        match_clusters(torch.ones(2, 2, dtype=torch.int64), "hungrian")


def one_of_two(rank):
    counts = ClusterCounts(2, 3)
    counts.update(torch.tensor([rank, 2]), torch.tensor([rank, 0]))
    return counts.reduce().counts.numpy()


def test_counts_of_two_processes_add_up():
    for counts in two_processes(one_of_two):
        assert counts.tolist() == [[1, 0, 2], [0, 1, 0]]
