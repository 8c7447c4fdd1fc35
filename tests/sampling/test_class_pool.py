import pytest
import torch

from pixelcontrast.core.seeding import generator_for
from pixelcontrast.sampling import ClassPool, draw_classes, other_class_weights

LABELS = torch.tensor([0, 2, -1, 2, 0, 255, 2, 0, 4, 3])
HARD = torch.tensor([1, 0, 1, 1, 0, 1, 1, 1, 0, 1], dtype=torch.bool)


@pytest.fixture
def pool():
    return ClassPool.build(LABELS, HARD, num_classes=5)


def test_pixels_are_sorted_by_class_and_hardness(pool):
    assert pool.sizes.tolist() == [3, 0, 3, 1, 1]
    assert pool.hard_sizes.tolist() == [2, 0, 2, 1, 0]
    assert pool.order[:8].tolist() == [0, 7, 4, 3, 6, 1, 9, 8]


def test_anchors_are_hard_pixels_of_their_class(pool):
    drawn = pool.hard_pixels(torch.tensor([2, 0, 3]), 2000, generator=generator_for("cpu", 0))
    assert drawn.shape == (3, 2000)
    assert [sorted(row.unique().tolist()) for row in drawn] == [[3, 6], [0, 7], [9]]
    assert (drawn[0] == 3).float().mean() == pytest.approx(0.5, abs=0.05)


def test_pixels_of_classes_are_uniform(pool):
    classes = torch.tensor([2, 0]).repeat(30_000)
    drawn = pool.pixels_of(classes, generator=generator_for("cpu", 0))
    assert (LABELS[drawn] == classes).all()
    counts = torch.bincount(drawn, minlength=10) / 30_000
    assert counts[[0, 1, 3, 4, 6, 7]].tolist() == pytest.approx([1 / 3] * 6, abs=0.01)


def test_negative_classes_follow_the_softmax_of_their_similarity():
    """A million draws: frequencies of the softmax within 0.2 %, pixels uniform within a class."""
    similarity = torch.tensor([[9.0, 0.3, -0.4], [0.3, 9.0, 0.0], [-0.4, 0.0, 9.0]]).double()
    weights = other_class_weights(similarity / 0.5, torch.ones(3, dtype=torch.bool))
    assert weights.diagonal().tolist() == [0, 0, 0]
    expected = torch.tensor([0.3, -0.4]).double().div(0.5).softmax(0)
    torch.testing.assert_close(weights[0, 1:], expected)
    drawn = draw_classes(weights[:1], 1_000_000, generator=generator_for("cpu", 0))
    found = torch.bincount(drawn[0], minlength=3) / 1_000_000
    assert found[0] == 0
    assert found[1:].tolist() == pytest.approx(expected.tolist(), abs=2e-3)


def test_absent_classes_are_no_negatives():
    weights = other_class_weights(torch.zeros(4, 4), torch.tensor([True, False, True, True]))
    assert weights[0].tolist() == pytest.approx([0, 0, 0.5, 0.5])
    drawn = draw_classes(weights, 1000, generator=generator_for("cpu", 0))
    assert set(drawn[3].tolist()) == {0, 2}
    alone = other_class_weights(torch.zeros(2, 2), torch.tensor([True, False]))
    assert alone[0].tolist() == [0, 0]


def test_sure_prototypes_give_one_class_without_overflow():
    similarity = torch.tensor([[0.0, -1e5, -2e5], [-1e5, 0.0, 0.0], [-2e5, 0.0, 0.0]]).double()
    weights = other_class_weights(similarity, torch.ones(3, dtype=torch.bool))
    assert weights[0].tolist() == [0, 1, 0]
    assert (draw_classes(weights[:1], 1000, generator=generator_for("cpu", 0)) == 1).all()


def test_values_that_are_not_numbers_break_nothing(pool):
    weights = torch.full((2, 5), torch.nan)
    classes = draw_classes(weights, 10, generator=generator_for("cpu", 0))
    drawn = pool.pixels_of(classes, generator=generator_for("cpu", 0))
    assert ((drawn >= 0) & (drawn < len(LABELS))).all()


def test_nothing_to_draw_from():
    pool = ClassPool.build(torch.full((4,), 255), torch.ones(4, dtype=torch.bool), num_classes=3)
    none = torch.zeros(0, dtype=torch.long)
    assert pool.sizes.tolist() == [0, 0, 0]
    assert pool.hard_pixels(none, 5, generator=generator_for("cpu", 0)).shape == (0, 5)
    assert draw_classes(torch.ones(0, 3), 5, generator=generator_for("cpu", 0)).shape == (0, 5)
