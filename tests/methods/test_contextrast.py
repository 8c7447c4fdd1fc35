from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.types import SegOutput
from pixelcontrast.losses.pixel_anchor import PixelAnchorLoss
from pixelcontrast.methods import contextrast
from pixelcontrast.methods.base import Task
from pixelcontrast.methods.contextrast import (
    Contextrast,
    ContextrastConfig,
    ContextrastContrast,
    fuse_anchors,
)
from pixelcontrast.methods.contrast import ContrastBatch
from pixelcontrast.models import LevelHeadsConfig, ModelConfig, build_segmentor
from tests.methods.tester import MethodTester

OPTIONS = {"heads": {"dim": 8}, "weight": 1.0}
IGNORE = 255


class TestContextrast(MethodTester):
    name = "contextrast"
    options = OPTIONS

    def test_heads_are_dropped_for_inference_and_leave_the_scores_alone(self):
        method = self.build()
        image = self.batch(method)["labeled"].image
        network = method.segmentor.eval()
        plain = network.inference_copy()
        assert plain.embedding_head is None
        with torch.no_grad():
            assert torch.equal(plain(image).logits, network(image, embed=True).logits)

    def test_warm_up_costs_nothing_and_keeps_the_heads_in_the_graph(self):
        method = self.build()
        method.contrast.config = replace(method.config, warmup_steps=5)
        seen = []
        method.segmentor.embedding_head.register_forward_hook(lambda *args: seen.append(1))
        report = method.losses(self.batch(method))
        assert not seen
        assert report.terms["contrast"].item() == 0.0
        report.total.backward()
        for parameter in method.segmentor.embedding_head.parameters():
            assert torch.count_nonzero(parameter.grad) == 0

    def test_the_contrast_reaches_every_level(self):
        method = self.build()
        output = method.segmentor(self.batch(method)["labeled"].image, embed=True)
        for stage in output.stages:
            stage.retain_grad()
        labels = self.batch(method)["labeled"].mask
        method.contrast(ContrastBatch(output, labels, 4, 0)).total.backward()
        assert all(stage.grad.abs().sum() > 0 for stage in output.stages)


def unit(*shape, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=g, dtype=dtype), dim=1)


def term(classes=2, seed=0, **options):
    config = ContextrastConfig(**options)
    return ContextrastContrast(
        config, Task(classes, IGNORE, 100), lambda _: torch.Generator().manual_seed(seed)
    )


def batch_of(levels, labels, logits):
    output = SegOutput(logits, logits, embedding=levels[-1], levels=tuple(levels))
    return ContrastBatch(output, labels, len(labels), 0)


