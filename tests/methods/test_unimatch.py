from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.methods.segmentation import SegmentationLoss
from pixelcontrast.methods.unimatch import UniMatch, complementary_masks
from tests.methods.tester import MethodTester


def no_box(rest, purpose):
    return torch.ones(len(rest.image), 48, 64, dtype=torch.bool)


def whole_box(rest, purpose):
    return ~no_box(rest, purpose)


def fixed(monkeypatch, cls, values):
    """Replaces the losses by given numbers, in the order they are asked for."""
    left = iter(values)
    monkeypatch.setattr(cls, "masked", lambda *args: torch.tensor(next(left), requires_grad=True))
    monkeypatch.setattr(SegmentationLoss, "forward", lambda *args: {"ce": torch.ones(())})


class TestUniMatch(MethodTester):
    name = "unimatch"
    options: ClassVar[dict] = {"threshold": 0.0}
    may_rise = ("strong", "features")

    def test_the_weights_are_the_released_ones(self, monkeypatch):
        method = self.build()
        fixed(monkeypatch, type(method), [0.4, 0.8, 0.6])
        assert method.losses(self.batch(method)).total.item() == pytest.approx(0.8)

    def test_half_of_the_channels_of_every_stage_are_dropped_independently(self):
        method = self.build()
        stages = (torch.ones(6, 400, 2, 2), torch.ones(6, 300, 1, 1))
        for stage, changed in zip(stages, method._with_dropped_copies(2)(stages), strict=True):
            assert torch.equal(changed[:6], stage)
            dropped = changed[6:]
            assert dropped.shape == (4, *stage.shape[1:])
            assert set(dropped.unique().tolist()) == {0.0, 2.0}
            assert torch.equal(dropped.amax((2, 3)), dropped.amin((2, 3)))  # whole channels
            assert ((dropped[:, :, 0, 0] == 0).float().mean(1) - 0.5).abs().max() < 0.15
            assert not torch.equal(dropped[0], dropped[1])

    def test_an_empty_box_is_no_mixing_and_a_full_box_is_the_partner(self, monkeypatch):
        method = self.build()
        batch = self.batch(method)
        rest = batch["unlabeled"]
        pseudo = method.pseudo_labels(method.segmentor(rest.image), rest)
        alone = method.mix(rest.strong[0], pseudo, no_box(rest, ""))
        other = method.mix(rest.strong[0], pseudo, whole_box(rest, ""))
        order = [1, 0, 3, 2]
        assert torch.equal(alone.image, rest.strong[0])
        assert torch.equal(alone.pseudo.labels, pseudo.labels)
        assert torch.equal(other.image, rest.strong[0][order])
        assert torch.equal(other.pseudo.labels, pseudo.labels[order])
        assert torch.equal(other.pseudo.confidence, pseudo.confidence[order])

    def test_no_gradient_flows_through_the_pseudo_labels(self, monkeypatch):
        method = self.build()
        outputs = []
        method.segmentor.register_forward_hook(
            lambda m, args, output: outputs.append(output.logits) or output.logits.retain_grad()
        )
        terms = method.losses(self.batch(method)).terms
        terms["strong"].backward(retain_graph=True)
        assert outputs[0].grad is None
        terms["features"].backward()
        assert outputs[0].grad[:8].abs().sum() == 0
        assert outputs[0].grad[8:].abs().sum() > 0

    def test_the_strong_term_is_the_mean_over_both_views(self, monkeypatch):
        method = self.build()
        batch = self.batch(method)
        monkeypatch.setattr(UniMatch, "cutmix_keep", staticmethod(no_box))
        outputs = []
        method.segmentor.register_forward_hook(lambda m, args, output: outputs.append(output))
        found = method.losses(batch).terms["strong"]
        up = lambda x: F.interpolate(x, (48, 64), mode="bilinear")  # noqa: E731
        labels = up(outputs[0].logits[4:8]).argmax(1)
        losses = [F.cross_entropy(up(x), labels) for x in outputs[1].logits.split(4)]
        torch.testing.assert_close(found, 0.25 * (losses[0] + losses[1]) / 2)


