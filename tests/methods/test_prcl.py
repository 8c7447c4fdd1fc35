import math
from typing import ClassVar

import pytest
import torch

from pixelcontrast.engine.config import parse_config
from pixelcontrast.losses import image_weighted_consistency
from pixelcontrast.methods import method_class
from pixelcontrast.recipes import load_recipe
from tests.methods.tester import MethodTester, drawn_batch

EMBEDDING = {"dim": 8, "hidden": 8, "variance_lr": 1.0}
OPTIONS = {
    "embedding": EMBEDDING,
    "num_anchors": 32,
    "num_negatives": 32,
    "confidence_threshold": 0.0,
    "image_threshold": 0.0,
    "teacher": {"buffers": "copy"},  # half a batch has other statistics of its own
}


class TestPRCL(MethodTester):
    name = "prcl"
    options: ClassVar[dict] = OPTIONS
    may_rise = ("unsupervised",)

    def test_one_labelled_image(self):
        method = self.build()
        batch = self.batch(method)
        batch["labeled"] = drawn_batch(method.streams[0], 3, batch=1)
        report = method.losses(batch)
        report.total.backward()
        assert all(term.isfinite() for term in report.terms.values())
        assert report.terms["contrast"] > 0

    def test_contrast_weight_follows_the_length_of_the_run(self):
        assert self.build().contrast.weight(50) == pytest.approx(math.exp(-5 / 4))

    def test_global_prototypes_are_in_the_checkpoint(self):
        method = self.build()
        self.steps(method, self.batch(method), 2)
        state = method.state_dict()
        assert state["contrast.prototypes.seen"].all()
        assert state["contrast.prototypes.precision"].dtype == torch.float64


class Alone(MethodTester):
    name = "prcl"


def build(**options):
    tester = Alone()
    tester.options = {**OPTIONS, **options}
    return tester, tester.build()


def test_teacher_with_statistics_of_its_own_normalises_by_the_batch():
    tester, method = build(teacher={"buffers": "own"})
    teacher = method.teacher.module
    before = {name: b.clone() for name, b in teacher.named_buffers() if "running_mean" in name}
    method.losses(tester.batch(method))
    assert not teacher.training
    used = [n for n, b in teacher.named_buffers() if n in before and not torch.equal(b, before[n])]
    assert any(name.startswith("encoder.") for name in used)
    # The heads of the contrast have no part in what the teacher does.
    assert not any(name.startswith(("embedding_head", "variance_head")) for name in used)


def test_an_unsure_teacher_gives_no_loss_and_a_warning():
    tester, method = build(image_threshold=1.1)
    method.kept.patience = 3
    batch = tester.batch(method)
    with pytest.warns(UserWarning, match=r"method\.image_threshold = 1\.1"):
        reports = [method.losses(batch) for _ in range(4)]
    report = reports[-1]
    assert report.terms["unsupervised"] == 0
    report.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_the_first_version_learns():
    """The AAAI version: prototypes of the batch, no virtual negatives."""
    tester, method = build(prototype="local", virtual_negatives=0)
    values = tester.steps(method, tester.batch(method), 6)
    assert values[-1]["contrast"] < values[0]["contrast"]


@pytest.mark.parametrize("mix", ["none", "cutmix", "classmix", "cutout"])
def test_every_mix(mix):
    tester, method = build(mix=mix)
    report = method.losses(tester.batch(method))
    assert report.terms["unsupervised"] > 0


def test_image_weight_by_hand():
    confidence = torch.tensor([[[0.99, 0.98], [0.5, 0.0]]])
    labels = torch.tensor([[[0, 1], [0, 255]]])
    valid = labels < 2
    loss = image_weighted_consistency(
        torch.zeros(1, 2, 2, 2), labels, valid & (confidence >= 0.97), valid
    )
    assert loss.item() == pytest.approx(0.462098, abs=1e-6)


def test_the_term_joins_another_method():
    term = {k: v for k, v in OPTIONS.items() if k not in ("image_threshold", "teacher")}
    tree = {"method": {"name": "fixmatch", "threshold": 0.0, "contrast": {"name": "prcl", **term}}}
    tester = Alone()
    tester.name, tester.options = "fixmatch", tree["method"]
    tester.options.pop("name")
    method = tester.build()
    report = method.losses(tester.batch(method))
    assert report.terms["contrast"] > 0
    report.total.backward()
    assert method.segmentor.variance_head.first.grad.any()


def test_a_partly_changed_head_keeps_the_published_rest():
    config = parse_config({"method": {"name": "prcl", "embedding": {"dim": 64}}}).method
    head = method_class("prcl").embedding_head(config)
    assert (head.dim, head.hidden, head.kernel, head.normalise) == (64, 256, 3, False)
    assert head.variance
    assert head.variance_lr == pytest.approx(5e-5 / 3.2e-3)


@pytest.mark.parametrize("data", ["scenes", "camvid_small"])
def test_recipes_equal_their_supervised_twins(data):
    recipe, twin = load_recipe(f"prcl_{data}_few"), load_recipe(f"supervised_{data}_few")
    for part in ("name", "method", "strong"):
        assert recipe.pop(part) != twin.pop(part, None)
    assert recipe["train"].pop("batch_unlabeled") == recipe["train"]["batch"]
    assert recipe == twin