def drawn(classes=4, seed=0, images=2):
    """Levels at strides 1, 2 and 4 of a 16 x 24 label map; class 3 is a single pixel."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes - 1, (images, 4, 6), generator=g)
    labels = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels[:, :2] = IGNORE
    labels[0, 7, 7] = classes - 1
    logits = torch.randn(images, classes, 4, 6, generator=g, dtype=torch.float64)
    levels = [unit(images, 5, 16 // s, 24 // s, seed=s) for s in (1, 2, 4)]
    return levels, labels, logits


class TestAnchors:
    def test_class_means_mixed_with_the_deepest_level(self):
        """Check 1 of the specification."""
        own = torch.tensor([[0.5, 0.5], [-1.0, 0.0]])
        deep = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
        there, missing = torch.tensor([True, True]), torch.tensor([True, False])
        fused = fuse_anchors(own, deep, there, missing, deep_weight=0.5)
        torch.testing.assert_close(fused, torch.tensor([[0.75, 0.25], [-1.0, 0.0]]))
        length = F.normalize(fused, dim=1)[0]
        torch.testing.assert_close(length, torch.tensor([0.948683, 0.316228]))
        fused = fuse_anchors(own, deep, there, missing, deep_weight=0.3)
        torch.testing.assert_close(fused[0], torch.tensor([0.65, 0.35]))

    def test_of_maps(self):
        shallow = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]).T.reshape(1, 2, 1, 3)
        deep = torch.tensor([[1.0, 0.0]]).T.reshape(1, 2, 1, 1)
        labels = [torch.tensor([[[0, 0, 1]]]), torch.tensor([[[0]]])]
        found = term(normalize_anchor=False)._anchors((shallow, deep), labels)
        expected = torch.tensor([[[0.75, 0.25], [-1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]])
        torch.testing.assert_close(found.fused, expected)
        assert found.present.tolist() == [[True, True], [True, False]]
        found = term()._anchors((shallow, deep), labels)
        torch.testing.assert_close(found.fused[0, 0], torch.tensor([0.948683, 0.316228]))

    @pytest.mark.parametrize(
        ("kind", "own", "deep"), [("full", True, True), ("own", True, False), ("none", 0, 0)]
    )
    def test_gradient_flows_where_it_may(self, kind, own, deep):
        levels, labels, _ = drawn()
        levels = [z.requires_grad_() for z in (levels[0], levels[2])]
        small = [labels, labels[:, ::4, ::4]]
        found = term(4, anchor_gradient=kind)._anchors(tuple(levels), small).fused
        assert found.requires_grad == bool(own)
        if own:
            gradient = torch.autograd.grad(found[0, 0, 0], levels, allow_unused=True)
            assert [bool(g.abs().sum() > 0) for g in gradient] == [own, deep]

    def test_ignored_pixels_belong_to_no_class_whatever_their_number(self):
        z = unit(1, 3, 1, 4)
        labels = torch.tensor([[[0, 1, 1, 0]]], dtype=torch.uint8)
        ignoring = ContextrastContrast(
            ContextrastConfig(), Task(2, 0, 100), lambda _: torch.Generator().manual_seed(0)
        )
        found = ignoring._anchors((z,), [ignoring._labels(labels, z)])
        assert found.present.tolist() == [[False, True]]


class TestLoss:
    def test_levels_are_weighted(self, monkeypatch):
        """Check 5: every class term 1 -> L_PA = 2.1, alpha L_PA = 0.21."""
        one, zero = torch.ones(()), torch.zeros(())
        monkeypatch.setattr(
            contextrast, "pixel_anchor_loss", lambda *a, **k: PixelAnchorLoss(one, zero, zero)
        )
        levels, labels, logits = drawn()
        report = term(4)(batch_of([levels[0], *levels], labels, logits))
        assert report.total.item() == pytest.approx(0.21)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"bane_error": "literal", "own_weight": 0.2, "deep_weight": 0.8},
            {"bane_error": "other_class_errors", "normalize_anchor": False, "temperature": 0.5},
        ],
    )
    def test_value_is_the_papers_formula(self, options):
        levels, labels, logits = drawn()
        module = term(4, weight=1.0, level_weights=(0.2, 0.5, 1.0), bane_ratio=1.0, **options)
        found = module(batch_of(levels, labels, logits)).total
        torch.testing.assert_close(
            found.double(), slow_loss(module.config, levels, labels, logits, 4)
        )

    @pytest.mark.parametrize("size", [(33, 47), (16, 24)])
    def test_scale_of_the_features_does_not_matter(self, size):
        """Guarantee (b), for the network's heads as a whole."""
        model = ModelConfig(encoder="test_resnet", decoder_channels=8, pretrained=False)
        network = build_segmentor(model, 3, embedding=LevelHeadsConfig(dim=4)).eval()
        image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
        before = network(image, embed=True).levels
        for head in network.embedding_head.values():
            for parameter in head[-1].parameters():
                parameter.data *= 7.0
        for one, other in zip(before, network(image, embed=True).levels, strict=True):
            torch.testing.assert_close(one, other)

    def test_order_of_the_classes_does_not_matter(self):
        levels, labels, logits = drawn()
        order = torch.tensor([2, 0, 3, 1])
        renamed = torch.where(labels == IGNORE, IGNORE, order.argsort()[labels.clamp(max=3)])
        module = term(4, level_weights=(0.2, 0.5, 1.0), bane_ratio=1.0)
        one = module(batch_of(levels, labels, logits)).total
        other = module(batch_of(levels, renamed, logits[:, order])).total
        torch.testing.assert_close(one, other)

    def test_ignored_pixels_get_no_gradient(self):
        """Guarantee (d)."""
        levels, labels, logits = drawn()
        levels = [z.requires_grad_() for z in levels]
        module = term(4, level_weights=(0.2, 0.5, 1.0), fallback="random")
        module(batch_of(levels, labels, logits)).total.backward()
        for z, stride in zip(levels, (1, 2, 4), strict=True):
            ignored = labels[:, ::stride, ::stride] == IGNORE
            per_pixel = z.grad.abs().sum(1)
            assert (per_pixel[ignored] == 0).all()
            assert per_pixel.sum() > 0

    @pytest.mark.parametrize("fallback", ["none", "random"])
    def test_a_perfect_prediction_leaves_nothing_or_random_negatives(self, fallback):
        levels, labels, _ = drawn()
        logits = F.one_hot(labels.clamp(max=3), 4).permute(0, 3, 1, 2).double()
        module = term(4, level_weights=(0.2, 0.5, 1.0), fallback=fallback)
        report = module(batch_of(levels, labels, logits))
        if fallback == "none":
            assert report.total.item() == 0.0
            assert report.stats["empty_negative_share"].item() == 1.0
        else:
            assert report.total.item() > 0.0
            assert report.stats["empty_negative_share"].item() < 0.2

    def test_random_negatives_belong_to_other_classes_and_only_to_empty_ones(self):
        _, labels, _ = drawn(images=4)
        labels = labels.masked_fill(labels == IGNORE, -1)
        prediction = labels.clamp(min=0).clone()
        prediction[0, 3] = (prediction[0, 3] + 1) % 3
        plain = term(4)._negatives(labels, prediction, torch.Generator().manual_seed(1))
        found = term(4, fallback="random")._negatives(
            labels, prediction, torch.Generator().manual_seed(1)
        )
        had = plain.sum((0, 2, 3)) > 0
        assert had.any()
        assert not had.all()
        assert torch.equal(found[:, had], plain[:, had])
        own = labels[:, None] == torch.arange(4)[:, None, None]
        assert not (found & (own | (labels < 0)[:, None])).any()
        assert (found.sum((0, 2, 3)) > 0).all()

    def test_every_level_needs_a_weight(self):
        levels, labels, logits = drawn()
        with pytest.raises(ConfigError, match="4 level weights for 3 encoder levels"):
            term(4)(batch_of(levels, labels, logits))
        with pytest.raises(ConfigError, match="level weights"):
            ContextrastConfig(heads=LevelHeadsConfig(levels=(3, 4)))

    def test_shares_must_be_shares(self):
        with pytest.raises(ConfigError, match="own_weight"):
            ContextrastConfig(own_weight=0.5, deep_weight=0.6)
        with pytest.raises(ConfigError, match="bane_ratio"):
            ContextrastConfig(bane_ratio=50)