class TestUniMatchWithTeacher(MethodTester):
    name = "unimatch"
    options: ClassVar[dict] = {"threshold": 0.0, "teacher": {}}
    may_rise = ("strong", "features")

    def test_the_teacher_labels_all_views(self):
        method = self.build()
        batch = self.batch(method)
        self.steps(method, batch, 2)
        passes = method.passes(batch)
        rest = batch["unlabeled"]
        expected = method.pseudo_labels(method.teacher(rest.image), rest)
        assert torch.equal(passes.pseudo.labels, expected.labels)
        assert torch.equal(passes.pseudo.confidence, expected.confidence)
        own = method.pseudo_labels(passes.clean.rows(4, 8), rest)
        assert not torch.equal(own.confidence, expected.confidence)


class TestUniMatchWithPixelContrast(MethodTester):
    name = "unimatch"
    options: ClassVar[dict] = {
        "threshold": 0.0,
        "contrast": {
            "name": "pico",
            "weight": 0.1,
            "embedding": {"dim": 8},
            "memory": {"pixels": 40, "pixels_per_image": 5, "max_regions": 8},
        },
    }
    may_rise = ("strong", "features", "contrast")


class TestUniMatchWithProbabilisticContrast(MethodTester):
    name = "unimatch"
    options: ClassVar[dict] = {
        "threshold": 0.0,
        "contrast": {
            "name": "prcl",
            "num_anchors": 32,
            "num_negatives": 32,
            "confidence_threshold": 0.0,
            "embedding": {"dim": 8, "hidden": 8, "variance_lr": 1.0},
        },
    }
    may_rise = ("strong", "features", "contrast")


class TestUniMatchV2WithUnreliableNegatives(MethodTester):
    name = "unimatch_v2"
    options: ClassVar[dict] = {
        "threshold": 0.0,
        "contrast": {
            "name": "u2pl",
            "anchors": 32,
            "negatives": 16,
            "queue": 300,
            "key_cap": 100,
            "min_probability": 0.1,
            "embedding": {"dim": 8, "layers": 2, "hidden": 16, "normalise": False},
        },
    }
    may_rise = ("strong", "contrast")


class TestUniMatchV2(MethodTester):
    name = "unimatch_v2"
    options: ClassVar[dict] = {"threshold": 0.0}
    may_rise = ("strong",)

    def test_the_weights_are_the_released_ones(self, monkeypatch):
        method = self.build()
        fixed(monkeypatch, type(method), [0.4, 0.8])
        assert method.losses(self.batch(method)).total.item() == pytest.approx(0.8)

    def test_views_get_complementary_channels_and_labelled_images_all(self):
        method = self.build()
        stages = (torch.ones(10, 40, 2, 2), torch.ones(10, 40, 1, 1), torch.ones(10, 30, 1, 1))
        changed = method._dropped(2)(stages)
        for stage, out in zip(stages, changed, strict=True):
            assert torch.equal(out[:2], stage[:2])
            first, second = out[2:6], out[6:]
            assert torch.equal(first + second, torch.full_like(first, 2.0))
            whole = (first == 1).flatten(1).all(1)
            assert whole.sum() == 2
            assert set(first[~whole].unique().tolist()) == {0.0, 2.0}
        assert torch.equal(changed[0][..., 0, 0], changed[1][..., 0, 0])  # equal widths share
        assert not torch.equal(changed[0][:, :30, 0, 0], changed[2][..., 0, 0])

    def test_the_teacher_gets_no_gradient(self):
        method = self.build()
        method.losses(self.batch(method)).total.backward()
        assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_half_of_the_images_rounded_down_keep_every_channel(count):
    draws = torch.rand(count, 50) < 0.5
    first, second = complementary_masks(draws, torch.randperm(count))
    assert torch.equal(first + second, torch.full((count, 50), 2.0))
    whole = (first == 1).all(1)
    assert whole.sum() == count // 2
    assert torch.equal(first[~whole], 2.0 * draws[~whole].float())
