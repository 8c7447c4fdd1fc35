"""No operation of the sampling and memory path may make the host wait for the device."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from pixelcontrast.core.seeding import generator_for
from pixelcontrast.sampling import gather_pixels, sample_anchors

spec = importlib.util.spec_from_file_location("dispatch", Path(__file__).with_name("dispatch.py"))
dispatch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dispatch)


def test_the_counter_sees_forcing_operations():
    x = torch.arange(4)
    with dispatch.OpCount() as seen:
        x[x > 1]
        x.unique()
        x.sum().item()
        x[torch.tensor([1])]
    assert sum(seen.forcing.values()) >= 3
    assert "index" in seen.forcing  # by a mask
    assert seen.forcing["index"] < seen.ops["index"]


def test_sampler_never_waits():
    labels = torch.randint(0, 19, (4, 32, 64))
    predictions = torch.randint(0, 19, (4, 32, 64))
    embedding = torch.rand(4, 8, 32, 64, requires_grad=True)
    generator = generator_for("cpu", 0)
    with dispatch.OpCount() as seen:
        sample = sample_anchors(labels, predictions, num_classes=19, generator=generator)
        gather_pixels(embedding, sample.index).sum().backward()
    assert not seen.forcing
    assert seen.total <= 100, seen.total
