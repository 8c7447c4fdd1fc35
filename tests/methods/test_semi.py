import sys
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.types import SegOutput
from pixelcontrast.engine.config import parse_config
from pixelcontrast.methods import method_class, semi
from pixelcontrast.methods.base import Task
from pixelcontrast.methods.contrast import CONTRASTS, ContrastTerm
from pixelcontrast.methods.kept import KeptWatch
from pixelcontrast.methods.semi import own_share
from pixelcontrast.models import EmbeddingConfig, ModelConfig, build_segmentor
from tests.methods.tester import drawn_batch


def build(name, classes=3, ema=None, **options):
    cls = method_class(name)
    config = parse_config({"method": {"name": name, **options}}).method
    torch.manual_seed(0)
    model = ModelConfig(encoder="test_resnet", decoder_channels=16, pretrained=False, dropout=0.0)
    segmentor = build_segmentor(model, classes, embedding=cls.embedding_head(config))
    return cls(config, segmentor, Task(classes, 255, total_steps=100, ema_decay=ema)).train()


def batch(method, classes=3, **kwargs):
    return {s.name: drawn_batch(s, classes, **kwargs) for s in method.streams}


class Recording(ContrastTerm):
    """A term that keeps what it is shown."""

    Config = EmbeddingConfig
    needs_teacher = True
    asked = True

    @classmethod
    def embedding_head(cls, config):
        return config

    def needs_embedding(self, step):
        return self.asked

    def forward(self, batch):
        from pixelcontrast.core.types import LossReport

        self.seen = batch
        return LossReport({"contrast": batch.student.embedding.square().mean()}, {})

    def after_step(self):
        self.stepped = True


@pytest.fixture(autouse=True)
def recording(monkeypatch):
    monkeypatch.setitem(CONTRASTS, "recording", f"{__name__}:Recording")
    monkeypatch.setattr(
        "pixelcontrast.methods.contrast.import_module",
        lambda name: sys.modules.get(name) or import_module(name),
    )


CONTRAST = {"name": "recording", "dim": 8}


TEACHERS = [("mean_teacher", {}), ("unimatch_v2", {}), ("unimatch", {"teacher": {}})]


@pytest.mark.parametrize(("name", "options"), TEACHERS)
def test_student_and_teacher_are_scored_and_no_third_average(name, options):
    method = build(name, ema=0.9, **options)
    assert list(method.predictors()) == ["student", "teacher"]
    assert method.predictor() is method.teacher.module
    assert method.ema is None
    assert list(build("unimatch", ema=0.9).predictors()) == ["student", "ema"]


def test_the_teacher_follows_after_every_step_without_gradient():
    method = build("unimatch_v2")
    students = []
    for step in range(2):
        with torch.no_grad():
            for parameter in method.segmentor.parameters():
                parameter.add_(step + 1.0)
        students.append([p.clone() for p in method.segmentor.parameters()])
        method.after_step()
        for place, mine in enumerate(method.teacher.module.parameters()):
            expected = torch.stack([s[place] for s in students]).mean(0)
            torch.testing.assert_close(mine, expected)
    assert not any(p.requires_grad for p in method.teacher.parameters())
    assert any(name.startswith("teacher.") for name in method.state_dict())


@pytest.mark.parametrize(("name", "options"), TEACHERS)
def test_a_contrast_term_sees_labelled_and_unlabelled_images_and_the_teacher(name, options):
    method = build(name, threshold=0.0, contrast=CONTRAST, **options)
    given = batch(method)
    report = method.losses(given)
    seen = method.contrast.seen
    assert "contrast" in report.terms
    assert seen.labelled == 4
    assert len(seen.student.embedding) == len(seen.teacher.embedding) == len(seen.labels) == 8
    assert not seen.teacher.embedding.requires_grad
    assert torch.equal(seen.labels[:4], given["labeled"].mask.long())
    assert (seen.confidence[:4] == 1).all()
    assert (seen.confidence[4:] < 1).all()
    method.after_step()
    assert method.contrast.stepped


def test_untrusted_and_padded_pixels_reach_the_term_as_ignored():
    method = build("mean_teacher", threshold=0.0, contrast=CONTRAST)
    given = batch(method)
    given["unlabeled"].valid[:, :10] = False
    method.losses(given)
    assert (method.contrast.seen.labels[4:, :10] == 255).all()
    assert (method.contrast.seen.labels[4:, 10:] < 3).all()
    method = build("mean_teacher", threshold=1.1, contrast=CONTRAST)
    method.losses(batch(method))
    assert (method.contrast.seen.labels[4:] == 255).all()


def test_steps_without_contrast_keep_the_head_in_the_graph(monkeypatch):
    monkeypatch.setattr(Recording, "asked", False)
    method = build("unimatch_v2", contrast=CONTRAST)
    report = method.losses(batch(method))
    assert report.terms["contrast"].item() == 0.0
    report.total.backward()
    assert all(p.grad is not None for p in method.segmentor.embedding_head.parameters())


def test_a_term_that_needs_a_teacher_is_refused_without_one():
    for name in ("fixmatch", "unimatch"):
        with pytest.raises(ConfigError, match="this method has none"):
            build(name, contrast=CONTRAST)


