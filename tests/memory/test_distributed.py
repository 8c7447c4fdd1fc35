"""Two processes with two images each hold the memory of one process with the four images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.gloo import two_processes

from pixelcontrast.core.distributed import gather_rows, gather_rows_with_grad, mean_over_ranks
from pixelcontrast.losses import pixel_info_nce
from pixelcontrast.memory import ClassPrototypes, ClassQueue, GaussianPrototypes, RegionMemory
from pixelcontrast.sampling import gather_pixels, region_means, sample_per_class

CLASSES, DIM, IMAGES, STEPS = 4, 6, 4, 3


def train(process, processes):
    """Three steps of loss, then enqueue; what the process holds in the end."""
    memories = {
        "queue": ClassQueue(CLASSES, 11, DIM),
        "regions": RegionMemory(CLASSES, 9, DIM),
        "prototypes": ClassPrototypes(CLASSES, DIM, decay=0.9),
        "gaussians": GaussianPrototypes(CLASSES, DIM),
    }
    share = slice(process * IMAGES // processes, (process + 1) * IMAGES // processes)
    generator = torch.Generator().manual_seed(0)
    losses, gradients = [], []
    for step in range(STEPS):
        raw = torch.randn(IMAGES, DIM, 4, 5, generator=generator)
        labels = torch.randint(0, CLASSES, (IMAGES, 4, 5), generator=generator)
        labels[0] = 255  # the first process has half the valid pixels
        everyone = torch.Generator().manual_seed(step)
        drawn = sample_per_class(labels, 3, num_classes=CLASSES, generator=everyone)
        image = torch.arange(len(drawn.labels)) // 3 % IMAGES
        mine = image.ge(share.start) & image.lt(share.stop)
        index = drawn.index.masked_fill(~drawn.valid, share.start * 20)[mine] - share.start * 20
        pixel_labels = drawn.labels[mine]

        leaf = raw[share].clone().requires_grad_()
        embedding = F.normalize(leaf, dim=1)
        anchors = gather_pixels(embedding, index)
        stored, stored_labels, _ = memories["queue"].keys()
        all_anchors = gather_rows_with_grad(anchors)
        all_labels = gather_rows(pixel_labels)
        own = torch.arange(len(anchors)) + process * (len(all_anchors) // processes)
        terms = pixel_info_nce(
            anchors,
            pixel_labels,
            torch.cat([all_anchors, stored]),
            torch.cat([all_labels, stored_labels]),
            self_index_N=own,
            include_anchors=False,
            reduction="none",
        )
        loss = mean_over_ranks(terms.sum(), (terms > 0).sum())
        loss.backward()
        losses.append(loss.detach())
        gradients.append(leaf.grad / processes)  # what averaging over processes does

        regions = region_means(embedding.detach(), labels[share], num_classes=CLASSES)
        image_number = torch.arange(IMAGES)[share] + step
        memories["queue"].enqueue(anchors, pixel_labels, pixel_labels >= 0)
        memories["regions"].store(regions.vectors, regions.labels, image_number[regions.image])
        memories["prototypes"].update(anchors, pixel_labels)
        memories["gaussians"].update(anchors.detach(), anchors.detach() ** 2 + 0.1, pixel_labels)
    state = {f"{k}.{n}": v for k, m in memories.items() for n, v in m.state_dict().items()}
    return {"losses": torch.stack(losses), "gradients": torch.stack(gradients, 1), "state": state}


def trained(process):
    """`train` as one of two processes, as arrays."""
    found = train(process, 2)
    state = {name: value.numpy() for name, value in found.pop("state").items()}
    return {"state": state, **{name: value.numpy() for name, value in found.items()}}


@pytest.fixture(scope="module")
def two():
    return two_processes(trained)


@pytest.fixture(scope="module")
def one():
    return train(0, 1)


def test_same_memory_on_both_and_as_with_one_process(one, two):
    for name, expected in one["state"].items():
        held = [torch.as_tensor(found["state"][name]) for found in two]
        assert torch.equal(held[0], held[1]), name
        torch.testing.assert_close(held[0], expected, rtol=1e-6, atol=1e-7, msg=name)
    assert one["state"]["queue.written"].sum() > 30


def test_same_loss_and_gradient_as_with_one_process(one, two):
    averaged = sum(torch.as_tensor(found["losses"]) for found in two) / 2
    torch.testing.assert_close(averaged, one["losses"], rtol=1e-5, atol=1e-6)
    gradients = torch.cat([torch.as_tensor(found["gradients"]) for found in two])
    torch.testing.assert_close(gradients, one["gradients"], rtol=1e-5, atol=1e-6)
    assert one["gradients"].abs().sum() > 0.1
