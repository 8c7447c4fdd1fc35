import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.losses.tiling import Share, on_host, ranks, roles, sort_rows


def make_rows(labels, images=None, own=None, size=8, cuts="even"):
    labels = ranks(labels)[0]
    ids = sort_rows(labels, images, own, size, torch.float64, cuts=cuts)
    return on_host(ids, ids.facts.tolist())


def test_ranks_keep_order_and_equality_of_any_ids():
    left = torch.tensor([2**60 + 1, 2**60, 5, -1, 5])
    right = torch.tensor([2**60, 7, -3])
    a, b = ranks(left, right)
    joint = torch.cat([a, b])
    assert joint.max() < len(joint)
    assert joint.tolist()[:5] == [a[0], a[1], a[2], -1, a[2]]
    assert a[1] == b[0] < a[0]
    assert a[2] < b[1] < b[0]
    assert b[2] == -1


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 70),
    keys=st.integers(1, 50),
    classes=st.integers(1, 9),
    images=st.integers(0, 3),
    negatives=st.booleans(),
    cuts=st.sampled_from(["even", "near", "pure"]),
    seed=st.integers(0, 99),
)
def test_roles_of_tiles_say_what_their_pairs_are(
    count, keys, classes, images, negatives, cuts, seed
):
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(-1, classes, (count,), generator=rng)
    z = torch.randint(-1, classes, (keys,), generator=rng)
    pictures = [torch.randint(0, max(images, 1), (n,), generator=rng) for n in (count, keys)]
    own = torch.randint(-1, keys, (count,), generator=rng)
    y, z = ranks(y, z)
    scoped = images > 0
    of_key = sort_rows(z, pictures[1] if scoped else None, None, 8, torch.float64, cuts="even")
    sorted_own = of_key.inverse[own.clamp_min(0)].masked_fill(own < 0, -1)
    of_row = sort_rows(y, pictures[0] if scoped else None, sorted_own, 8, torch.float64, cuts=cuts)
    rows, key_rows = (on_host(ids, ids.facts.tolist()) for ids in (of_row, of_key))

    order = rows.order if rows.order is not None else torch.arange(rows.count)
    key_order = key_rows.order if key_rows.order is not None else torch.arange(key_rows.count)
    assert sorted(order.tolist()) == (y >= 0).nonzero()[:, 0].tolist()
    assert [t.start for t in rows.tiles[1:]] == [t.stop for t in rows.tiles[:-1]]
    same = y[order][:, None] == z[key_order]
    itself = own[order][:, None] == key_order
    here = (pictures[0][order][:, None] == pictures[1][key_order]) if scoped else True
    positive = same & ~itself
    denominator = ~same & here & ~itself
    if not negatives:
        denominator = denominator | positive
    for row in rows.tiles:
        for key in key_rows.tiles:
            shares = roles(
                row,
                key,
                own_image=scoped,
                negatives=negatives,
                itself=row.own_low < key.stop and key.start <= row.own_high,
            )
            for share, mask in zip(shares, (denominator, positive), strict=True):
                part = mask[row.at, key.at]
                assert share is not Share.EVERY or part.all()
                assert share is not Share.NONE or not part.any()


def test_tiles_snap_to_classes_within_reach():
    labels = torch.tensor([0] * 10 + [1] * 9 + [2] * 13)
    plain = make_rows(labels, size=8)
    snapped = make_rows(labels, size=8, cuts="near")
    assert [t.start for t in plain.tiles] == [0, 8, 16, 24]
    assert [t.start for t in snapped.tiles] == [0, 10, 16, 24]  # 19 is three rows from 16


def test_pure_tiles_hold_one_class_each_unless_classes_are_tiny():
    labels = torch.tensor([0] * 60 + [1] * 100 + [2] * 45)
    starts = [t.start for t in make_rows(labels, size=64, cuts="pure").tiles]
    assert starts == [0, 60, 124, 160]
    tiny = make_rows(torch.arange(40) // 2, size=16, cuts="pure")
    assert [t.start for t in tiny.tiles] == [0, 16, 32]


def test_sorted_input_is_recognised():
    assert make_rows(torch.tensor([0, 0, 1, 5, -1])).order is None
    assert make_rows(torch.tensor([0, 1, 0])).order.tolist() == [0, 2, 1]
    assert make_rows(torch.tensor([-1, 0])).order.tolist() == [1]


@pytest.mark.parametrize("labels", [[], [-1, -1]])
def test_nothing_has_no_tiles(labels):
    rows = make_rows(torch.tensor(labels, dtype=torch.long))
    assert rows.tiles == ()
    assert rows.count == 0


def test_rows_return_to_their_places():
    rows = make_rows(torch.tensor([3, -1, 0, 3]))
    vectors = torch.arange(8.0).view(4, 2)
    taken = rows.take(vectors, torch.float64)
    assert taken.tolist() == [[4, 5], [0, 1], [6, 7]]
    assert rows.put_back(taken, 4).tolist() == [[0, 1], [0, 0], [4, 5], [6, 7]]
    leading = make_rows(torch.tensor([0, 1, -1]))
    assert leading.order is None
    assert leading.take(vectors[:3], torch.float64).tolist() == [[0, 1], [2, 3]]
    assert leading.put_back(vectors[:2], 3).tolist() == [[0, 1], [2, 3], [0, 0]]
