from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.memory import RegionMemory
from pixelcontrast.memory.storage import write_rows


@settings(max_examples=40, deadline=None)
@given(
    classes=st.integers(1, 4),
    slots=st.integers(1, 6),
    steps=st.lists(st.integers(0, 20), max_size=4),
    seed=st.integers(0, 1000),
)
def test_against_a_dictionary(classes, slots, steps, seed):
    g = torch.Generator().manual_seed(seed)
    memory = RegionMemory(classes, slots, 3)
    expected = {}
    for rows in steps:
        regions = torch.rand(rows, 3, generator=g)
        labels = torch.randint(-1, classes + 1, (rows,), generator=g)
        images = torch.randint(0, 9, (rows,), generator=g)  # beyond the slots: shared
        memory.store(regions, labels, images)
        for region, label, image in zip(regions, labels.tolist(), images.tolist(), strict=True):
            if 0 <= label < classes:
                expected[label, image % slots] = region
    keys, labels, valid = memory.keys()
    assert keys.shape == (classes * slots, 3)
    for row in range(classes * slots):
        place = divmod(row, slots)
        assert valid[row] == (place in expected)
        assert labels[row] == (place[0] if place in expected else -1)
        assert torch.equal(keys[row], expected.get(place, torch.zeros(3)))
    assert not memory.rows[-1].any()
    assert not memory.filled[-1]


def test_an_image_overwrites_its_own_entry():
    memory = RegionMemory(2, 10, 2, dtype=torch.float16)
    memory.store(torch.ones(2, 2), torch.tensor([1, 1]), torch.tensor([3, 4]))
    memory.store(torch.full((1, 2), 0.5), torch.tensor([1]), torch.tensor([3]))
    keys, labels, valid = memory.keys()
    assert keys.dtype == torch.float16
    assert torch.where(valid)[0].tolist() == [13, 14]
    assert labels[valid].tolist() == [1, 1]
    assert keys[13].tolist() == [0.5, 0.5]


def test_state_is_in_the_checkpoint():
    memory, other = RegionMemory(2, 3, 2), RegionMemory(2, 3, 2)
    memory.store(torch.rand(2, 2), torch.tensor([0, 1]), torch.tensor([0, 2]))
    other.load_state_dict(memory.state_dict())
    for mine, theirs in zip(memory.keys(), other.keys(), strict=True):
        assert torch.equal(mine, theirs)


def test_no_slot_is_written_twice(monkeypatch):
    # On a GPU the order of such writes would be undefined.
    def checked(store, slots, rows):
        written = slots[slots < len(store) - 1]
        assert written.unique().numel() == written.numel() == 2
        write_rows(store, slots, rows)

    monkeypatch.setattr("pixelcontrast.memory.regions.write_rows", checked)
    memory = RegionMemory(2, 3, 1)
    memory.store(torch.arange(4.0)[:, None], torch.tensor([1, 0, 1, 1]), torch.tensor([2, 2, 2, 5]))
    assert memory.keys().vectors[:, 0].tolist() == [0, 0, 1, 0, 0, 3]
