"""Sampling and memory never make the host wait for the device.

Fake tensors have shapes and a device but no values, so whatever has to read a value back (item,
nonzero, unique, a boolean index, a Python condition) raises; no GPU is needed for that.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from benchmarks.opcount import OpCount
from torch._subclasses.fake_tensor import FakeTensorMode

from pixelcontrast.core.seeding import generator_for
from pixelcontrast.memory import ClassPrototypes, ClassQueue, GaussianPrototypes, RegionMemory
from pixelcontrast.sampling import (
    PixelPool,
    draw_mixtures,
    gather_pixels,
    mixed_similarities,
    region_means,
    sample_anchors,
    sample_per_class,
    select_keys,
)

CLASSES, DIM = 19, 8


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_value_is_read_back(device):
    queue = ClassQueue(CLASSES, 20, DIM)
    generator = generator_for("cpu", 0)
    with FakeTensorMode():
        labels = torch.zeros(4, 16, 32, dtype=torch.uint8, device=device)
        embedding = F.normalize(torch.rand(4, DIM, 16, 32, device=device), dim=1)
        queue = ClassQueue(CLASSES, 20, DIM).to(device)
        regions = RegionMemory(CLASSES, 9, DIM).to(device)
        prototypes = ClassPrototypes(CLASSES, DIM, decay=0.9).to(device)
        gaussians = GaussianPrototypes(CLASSES, DIM).to(device)

        anchors = sample_anchors(labels, labels, num_classes=CLASSES, generator=generator)
        rows = gather_pixels(embedding, anchors.index)
        stored, stored_labels, _ = queue.keys()
        _, negatives = select_keys(rows, anchors.labels, stored, stored_labels, generator=generator)
        mixture = draw_mixtures(negatives, pairs=4, with_anchor=4, generator=generator)
        similarities = mixed_similarities(mixture, rows, stored)
        kept = sample_per_class(labels, 10, num_classes=CLASSES, generator=generator)
        queue.enqueue(gather_pixels(embedding, kept.index), kept.labels, kept.valid)
        means = region_means(embedding, labels, num_classes=CLASSES)
        regions.store(means.vectors, means.labels, means.image)
        prototypes.update(rows, anchors.labels)
        gaussians.update(rows, rows.abs(), anchors.labels)
        assert similarities.shape == (1024, 8)
        assert similarities.device.type == device
        with pytest.raises(Exception, match=r"item|data-dependent|_local_scalar_dense"):
            anchors.valid.sum().item()
        with pytest.raises(Exception, match=r"nonzero|aten"):
            anchors.index[anchors.valid]


def test_few_operations():
    generator = generator_for("cpu", 0)
    labels = torch.randint(0, CLASSES, (4, 32, 64))
    predictions = torch.randint(0, CLASSES, (4, 32, 64))
    embedding = torch.rand(4, DIM, 32, 64, requires_grad=True)
    queue = ClassQueue(CLASSES, 1000, DIM)
    with OpCount() as sampling:
        pool = PixelPool.build(labels, predictions, num_classes=CLASSES, generator=generator)
        anchors = pool.anchors(generator=generator)
        rows = gather_pixels(embedding, anchors.index)
    with OpCount() as backward:
        rows.sum().backward()
    with OpCount() as remembering:
        queue.keys()
        kept = pool.per_class(10, generator=generator)
        queue.enqueue(gather_pixels(embedding.detach(), kept.index), kept.labels)
    for counted in (sampling, backward, remembering):
        assert not counted.forcing
    # One scatter returns the gradient of all anchors.
    assert sum(backward.ops[name] for name in ("index_put", "index_put_", "_index_put_impl_")) == 1
    assert sampling.total <= 51, sampling.total
    assert remembering.total <= 56, remembering.total
    assert sampling.kernels + remembering.kernels <= 83


def test_the_counter_sees_forcing_operations():
    x = torch.arange(4)
    with OpCount() as seen:
        x[x > 1]
        x.unique()
        x.sum().item()
        x[torch.tensor([1])].view(1, 1)
    assert seen.forcing["index"] == 1  # the boolean one
    assert len(seen.forcing) >= 3
    assert seen.kernels < seen.total