LANDMARKS = {"rankmatch": {"landmarks": 8}}


@pytest.mark.parametrize(
    "name", ["fixmatch", "mean_teacher", "unimatch", "unimatch_v2", "rankmatch"]
)
def test_unsure_everywhere_is_no_nan_and_warns_in_the_end(name):
    method = build(name, 171, **LANDMARKS.get(name, {}))
    method.kept.patience = 2
    given = batch(method, 171)
    method.losses(given)
    with pytest.warns(UserWarning, match=r"method\.threshold = 0\.9[57] is too strict"):
        report = method.losses(given)
    assert torch.isfinite(report.total)
    others = [v for n, v in report.terms.items() if n not in ("ce", "rank")]
    assert all(v.item() == 0.0 for v in others)
    assert report.stats["kept_share"] == 0


def test_one_unlabelled_image_a_process_is_named():
    method = build("fixmatch")
    given = batch(method)
    given["unlabeled"] = drawn_batch(method.streams[1], 3, batch=1)
    with pytest.raises(ConfigError, match="mixed with itself"):
        method.losses(given)


U2PL_TERM = {
    "anchors": 16,
    "negatives": 8,
    "queue": 200,
    "key_cap": 50,
    "min_probability": 0.0,
    "embedding": {"dim": 8, "layers": 2, "hidden": 8, "normalise": False},
}
PRCL_TERM = {
    "num_anchors": 16,
    "num_negatives": 8,
    "confidence_threshold": 0.0,
    "anchor_threshold": 1.0,
    "embedding": {"dim": 8, "hidden": 8},
}
TRUSTING = {
    "fixmatch": {"threshold": 0.0},
    "mean_teacher": {"threshold": 0.0},
    "unimatch": {"threshold": 0.0},
    "unimatch_v2": {"threshold": 0.0},
    "rankmatch": {"threshold": 0.0, "landmarks": 8},
    "u2pl": {**U2PL_TERM, "supervised_epochs": 0},
    "prcl": {**PRCL_TERM, "image_threshold": 0.0},
    "unimatch pico": {"threshold": 0.0, "contrast": {"name": "pico", "embedding": {"dim": 8}}},
    "unimatch prcl": {"threshold": 0.0, "contrast": {"name": "prcl", **PRCL_TERM}},
    "unimatch_v2 u2pl": {"threshold": 0.0, "contrast": {"name": "u2pl", **U2PL_TERM}},
}
"""Every method, with settings under which each of its terms has something to do at once."""


@pytest.mark.parametrize("classes", [2, 171])
@pytest.mark.parametrize("name", TRUSTING)
def test_one_labelled_image_and_few_or_many_classes_silence_no_term(name, classes):
    method = build(name.split()[0], classes, **TRUSTING[name])
    given = batch(method, classes)
    given["labeled"] = drawn_batch(method.streams[0], classes, batch=1)
    report = method.losses(given)
    report.total.backward()
    for term, value in report.terms.items():
        assert value > 0, term
        assert value.isfinite(), term
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("name", ["mean_teacher", "rankmatch", "u2pl", "unimatch_v2 u2pl"])
def test_no_value_is_read_back_in_a_step(name, monkeypatch):
    """Of whole steps; the terms of PiCo and PRCL, which plan on the host, have their own tests."""
    monkeypatch.setattr(KeptWatch, "note", lambda *_: None)  # has its own test
    method = build(name.split()[0], 5, **TRUSTING[name])
    given = batch(method, 5)
    # Fake tensors have no values: whatever needs one raises.
    with FakeTensorMode(allow_non_fake_inputs=True):
        report = method.losses(given)
        method.after_step()
    assert report.total.shape == ()


def test_scores_that_are_not_finite_are_left_out_and_counted():
    method = build("fixmatch", threshold=0.0)
    rest = batch(method)["unlabeled"]
    rest.valid[:, :12] = False
    logits = torch.zeros(4, 3, 48, 64)
    logits[:, 1, 12:21] = torch.nan
    pseudo = method.pseudo_labels(SegOutput(logits, logits), rest)
    keep = semi.confident(pseudo, 0.0)
    assert not keep[:, :21].any()
    stats = method.statistics(pseudo, keep, rest)
    assert stats["not_finite_share"] == 0.25
    assert stats["kept_share"] == 1


def test_hidden_masks_are_measured():
    method = build("fixmatch", threshold=0.0)
    given = batch(method)
    watched = drawn_batch(replace(method.streams[1], hidden_masks=True), 3)
    stats = method.losses({**given, "unlabeled": watched}).stats
    assert 0 <= stats["pseudo_accuracy"] <= 1
    assert stats["pseudo_precision"].shape == (3,)


def test_every_process_takes_its_own_rows(monkeypatch):
    assert own_share(torch.arange(3)).tolist() == [0, 1, 2]
    monkeypatch.setattr(semi, "world_size", lambda: 2)
    for rank, expected in enumerate([[0, 1, 2], [3, 4, 5]]):
        monkeypatch.setattr(semi, "rank", lambda rank=rank: rank)
        assert own_share(torch.arange(6)).tolist() == expected
