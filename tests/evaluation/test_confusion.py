import os
import socket
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelcontrast.core.errors import DataError
from pixelcontrast.evaluation import ConfusionMatrix


def slow_counts(prediction, target, num_classes, ignore_index):
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    ignored = 0
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t == ignore_index:
            ignored += 1
        else:
            counts[t, p] += 1
    return counts, ignored


def drawn(num_classes, shape, seed, ignore_index=255):
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(0, num_classes, shape, generator=generator)
    target = torch.randint(0, num_classes, shape, generator=generator)
    if ignore_index is not None:
        target[torch.rand(shape, generator=generator) < 0.2] = ignore_index
    return prediction, target


@settings(max_examples=40, deadline=None)
@given(
    num_classes=st.sampled_from([1, 2, 3, 19, 127, 128, 171, 254]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 10**6),
    types=st.tuples(
        st.sampled_from([torch.uint8, torch.int16, torch.int64]),
        st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]),
    ),
)
def test_counts_equal_a_loop_over_pixels(num_classes, height, width, seed, types):
    prediction, target = drawn(num_classes, (2, height, width), seed)
    confusion = ConfusionMatrix(num_classes)
    confusion.update(prediction.to(types[0]), target.to(types[1]))
    counts, ignored = slow_counts(prediction, target, num_classes, 255)
    assert torch.equal(confusion.counts, counts)
    assert int(confusion.ignored) == ignored


@pytest.mark.parametrize("ignore_index", [-1, -100, 0, 2, 254, 1000, None])
@pytest.mark.parametrize("dtype", [torch.int16, torch.int64])
def test_any_ignore_index(ignore_index, dtype):
    prediction, target = drawn(3, (1, 8, 8), seed=1, ignore_index=ignore_index)
    confusion = ConfusionMatrix(3, ignore_index)
    confusion.update(prediction.to(torch.uint8), target.to(dtype))
    counts, ignored = slow_counts(prediction, target, 3, ignore_index)
    assert torch.equal(confusion.counts, counts)
    assert int(confusion.ignored) == ignored


@pytest.mark.parametrize("ignore_index", [0, 2, 254, None])
def test_any_ignore_index_in_bytes(ignore_index):
    prediction, target = drawn(3, (1, 8, 8), seed=1, ignore_index=ignore_index)
    confusion = ConfusionMatrix(3, ignore_index)
    confusion.update(prediction.to(torch.uint8), target.to(torch.uint8))
    counts, ignored = slow_counts(prediction, target, 3, ignore_index)
    assert torch.equal(confusion.counts, counts)
    assert int(confusion.ignored) == ignored


def test_chunks_and_batches_add_up(monkeypatch):
    prediction, target = drawn(5, (4, 13, 17), seed=2)
    whole = ConfusionMatrix(5)
    whole.update(prediction, target)
    monkeypatch.setattr("pixelcontrast.evaluation.confusion.CHUNK_PIXELS", 100)
    parts = ConfusionMatrix(5)
    for p, t in zip(prediction, target, strict=True):
        parts.update(p.to(torch.uint8), t.to(torch.uint8))
    assert torch.equal(whole.counts, parts.counts)
    assert torch.equal(whole.ignored, parts.ignored)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_a_foreign_label_is_named_and_nothing_is_counted(dtype):
    prediction, target = drawn(19, (2, 6, 6), seed=3)
    target[1, 2, 3] = 19
    target[0, 0, 0] = 200
    confusion = ConfusionMatrix(19)
    with pytest.raises(DataError, match=r"19, 200") as caught:
        confusion.update(prediction.to(dtype), target.to(dtype), where="street_007")
    assert caught.value.where == "street_007"
    assert "dataset.yaml" in str(caught.value)
    assert int(confusion.counts.sum()) == 0
    assert int(confusion.ignored) == 0


def test_negative_labels_are_refused():
    with pytest.raises(DataError, match="-1"):
        ConfusionMatrix(2).update(torch.zeros(1, 1, 1).long(), torch.full((1, 1, 1), -1))


@pytest.mark.parametrize("wrong", [3, 255, -1])
def test_a_prediction_outside_the_classes_is_refused(wrong):
    with pytest.raises(ValueError, match="expected 0 to 2"):
        ConfusionMatrix(3).update(torch.full((1, 2, 2), wrong), torch.zeros(1, 2, 2).long())


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ"):
        ConfusionMatrix(3).update(torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 3).long())


