from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.losses import rank_consistency
from pixelcontrast.methods.rankmatch import RankMatch, mixed_features
from pixelcontrast.methods.unimatch import UniMatch
from tests.methods.tester import MethodTester


def seen(monkeypatch):
    """Collects what the rank loss is given."""
    calls = []

    def record(*args, **kwargs):
        calls.append((args, kwargs))
        return rank_consistency(*args, **kwargs)

    monkeypatch.setattr("pixelcontrast.methods.rankmatch.rank_consistency", record)
    return calls


class TestRankMatch(MethodTester):
    name = "rankmatch"
    options: ClassVar[dict] = {"threshold": 0.0, "landmarks": 8}
    may_rise = ("strong", "features", "rank")

    def test_without_the_rank_loss_it_is_unimatch(self):
        method = self.build()
        batch = self.batch(method)
        plain = UniMatch(method.config, method.segmentor, method.task).losses(batch).terms
        found = method.losses(batch).terms
        assert found.keys() - plain.keys() == {"rank"}
        for name, term in plain.items():
            torch.testing.assert_close(found[name], term)

    def test_171_classes(self):
        method = self.build(classes=171)
        report = method.losses(self.batch(method, 171))
        assert report.total.isfinite()

    def test_views_and_features_are_mixed_alike(self, monkeypatch):
        calls = seen(monkeypatch)
        method = self.build()
        outputs = []
        method.segmentor.register_forward_hook(lambda m, args, output: outputs.append(output))
        batch = self.batch(method)
        boxes = [torch.zeros(4, *batch["unlabeled"].valid.shape[1:], dtype=torch.bool)] * 2
        boxes[1] = ~boxes[1]  # the first view shows the partner, the second the image itself
        drawn = iter(boxes)
        monkeypatch.setattr(RankMatch, "cutmix_keep", lambda *args: next(drawn))
        method.losses(batch)
        (student, teacher, index), kwargs = calls[0]
        weak = outputs[0].tapped[4:8]
        assert torch.equal(teacher, torch.cat([weak[[1, 0, 3, 2]], weak]))
        assert not teacher.requires_grad
        assert torch.equal(student, outputs[1].tapped)
        assert index.shape == (8, 8)
        assert kwargs["present"].all()

    def test_the_term_is_the_weighted_mean_over_both_views(self, monkeypatch):
        calls = seen(monkeypatch)
        method = self.build()
        found = method.losses(self.batch(method)).terms["rank"]
        (student, teacher, index), _ = calls[0]
        halves = [
            rank_consistency(s, t, i).loss
            for s, t, i in zip(student.split(4), teacher.split(4), index.split(4), strict=True)
        ]
        torch.testing.assert_close(found, 0.1 * torch.stack(halves).mean())

    def test_padding_is_no_landmark_and_does_not_count(self, monkeypatch):
        calls = seen(monkeypatch)
        method = self.build()
        batch = self.batch(method)
        valid = batch["unlabeled"].valid.clone()
        valid[:, :, 24:] = False
        batch["unlabeled"] = replace(batch["unlabeled"], valid=valid)
        method.losses(batch)
        (student, _, index), kwargs = calls[0]
        width = student.shape[-1]
        shown = kwargs["valid"]
        assert 0 < shown.sum() < shown.numel()
        assert shown.flatten(1).gather(1, index)[kwargs["present"]].all()
        assert not shown[:, :, width // 2 :].any()

    def test_the_aspp_map_is_compared_unless_another_is_named(self, monkeypatch):
        assert self.build().tap == "aspp"
        monkeypatch.setattr(type(self), "options", {**self.options, "tap": "features"})
        method = self.build()
        assert method.tap == "features"
        method.losses(self.batch(method)).total.backward()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"tap": "asp"}, "unknown tap 'asp'"),
            ({"ranked": 9, "landmarks": 20}, "9 landmarks cannot be ranked"),
            ({"ranked": 4, "landmarks": 3}, "4 of 3 landmarks"),
        ],
    )
    def test_settings_that_cannot_work_are_named(self, monkeypatch, options, message):
        monkeypatch.setattr(type(self), "options", options)
        with pytest.raises(ConfigError, match=message):
            self.build()

    def test_one_unlabelled_image_has_no_partner(self):
        method = self.build()
        with pytest.raises(ConfigError, match="single image"):
            method.losses(self.batch(method, batch=1))

    def test_landmarks_are_drawn_anew_every_step(self, monkeypatch):
        calls = seen(monkeypatch)
        method = self.build()
        batch = self.batch(method)
        for step in (0, 0, 1):
            method.batch_index = step
            method.losses(batch)
        first = [call[0][2][:, 0].tolist() for call in calls]
        assert first[0] == first[1] != first[2]


class TestRankMatchWithTeacher(MethodTester):
    name = "rankmatch"
    options: ClassVar[dict] = {"threshold": 0.0, "landmarks": 8, "ranked": 2, "teacher": {}}
    may_rise = ("strong", "features", "rank")

    def test_the_teacher_labels_and_ranks(self, monkeypatch):
        calls = seen(monkeypatch)
        method = self.build()
        assert list(method.predictors()) == ["student", "teacher"]
        batch = self.batch(method)
        self.steps(method, batch, 2)
        passes = method.passes(batch, tap="aspp")
        output = method.teacher(batch["unlabeled"].image, tap="aspp")
        assert torch.equal(passes.weak.tapped, output.tapped)
        assert torch.equal(passes.weak.logits, output.logits)
        assert not calls[0][0][1].requires_grad


@pytest.mark.parametrize(("crop", "cells"), [(81, 6), (97, 7), (33, 3)])
def test_coarse_mixing_equals_mixing_at_full_size(crop, cells):
    generator = torch.Generator().manual_seed(crop)
    features = torch.randn(2, 5, cells, cells, generator=generator)
    keep = torch.ones(2, crop, crop, dtype=torch.bool)
    keep[0, 11:47, 3:30] = False
    keep[1, :20, 17:] = False
    large = F.interpolate(features, (crop, crop), mode="bilinear", align_corners=True)
    pasted = torch.where(keep[:, None], large, large.flip(0))
    expected = F.interpolate(pasted, (cells, cells), mode="bilinear", align_corners=True)
    torch.testing.assert_close(mixed_features(features, keep), expected, rtol=0, atol=1e-5)