def slow_loss(config, levels, labels, logits, classes):
    """Equations 1, 2, 5 and 6 written out, with all error pixels as negatives (K_s = 1)."""
    predictions = logits.argmax(1)
    maps = []
    for z in levels:
        height, width = z.shape[-2:]
        rows, columns = (
            [i * old // new for i in range(new)]
            for old, new in zip(labels.shape[1:], (height, width), strict=True)
        )
        label = labels[:, rows][:, :, columns]
        rows, columns = (
            [i * old // new for i in range(new)]
            for old, new in zip(predictions.shape[1:], (height, width), strict=True)
        )
        maps.append((z.permute(0, 2, 3, 1), label, predictions[:, rows][:, :, columns]))

    def anchor(level, n):
        pixels, label, _ = maps[level]
        return pixels[label == n].mean(0) if (label == n).any() else None

    total = torch.zeros((), dtype=torch.float64)
    for level, (pixels, label, guess) in enumerate(maps):
        values = []
        for n in range(classes):
            own, deep = anchor(level, n), anchor(-1, n)
            if own is None:
                continue
            if deep is not None:
                own = config.own_weight * own + config.deep_weight * deep
            if config.normalize_anchor:
                own = own / own.norm()
            wrong = (label != guess) & (label != IGNORE)
            inside = (
                wrong
                & {
                    "false_positive": guess == n,
                    "literal": label == n,
                    "other_class_errors": label != n,
                }[config.bane_error]
            )
            below = (pixels[inside] @ own / config.temperature).exp().sum()
            each = (pixels[label == n] @ own / config.temperature).exp()
            values.append(-(each / (each + below)).log().mean())
        total = total + config.level_weights[level] * torch.stack(values).mean()
    return total


def test_the_term_and_the_method_share_their_settings():
    assert issubclass(ContextrastConfig, ContextrastContrast.Config)
    config = ContextrastConfig()
    assert Contextrast.embedding_head(config) is ContextrastContrast.embedding_head(config)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_value_is_read_back(device):
    """Fake tensors have no values, so whatever makes the host wait for the device raises."""
    module = term(4, level_weights=(0.2, 0.5, 1.0), fallback="random")
    with FakeTensorMode():
        levels = [
            torch.rand(2, 5, 16 // s, 24 // s, device=device, requires_grad=True) for s in (1, 2, 4)
        ]
        labels = torch.zeros(2, 16, 24, dtype=torch.uint8, device=device)
        report = module(batch_of(levels, labels, torch.rand(2, 4, 4, 6, device=device)))
        assert report.total.device.type == device
