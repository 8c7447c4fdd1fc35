import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.types import LossReport
from pixelcontrast.losses import reweighted_consistency, segmentation_cross_entropy
from pixelcontrast.methods.u2pl import U2PL
from pixelcontrast.sampling import PseudoLabels, pseudo_labels
from tests.methods.tester import MethodTester

EMBEDDING = {"dim": 8, "layers": 2, "hidden": 16, "kernel": 3, "normalise": False}
OPTIONS = {
    "embedding": EMBEDDING,
    "anchors": 32,
    "negatives": 16,
    "queue": 300,
    "key_cap": 100,
    "supervised_epochs": 0,
    "min_probability": 0.1,
}


class TestU2PL(MethodTester):
    name = "u2pl"
    options: ClassVar[dict] = OPTIONS
    may_rise = ("unsupervised", "contrast")

    def built(self, classes=3, **changes):
        """A method with other settings."""
        other = type("Other", (type(self),), {"options": {**self.options, **changes}})
        return other().build(classes)

    def test_two_processes_equal_one(self):
        # A teacher in training mode normalises by its share of the batch where batch norm is not
        # synchronised, as on CPUs.
        super(TestU2PL, SharedStatistics()).test_two_processes_equal_one()

    def test_an_all_ignored_batch_gives_zero_terms_and_finite_gradients(self):
        method = self.build()
        batch = self.batch(method, ignore=True)
        rest = batch["unlabeled"]
        batch["unlabeled"] = replace(rest, valid=torch.zeros_like(rest.valid))
        report = method.losses(batch)
        report.total.backward()
        for name, term in report.terms.items():
            assert term.item() == 0.0, name
        for parameter in method.segmentor.parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all()

    def test_labelled_images_alone_come_first_and_the_teacher_is_the_student_meanwhile(self):
        method = self.built(supervised_epochs=2.0)
        batch = self.batch(method)
        values = self.steps(method, batch, 2)
        for terms in values:
            assert terms["ce"] > 0
            assert terms["unsupervised"] == terms["contrast"] == 0
        pairs = zip(
            method.segmentor.state_dict().values(),
            method.teacher.module.state_dict().values(),
            strict=True,
        )
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
        assert method.teacher.step == 0
        method.losses(batch).total.backward()
        head = list(method.segmentor.embedding_head.parameters())
        assert all(p.grad is not None and not p.grad.any() for p in head)

    def test_a_run_of_labelled_images_alone_is_refused(self):
        with pytest.raises(ConfigError, match="all of the run"):
            self.built(supervised_epochs=100.0)

    def test_the_teacher_keeps_batch_norm_statistics_of_its_own(self):
        method = self.build()
        before = {n: b.clone() for n, b in method.teacher.module.named_buffers()}
        method.losses(self.batch(method))
        moved = [n for n, b in method.teacher.module.named_buffers() if not b.equal(before[n])]
        assert any(name.endswith("running_mean") for name in moved)
        assert not any(module.training for module in method.teacher.module.modules())

    @pytest.mark.parametrize(
        ("kind", "uncertainty", "reliability"),
        [
            ("cutmix", "mixed", "lowest_alpha"),
            ("classmix", "mixed", "paper"),
            ("cutout", "clean", "lowest_alpha"),
            ("cutout", "mixed", "paper"),
            ("none", "clean", "paper"),
        ],
    )
    def test_every_switch_trains(self, kind, uncertainty, reliability):
        method = self.built(
            mix=kind,
            mix_probability=1.0,
            uncertainty_pass=uncertainty,
            anchor_reliability=reliability,
            negative_rule="own_label" if uncertainty == "mixed" else "paper",
        )
        report = method.losses(self.batch(method))
        report.total.backward()
        assert report.terms["unsupervised"] > 0
        assert all(term.isfinite() for term in report.terms.values())

    def test_what_is_known_about_a_pixel_is_mixed_with_it(self):
        method = self.built(mix_probability=1.0)
        rest = self.batch(method)["unlabeled"]
        logits = torch.randn(4, 3, 12, 16, generator=torch.Generator().manual_seed(0))
        pseudo = pseudo_labels(logits, rest.valid, entropy=True)
        seen = method._mixed(rest, pseudo, logits)
        foreign = (seen.image != rest.image).any(1)
        assert foreign.any()
        own = ~foreign & (rest.image != rest.image[[1, 0, 3, 2]]).any(1)
        for mine, mixed in (
            (pseudo.labels, seen.pseudo.labels),
            (pseudo.entropy, seen.pseudo.entropy),
        ):
            assert torch.equal(mixed[own], mine[own])
            assert torch.equal(mixed[foreign], mine[[1, 0, 3, 2]][foreign])
        for b, i, j in torch.cartesian_prod(torch.arange(4), torch.arange(12), torch.arange(16)):
            source = [1, 0, 3, 2][b] if foreign[b, 4 * i, 4 * j] else int(b)
            if foreign[b, 4 * i, 4 * j] or own[b, 4 * i, 4 * j]:
                assert torch.equal(seen.scores[b, :, i, j], logits[source, :, i, j])

    def test_the_student_may_see_strong_views_whose_labels_come_from_the_weak_ones(self):
        method = self.built(strong_view=True, mix="none")
        batch = self.batch(method)
        rest = batch["unlabeled"]
        pseudo = method.pseudo_labels(method.teacher(rest.image), rest, entropy=True)
        seen = method._mixed(rest, pseudo, torch.zeros(4, 3, 12, 16))
        assert torch.equal(seen.image, rest.strong[0])
        assert not torch.equal(seen.image, rest.image)
        assert seen.pseudo is pseudo
        method.losses(batch).total.backward()

    def test_mixing_happens_as_often_as_asked(self):
        method = self.built(mix_probability=0.5)
        rest = self.batch(method)["unlabeled"]
        pseudo = pseudo_labels(torch.zeros(4, 3, 12, 16), rest.valid, entropy=True)
        mixed = 0
        for method.batch_index in range(60):
            seen = method._mixed(rest, pseudo, torch.zeros(4, 3, 12, 16))
            mixed += not torch.equal(seen.image, rest.image)
        assert 18 < mixed < 42

    def test_one_labelled_and_one_unlabelled_image(self):
        method = self.built(mix_probability=1.0)
        report = method.losses(self.batch(method, batch=1))
        report.total.backward()
        assert all(term.isfinite() for term in report.terms.values())

    def test_171_classes(self):
        method = self.built(171, anchors=4)
        report = method.losses(self.batch(method))  # three of them occur
        report.total.backward()
        assert all(term.isfinite() for term in report.terms.values())

    def test_a_teacher_that_is_equally_unsure_everywhere_warns_and_trains_on(self):
        method = self.build()
        method.kept.patience = 2
        with torch.no_grad():
            for network in (method.segmentor, method.teacher.module):
                network.classifier[-1].weight.zero_()
                network.classifier[-1].bias.zero_()
        batch = self.batch(method)
        method.losses(batch)
        with pytest.warns(UserWarning, match=r"unreliable_percent = 20"):
            report = method.losses(batch)
        assert report.terms["unsupervised"].item() == 0.0
        report.total.backward()

    def split(self, percent, pseudo):
        return self.built(unreliable_percent=100.0 - percent)._split(pseudo)