def test_an_empty_batch_counts_nothing():
    confusion = ConfusionMatrix(3)
    confusion.update(torch.zeros(0, 4, 4).long(), torch.zeros(0, 4, 4).long())
    assert int(confusion.counts.sum()) == 0


def test_needs_a_class():
    with pytest.raises(ValueError, match="at least 1"):
        ConfusionMatrix(0)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("small", "large"),
    [((1, 1), (1, 1)), ((3, 5), (3, 5)), ((9, 17), (65, 129)), ((20, 20), (7, 9))],
)
def test_counts_from_logits_equal_the_naive_way(align_corners, small, large, monkeypatch):
    monkeypatch.setattr("pixelcontrast.evaluation.tiles.CPU_TILE_BYTES", 4 * 7 * 2 * 129 * 10)
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 7, *small, generator=generator)
    _, target = drawn(7, (2, *large), seed=5)
    naive = F.interpolate(logits, large, mode="bilinear", align_corners=align_corners).argmax(1)
    expected = ConfusionMatrix(7)
    expected.update(naive, target)
    confusion = ConfusionMatrix(7)
    confusion.update_from_logits(logits, target, align_corners=align_corners)
    assert torch.equal(confusion.counts, expected.counts)
    assert int(confusion.ignored) == int(expected.ignored)


def test_logits_of_another_class_count_are_refused():
    with pytest.raises(ValueError, match="expected 3"):
        ConfusionMatrix(3).update_from_logits(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 4).long())


def test_deterministic_mode_changes_nothing():
    prediction, target = drawn(19, (1, 64, 64), seed=6)
    usual, strict = ConfusionMatrix(19), ConfusionMatrix(19)
    usual.update(prediction, target)
    torch.use_deterministic_algorithms(True)
    try:
        strict.update(prediction, target)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(usual.counts, strict.counts)


def test_merge_and_reset():
    prediction, target = drawn(4, (1, 8, 8), seed=7)
    one, total = ConfusionMatrix(4), ConfusionMatrix(4)
    one.update(prediction, target)
    total.merge(one)
    total.merge(one)
    assert torch.equal(total.counts, 2 * one.counts)
    assert int(total.ignored) == 2 * int(one.ignored)
    total.reset()
    assert int(total.counts.sum()) == int(total.ignored) == 0


def test_scores_are_a_snapshot():
    prediction, target = drawn(4, (1, 8, 8), seed=8)
    confusion = ConfusionMatrix(4)
    confusion.update(prediction, target)
    scores = confusion.scores()
    confusion.update(prediction, target)
    assert 2 * sum(scores.pixels) == int(confusion.counts.sum())


def test_one_process_reduces_to_itself():
    confusion = ConfusionMatrix(4)
    confusion.update(*drawn(4, (1, 8, 8), seed=9))
    total = confusion.reduce()
    assert torch.equal(total.counts, confusion.counts)
    assert int(total.ignored) == int(confusion.ignored)


TWO_PROCESSES = """
import torch, torch.distributed as dist
from types import SimpleNamespace
from pixelcontrast.evaluation import ConfusionMatrix, evaluate

dist.init_process_group("gloo")
rank = dist.get_rank()
size = [3, 2][rank]  # an uneven share of 5 images

def batch(i):
    g = torch.Generator().manual_seed(i)
    image = torch.randint(0, 256, (1, 3, 6, 5), generator=g, dtype=torch.uint8)
    mask = torch.randint(0, 3, (1, 6, 5), generator=g, dtype=torch.uint8)
    return SimpleNamespace(image=image, mask=mask, ids=(f"image{i}",))

model = lambda image: image.float()
mine = [batch(i) for i in range(rank, 5, 2)]
assert len(mine) == size
both = evaluate(model, mine, num_classes=3)
alone = evaluate(model, [batch(i) for i in range(5)], num_classes=3, across_processes=False)
assert torch.equal(both.scores.confusion, alone.scores.confusion)
assert both.images == alone.images
counted = ConfusionMatrix(3)
counted.update(torch.zeros(1, 1, size).long(), torch.zeros(1, 1, size).long())
assert int(counted.reduce().counts.sum()) == 5
assert int(counted.reduce().counts.sum()) == 5  # not added twice
dist.destroy_process_group()
"""


def test_two_processes_count_every_image_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES],
            env={**os.environ, **common, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
