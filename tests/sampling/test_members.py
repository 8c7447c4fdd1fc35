import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.sampling import ClassMembers


def drawn(classes, images, height, width, seed, share=0.4):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(classes, images, height, width, generator=generator) < share


def positions(member):
    """Flat positions of the members of each class, by the obvious route."""
    return [row.flatten().nonzero()[:, 0] for row in member]


@settings(max_examples=40, deadline=None)
@given(
    classes=st.integers(1, 5),
    images=st.integers(1, 4),
    labelled=st.integers(0, 4),
    width=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_drawn_spread_and_last_members_are_members(classes, images, labelled, width, share, seed):
    member = drawn(classes, images, 3, width, seed, share)
    pool = ClassMembers.build(member, min(labelled, images))
    expected = positions(member)
    assert pool.total.tolist() == [len(p) for p in expected]
    generator = torch.Generator().manual_seed(seed)
    chosen = {
        "draw": pool.draw(9, generator),
        "spread": pool.spread(4, generator),
        "last": pool.last(4),
    }
    for name, numbers in chosen.items():
        pixels = pool.look_up(numbers)
        assert torch.equal(pixels.mine, numbers.valid)
        for row, places in enumerate(expected):
            found = pixels.position[row][numbers.valid[row]]
            assert torch.equal(found, places[numbers.number[row][numbers.valid[row]]])
            count = {"draw": 9 * (len(places) > 0)}.get(name, min(4, len(places)))
            assert numbers.valid[row].sum() == count
            if name == "last":
                assert torch.equal(found, places[-4:])
            elif name == "spread":
                assert (found.diff() > 0).all()


def test_all_members_are_equally_likely():
    member = torch.zeros(1, 1, 1, 30, dtype=torch.bool)
    member[..., ::3] = True
    pool = ClassMembers.build(member, 0)
    met = {"draw": torch.zeros(30), "spread": torch.zeros(30)}
    generator = torch.Generator().manual_seed(0)
    for _ in range(2000):
        for name, count in met.items():
            pixels = pool.look_up(getattr(pool, name)(3, generator))
            count.index_add_(0, pixels.position[0], torch.ones(3))
    for name, count in met.items():
        assert count[~member.flatten()].sum() == 0
        assert (count[::3] / 600 - 1).abs().max() < 0.15, name
