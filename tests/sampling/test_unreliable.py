import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.sampling import class_roles, pixels_of, ranked_between

P = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05])


def roles_of_one_pixel(label, *, labelled=False, reliable=False, unreliable=False, **ranks):
    maps = {"reliable": reliable, "unreliable": unreliable}
    maps = {k: torch.full((1 - labelled, 1, 1), v) for k, v in maps.items()}
    return class_roles(
        torch.full((1, 1, 1), label),
        P.log().view(1, 5, 1, 1),
        labelled=int(labelled),
        **maps,
        **ranks,
    )


def classes_of(negatives):
    return negatives.flatten().nonzero()[:, 0].tolist()


def test_a_labelled_pixel_is_a_negative_of_its_likely_wrong_classes():
    found = roles_of_one_pixel(0, labelled=True, low_rank=3, high_rank=4)
    assert classes_of(found.negatives) == [1, 2]
    assert found.anchors.item() == found.reliable.item() == 0


def test_an_unreliable_pixel_is_a_negative_of_its_unlikely_classes():
    found = roles_of_one_pixel(-1, unreliable=True, low_rank=2, high_rank=4)
    assert classes_of(found.negatives) == [2, 3]
    assert found.reliable.item() == -1
    assert classes_of(roles_of_one_pixel(0, reliable=True, low_rank=2, high_rank=4).negatives) == []


def test_the_released_rule_wants_the_label_itself():
    ranks = {"low_rank": 2, "high_rank": 4, "negative_rule": "own_label"}
    assert classes_of(roles_of_one_pixel(3, unreliable=True, **ranks).negatives) == [3]
    assert classes_of(roles_of_one_pixel(1, unreliable=True, **ranks).negatives) == []
    assert classes_of(roles_of_one_pixel(0, labelled=True, **ranks).negatives) == []


@pytest.mark.parametrize(("label", "anchor"), [(0, 0), (1, -1)])
def test_anchors_are_pixels_the_teacher_agrees_with(label, anchor):
    found = roles_of_one_pixel(label, reliable=True, low_rank=3, high_rank=5)
    assert found.reliable.item() == label
    assert found.anchors.item() == anchor


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_pixels_without_finite_scores_take_no_role(bad):
    scores = P.log().view(1, 5, 1, 1).repeat(2, 1, 1, 1)
    scores[:, 3] = bad
    found = class_roles(
        torch.zeros(2, 1, 1, dtype=torch.uint8),
        scores,
        torch.ones(1, 1, 1, dtype=torch.bool),
        torch.ones(1, 1, 1, dtype=torch.bool),
        labelled=1,
        low_rank=2,
        high_rank=4,
    )
    assert (found.reliable == -1).all()
    assert (found.anchors == -1).all()
    assert not found.negatives.any()


@settings(max_examples=30, deadline=None)
@given(
    classes=st.integers(2, 7),
    labelled=st.integers(0, 3),
    low=st.integers(1, 4),
    high=st.integers(2, 8),
    seed=st.integers(0, 99),
)
def test_roles_are_those_of_a_loop_over_pixels(classes, labelled, low, high, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, classes + 2, (3, 2, 3), generator=generator)
    scores = 3 * torch.randn(3, classes, 2, 3, generator=generator)
    reliable = torch.rand(3 - labelled, 2, 3, generator=generator) < 0.5
    unreliable = ~reliable
    found = class_roles(
        labels, scores, reliable, unreliable, labelled=labelled, low_rank=low, high_rank=high
    )
    for b, i, j in torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(3)):
        p = scores[b, :, i, j].softmax(0)
        label = int(labels[b, i, j])
        known = 0 <= label < classes
        trusted = known and (b < labelled or reliable[b - labelled, i, j])
        assert found.reliable[b, i, j] == (label if trusted else -1)
        agreed = trusted and p[label] > 0.3
        assert found.anchors[b, i, j] == (label if agreed else -1)
        for c in range(classes):
            rank = int((p > p[c]).sum())
            if b < labelled:
                negative = known and label != c and rank < low
            else:
                negative = unreliable[b - labelled, i, j] and low <= rank < high
            assert found.negatives[c, b, i, j] == bool(negative)


def test_huge_scores_keep_their_order():
    scores = torch.tensor([1e4, -1e4, 0.0, -9e3]).view(1, 4, 1, 1)
    assert ranked_between(scores, 1, 3).flatten().tolist() == [False, False, True, True]


def test_class_maps_keep_images_apart():
    labels = torch.tensor([[[0, 1], [2, 255]], [[1, 1], [0, 2]]])
    maps = pixels_of(labels, 3)
    assert maps.flatten(2).any(2).all()  # both images hold all three classes
    assert maps[1, 1].tolist() == [[True, True], [False, False]]
    assert not maps[1, 0, 0, 0]
