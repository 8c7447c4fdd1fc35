from __future__ import annotations

import copy
import io
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.memory import ClassQueue
from pixelcontrast.memory.storage import write_rows


def stored(queue, label):
    """Numbers in the slots of one class, in slot order."""
    keys, labels, valid = queue.keys()
    assert torch.equal(valid, labels >= 0)
    return keys[labels == label, 0].tolist()


def numbers(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None].repeat(1, 2)


def test_wraps_around():
    queue = ClassQueue(num_classes=2, capacity=5, dim=2)
    queue.enqueue(numbers(1, 2, 3), torch.zeros(3, dtype=torch.long))
    assert queue.count.tolist() == [3, 0]
    assert stored(queue, 0) == [1, 2, 3]
    assert stored(queue, 1) == []
    queue.enqueue(numbers(4, 5, 6, 7), torch.zeros(4, dtype=torch.long))
    assert stored(queue, 0) == [6, 7, 3, 4, 5]
    assert queue.pointer.tolist() == [2, 0]
    assert queue.count.tolist() == [5, 0]


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    steps=st.lists(st.integers(0, 25), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
)
def test_against_one_deque_a_class(capacity, steps, seed):
    classes = len(capacity)
    g = torch.Generator().manual_seed(seed)
    queue = ClassQueue(classes, capacity, dim=2)
    rings = [{"slots": {}, "pointer": 0} for _ in range(classes)]
    last = [deque(maxlen=size) for size in capacity]
    value = 0
    for rows in steps:
        labels = torch.randint(-1, classes + 2, (rows,), generator=g)
        labels[labels == classes + 1] = 255
        valid = torch.rand(rows, generator=g) < 0.8
        queue.enqueue(numbers(*range(value, value + rows)).view(rows, 2), labels, valid)
        for label, counts in zip(labels.tolist(), valid.tolist(), strict=True):
            if counts and 0 <= label < classes:
                ring = rings[label]
                ring["slots"][ring["pointer"]] = value
                ring["pointer"] = (ring["pointer"] + 1) % capacity[label]
                last[label].append(value)
            value += 1
    for label in range(classes):
        slots = rings[label]["slots"]
        assert stored(queue, label) == [slots[i] for i in range(len(slots))]
        assert sorted(stored(queue, label)) == list(last[label])
        assert queue.pointer[label] == rings[label]["pointer"]
        assert queue.count[label] == len(slots)
    keys, labels, _ = queue.keys()
    assert keys.shape == (sum(capacity), 2)
    assert not keys[labels < 0].any()
    assert not queue.rows[-1].any()  # the spare row takes zeros alone


def test_sorted_by_class_without_a_copy():
    queue = ClassQueue(3, 2, 4)
    queue.enqueue(torch.ones(6, 4), torch.tensor([2, 0, 1, 1, 0, 2]))
    keys, labels, _ = queue.keys()
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert keys.data_ptr() == queue.rows.data_ptr()
    assert keys.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_storage(dtype):
    queue = ClassQueue(1, 4, 3, dtype=dtype)
    keys = torch.rand(2, 3, requires_grad=True)
    queue.enqueue(keys, torch.zeros(2, dtype=torch.uint8))
    assert queue.keys().vectors.dtype == dtype
    assert torch.equal(queue.keys().vectors[:2], keys.detach().to(dtype))
    assert not queue.keys().vectors.requires_grad


def test_resumes_exactly():
    g = torch.Generator().manual_seed(0)
    queue = ClassQueue(3, 5, 2)

    def step(target):
        labels = torch.randint(0, 3, (7,), generator=g)
        keys = torch.rand(7, 2, generator=g)
        for each in target:
            each.enqueue(keys, labels)

    step([queue])
    file = io.BytesIO()
    torch.save(queue.state_dict(), file)
    file.seek(0)
    resumed = ClassQueue(3, 5, 2)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    step([queue, resumed])
    for name, value in queue.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_write_between_forward_and_backward_is_noticed():
    queue = ClassQueue(1, 4, 2)
    queue.enqueue(torch.ones(2, 2), torch.zeros(2, dtype=torch.long))
    anchors = torch.ones(1, 2, requires_grad=True)
    loss = (anchors @ queue.keys().vectors.T).sum()
    queue.enqueue(torch.ones(2, 2), torch.zeros(2, dtype=torch.long))
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


def test_nothing_arrives():
    queue = ClassQueue(2, 3, 2)
    before = copy.deepcopy(queue.state_dict())
    queue.enqueue(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    queue.enqueue(torch.ones(4, 2), torch.full((4,), 255))
    queue.enqueue(torch.ones(1, 2), torch.zeros(1, dtype=torch.long), torch.tensor([False]))
    for name, value in queue.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("capacity", [0, [3], [3, 0], [1, 2, 3]])
def test_impossible_capacity(capacity):
    with pytest.raises(ConfigError, match="capacity"):
        ClassQueue(2, capacity, 4)


def test_no_slot_is_written_twice(monkeypatch):
    # On a GPU the order of such writes would be undefined.
    def checked(store, slots, rows):
        written = slots[slots < len(store) - 1]
        assert written.unique().numel() == written.numel() == 3 + 1
        write_rows(store, slots, rows)

    monkeypatch.setattr("pixelcontrast.memory.queue.write_rows", checked)
    queue = ClassQueue(2, 3, 2)
    queue.enqueue(numbers(*range(9)), torch.tensor([0, 0, 1, 0, 0, 0, -1, 0, 5]))
    assert stored(queue, 0) == [4, 5, 7]  # of 0, 1, 3, 4, 5, 7


def test_keys_shared_by_all_processes_are_written_as_they_are():
    plain, shared = ClassQueue(3, 4, 2), ClassQueue(3, 4, 2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        keys = torch.rand(11, 2, generator=generator)
        labels = torch.randint(-1, 5, (11,), generator=generator)
        plain.enqueue(keys, labels)
        shared.write(keys, labels.clamp(-1, 3))
    assert torch.equal(plain.rows, shared.rows)
    assert torch.equal(plain.written, shared.written)


def test_drawn_rows_are_filled_ones_of_the_class_each_as_often():
    queue = ClassQueue(3, [4, 4, 8], 2)
    queue.enqueue(numbers(*range(9)), torch.tensor([0, 0, 0, 0, 0, 2, 2, 2, 5]))
    drawn = queue.draw(6000, torch.Generator().manual_seed(0))
    for label, filled in ((0, 4), (2, 3)):
        rows, counts = drawn[label].unique(return_counts=True)
        assert (queue.keys().labels[rows] == label).all()
        assert len(rows) == filled
        assert (counts - 6000 / filled).abs().max() < 250
    assert (drawn[1] < queue.rows.shape[0] - 1).all()  # an empty class: any row there is