class SharedStatistics(TestU2PL):
    __test__ = False
    options: ClassVar[dict] = {**OPTIONS, "teacher": {"buffers": "copy"}}


@pytest.mark.parametrize(("percent", "loss", "gamma"), [(75, 2, 1.0), (50, 2, 0.5), (40, 0, 0.0)])
def test_unsupervised_loss_by_hand(percent, loss, gamma):
    logits = torch.zeros(1, 2, 2, 4)
    logits[:, 0, 0], logits[:, 1, 0] = 100.0, -100.0
    pseudo = pseudo_labels(logits, torch.ones(1, 2, 4, dtype=torch.bool), entropy=True)
    split, threshold = TestU2PL().split(percent, pseudo)
    assert threshold.item() == pytest.approx(gamma * math.log(2), abs=1e-6)
    found = reweighted_consistency(torch.zeros(1, 2, 2, 4), pseudo.labels, split.learnt)
    assert found.item() == pytest.approx(loss * math.log(2), abs=1e-6)


def test_the_split_by_hand():
    entropy = torch.arange(11.0).view(1, 1, 11) / 10
    labels = torch.zeros(1, 1, 11, dtype=torch.long)
    valid = torch.ones(1, 1, 11, dtype=torch.bool)
    split, threshold = TestU2PL().split(80, PseudoLabels(labels, 1 - entropy, valid, entropy))
    assert threshold.item() == pytest.approx(0.8)
    assert split.learnt.sum() == 8
    assert torch.equal(split.unreliable, ~split.learnt)
    found = reweighted_consistency(torch.zeros(1, 2, 1, 11), labels, split.learnt)
    assert found.item() == pytest.approx(1.375 * math.log(2), rel=1e-5)


@pytest.mark.parametrize(("least", "kept"), [(1, 2), (2, 2), (3, 3), (4, 4), (5, 4)])
def test_hard_example_mining_by_hand(least, kept):
    q = torch.tensor([0.1, 0.5, 0.8, 0.95])
    logits = torch.stack([q, 1 - q]).log().view(1, 2, 1, 4)
    mask = torch.zeros(1, 1, 4, dtype=torch.long)
    found = segmentation_cross_entropy(logits, mask, ohem_threshold=0.7, ohem_min_kept=least)
    assert found.item() == pytest.approx(-q[:kept].log().mean().item(), rel=1e-5)


def test_the_whole_step_is_one_report():
    method = TestU2PL().build()
    report = method.losses(TestU2PL().batch(method))
    assert isinstance(report, LossReport)
    assert set(report.terms) == {"ce", "unsupervised", "contrast"}
    assert isinstance(method, U2PL)
    assert list(method.predictors()) == ["student", "teacher"]
