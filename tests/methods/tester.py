"""What every training method has to pass; a method's test inherits `MethodTester`."""

import json
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from pixelcontrast.core.types import Batch
from pixelcontrast.engine.config import parse_config
from pixelcontrast.engine.train import train
from pixelcontrast.methods import method_class
from pixelcontrast.methods.base import Task
from pixelcontrast.models import ModelConfig, build_segmentor
from tests.gloo import two_processes

SIZE = (48, 64)

CLUSTER_MODEL = {
    "encoder": "test_resnet",
    "decoder": "picie_fpn",
    "decoder_channels": 16,
    "unit_features": True,
    "pretrained": False,
    "dropout": 0.0,
}
"""The smallest network that PiCIE trains."""


def cluster_network(classes, seed=0):
    torch.manual_seed(seed)
    return build_segmentor(ModelConfig(**CLUSTER_MODEL), classes)


def drawn_batch(stream, classes, batch=4, seed=0, ignore=False):
    """Rectangles of one colour a class on noise, so that a network can learn them at once.

    With `ignore` nothing counts: labelled images are all ignored, unlabelled ones all padding.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = SIZE
    mask = torch.zeros(batch, height, width, dtype=torch.uint8)
    for image in range(batch):
        for label in range(1, classes):
            top = int(torch.randint(0, height - 24, (), generator=generator))
            left = int(torch.randint(0, width - 24, (), generator=generator))
            mask[image, top : top + 24, left : left + 24] = label
    colours = torch.linspace(20, 235, classes)
    image = colours[mask.long()][:, None] + torch.tensor([0.0, 10.0, -10.0]).view(1, 3, 1, 1)
    image = (image + 8 * torch.randn(image.shape, generator=generator)).clamp(0, 255)
    if ignore:
        mask = torch.full_like(mask, 255)
    strong = tuple((255 - image).to(torch.uint8) for _ in range(stream.strong_views))
    return Batch(
        image=image.to(torch.uint8),
        valid=torch.full((batch, height, width), stream.labelled or not ignore),
        index=torch.arange(batch),
        ids=tuple(f"drawn{i}" for i in range(batch)),
        geometry=torch.eye(2, 3).expand(batch, 2, 3),
        mask=mask if stream.labelled else None,
        strong=strong,
        hidden_mask=mask if stream.hidden_masks else None,
    )


class MethodTester:
    """Set `name` and, where the defaults are unfit for tiny pictures, `options`."""

    name: str
    options: ClassVar[dict] = {}
    may_rise: ClassVar[tuple[str, ...]] = ()
    """Terms that need not fall from the first step on: those of labels the network makes itself."""

    def build(self, classes=3, seed=0):
        cls = method_class(self.name)
        config = parse_config({"method": {"name": self.name, **self.options}}).method
        torch.manual_seed(seed)
        model = ModelConfig(
            encoder="test_resnet", decoder_channels=16, pretrained=False, dropout=0.0
        )
        segmentor = build_segmentor(model, classes, embedding=cls.embedding_head(config))
        method = cls(config, segmentor, Task(classes, 255, total_steps=100, seed=seed))
        return method.train()

    def batch(self, method, classes=3, **kwargs):
        return {s.name: drawn_batch(s, classes, **kwargs) for s in method.streams}

    def steps(self, method, batch, count):
        optimizer = torch.optim.AdamW(
            [p for p in method.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0
        )
        values = []
        for step in range(count):
            method.batch_index = step
            report = method.losses(batch)
            optimizer.zero_grad()
            report.total.backward()
            optimizer.step()
            method.after_step()
            values.append({name: term.item() for name, term in report.terms.items()})
        return values

    @pytest.mark.parametrize("classes", [2, 3, 7])
    def test_every_loss_falls(self, classes):
        method = self.build(classes)
        values = self.steps(method, self.batch(method, classes), 12)
        for name in values[0].keys() - set(self.may_rise):
            assert values[-1][name] < values[0][name], name

    def test_an_all_ignored_batch_gives_zero_terms_and_finite_gradients(self):
        method = self.build()
        report = method.losses(self.batch(method, ignore=True))
        report.total.backward()
        for name, term in report.terms.items():
            assert term.item() == 0.0, name
        assert all(
            p.grad is None or torch.isfinite(p.grad).all() for p in method.segmentor.parameters()
        )

    def test_one_class_in_the_batch_is_finite(self):
        method = self.build()
        batch = self.batch(method)
        for stream in batch.values():
            if stream.mask is not None:
                stream.mask.fill_(1)
        report = method.losses(batch)
        report.total.backward()
        assert all(torch.isfinite(term) for term in report.terms.values())

    def test_every_parameter_that_learns_gets_a_gradient(self):
        method = self.build()
        method.losses(self.batch(method)).total.backward()
        without = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
        assert not without

    def test_bf16_autocast_is_close_to_float32(self):
        method = self.build()
        batch = self.batch(method)
        exact = method.losses(batch).terms
        with torch.autocast("cpu", torch.bfloat16):
            half = method.losses(batch).terms
        for name, term in exact.items():
            assert half[name].dtype == torch.float32
            torch.testing.assert_close(half[name], term, rtol=0.1, atol=0.05)

    def test_statistics_are_numbers_without_gradient(self):
        method = self.build()
        for name, value in method.losses(self.batch(method)).stats.items():
            value = torch.as_tensor(value)
            assert value.ndim <= 1, name
            assert not value.requires_grad, name
            if value.ndim == 0:
                assert torch.isfinite(value), name
            else:  # one a class, NaN where the step has none
                assert len(value) == 3, name
                assert not value.isinf().any(), name

    def test_hidden_masks_are_never_trained_on(self):
        method = self.build()
        streams = [s for s in method.streams if not s.labelled]
        if not streams:
            pytest.skip("no unlabelled stream")
        plain = method.losses(self.batch(method))
        batch = self.batch(method)
        for stream in streams:
            batch[stream.name] = drawn_batch(replace(stream, hidden_masks=True), 3)
        watched = self.build().losses(batch)  # a new one: losses may write to memories
        assert watched.stats.keys() > plain.stats.keys()
        for name, term in plain.terms.items():
            assert torch.equal(term, watched.terms[name]), name

    def test_two_processes_equal_one(self):
        single = _fixed_statistics(self.build())
        report = single.losses(self.batch(single))
        report.total.backward()
        single.after_step()
        expected = _gradients_and_memory(single)
        for found in two_processes(_one_step, type(self)):
            assert expected.keys() == found.keys()
            for name, value in expected.items():
                torch.testing.assert_close(
                    torch.as_tensor(found[name]), value, rtol=1e-3, atol=1e-5, msg=name
                )

    @pytest.mark.slow
    def test_a_killed_run_resumes_to_the_same_weights(self, tiny, tmp_path, monkeypatch):
        tiny["method"] = {"name": self.name, **self.options}
        whole = train(tiny, out=tmp_path / "whole")
        cls = method_class(self.name)
        losses = cls.losses

        def killed(method, batch):
            if method.global_step == 4:
                raise RuntimeError("killed")
            return losses(method, batch)

        monkeypatch.setattr(cls, "losses", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(tiny, out=tmp_path / "broken")
        monkeypatch.setattr(cls, "losses", losses)
        broken = train(tiny, out=tmp_path / "broken", resume=True)
        states = [torch.load(run.last, weights_only=True) for run in (whole, broken)]
        assert states[0]["state_dict"].keys() == states[1]["state_dict"].keys()
        for name, value in states[0]["state_dict"].items():
            torch.testing.assert_close(states[1]["state_dict"][name], value, rtol=0, atol=0)
        lines = [_losses(run) for run in (whole, broken)]
        assert lines[0] == lines[1]


def _losses(run):
    """Loss and score values of every line, without times."""
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    timed = {"seconds", "images_per_second"}
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]


def _fixed_statistics(method):
    """Batch norm in evaluation mode: half a batch has other statistics, and synchronised batch
    norm exists on GPUs only."""
    for module in method.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    return method


def _one_step(rank, tester):
    """Gradients and memory by name after one step on this process's half of the batch."""
    self = tester()
    method = _fixed_statistics(self.build())
    half = {name: _half(batch, rank) for name, batch in self.batch(method).items()}
    wrapped = DistributedDataParallel(_Losses(method), broadcast_buffers=False)
    wrapped(half).backward()
    method.after_step()
    return {name: value.numpy() for name, value in _gradients_and_memory(method).items()}


def _gradients_and_memory(method):
    """Gradients of the parameters, and what contrast terms remember, by name."""
    gradients = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    memory = {n: b for n, b in method.state_dict().items() if n.startswith("contrast.")}
    return {**gradients, **memory}


class _Losses(torch.nn.Module):
    def __init__(self, method):
        super().__init__()
        self.method = method

    def forward(self, batch):
        return self.method.losses(batch).total


def _half(batch, rank):
    part = slice(2 * rank, 2 * rank + 2)
    return Batch(
        image=batch.image[part],
        valid=batch.valid[part],
        index=batch.index[part],
        ids=batch.ids[part],
        geometry=batch.geometry[part],
        mask=None if batch.mask is None else batch.mask[part],
        strong=tuple(view[part] for view in batch.strong),
    )
