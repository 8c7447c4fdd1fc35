"""Runs of several stages: written, refused early, trained, killed and resumed."""

import copy
import json

import pytest
import torch
from tests.conftest import TINY

import pixelcontrast as pc
from pixelcontrast.core.errors import ConfigError, DataError, TrainingError
from pixelcontrast.engine.config import dump_config, parse_config
from pixelcontrast.engine.folder import RunFolder
from pixelcontrast.engine.prepare import prepare
from pixelcontrast.engine.stages import stage_changes, stage_trees
from pixelcontrast.engine.train import train
from pixelcontrast.methods.label_pretrain import LabelPretrain
from pixelcontrast.methods.supervised import Supervised
from pixelcontrast.models.weights import read_model

PRETRAIN = {"name": "label_pretrain", "embedding": {"dim": 8, "layers": 3, "hidden": 16}}


def staged_tree(root):
    """Pretraining for four steps, then fine-tuning for six."""
    tree = copy.deepcopy(TINY)
    tree["data"]["root"] = str(root)
    tree["method"] = PRETRAIN
    tree["strong"] = {"brightness": 0.5}
    tree["stages"] = {
        "pretrain": {"train": {"steps": 4, "checkpoint_every": 2, "ema": None}},
        "finetune": {"method": {"name": "supervised"}},
    }
    return tree


@pytest.fixture
def staged(scenes):
    return staged_tree(scenes)


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory):
    """The unbroken run."""
    return train(staged_tree(scenes), out=tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def whole_semi(scenes, tmp_path_factory):
    """The unbroken run with a second round."""
    return train(semi(staged_tree(scenes)), out=tmp_path_factory.mktemp("runs") / "semi")


def semi(tree):
    """As `staged`, then a second round on true and pseudo-labels."""
    tree = copy.deepcopy(tree)
    tree["data"]["labeled"] = 5
    tree["stages"] |= {
        "pretrain2": {
            "start": "initial",
            "pseudo_labels": {"threshold": 0.14, "thresholds": {"sky": 0.9}},
            "train": {"steps": 2, "ema": None},
        },
        "finetune2": {"method": {"name": "supervised"}, "train": {"steps": 3}},
    }
    return tree


class TestTrees:
    def test_a_stage_changes_what_it_names(self, staged):
        trees = stage_trees(staged)
        assert list(trees) == ["pretrain", "finetune"]
        assert trees["pretrain"]["method"] == PRETRAIN
        assert trees["finetune"]["method"] == {"name": "supervised"}  # another method: from scratch
        assert trees["pretrain"]["train"] == {
            **staged["train"],
            **staged["stages"]["pretrain"]["train"],
        }
        assert trees["finetune"]["train"] == staged["train"]
        assert "stages" not in trees["pretrain"]

    def test_the_dumped_configuration_is_read_back_and_short(self, staged):
        config = parse_config(semi(staged))
        tree = dump_config(config)
        assert parse_config(tree) == config
        assert tree["stages"]["pretrain"]["train"] == staged["stages"]["pretrain"]["train"]
        assert "optim" not in tree["stages"]["pretrain"]

    def test_differences_and_merging_are_inverse(self):
        base = {s: {} for s in ("view", "strong", "optim", "train")}
        base |= {"method": {"name": "a", "x": 1, "y": {"z": 1}}, "view": {"colour": {"hue": 0.1}}}
        for change in (
            {"method": {"name": "b", "y": {}}},
            {"method": {"name": "a", "x": 2, "y": {"z": 1}}},
            {"view": {"colour": None}},
        ):
            stage = {**base, **change}
            found = stage_trees({**base, "stages": {"s": stage_changes(base, stage)}})["s"]
            assert found == stage

    def test_command_line_overrides_reach_a_stage(self, staged):
        from pixelcontrast.recipes import override

        config = parse_config(override(staged, ["stages.pretrain.train.steps=9"]))
        assert [s.config.train.steps for s in config.stages] == [9, 6]

    @pytest.mark.parametrize(
        ("assignment", "hint"),
        [
            ("stages.finetune.optm.lr=1", "did you mean 'optim'"),
            ("stages.finetune.optim.lrr=1", "in stage 'finetune': unknown key 'optim.lrr'"),
            ("stages.finetune.data.root=x", "belong to the whole run"),
            ("stages.finetune.method.name=supervisd", "did you mean 'supervised'"),
            ("stages.finetune.start=nowhere", "stages.finetune.start"),
            ("stages.finetune=3", "is a section"),
            ("stages=3", "stages is a section"),
            ("stages.fine tune.train.steps=3", "cannot call a stage"),
            ("stages.finetune.pseudo_labels.threshold=1.5", "1.5 is impossible"),
            ("stages.finetune.pseudo_labels.treshold=1", "did you mean 'threshold'"),
        ],
    )
    def test_mistakes_are_named(self, staged, assignment, hint):
        from pixelcontrast.recipes import override

        with pytest.raises(ConfigError) as caught:
            parse_config(override(staged, [assignment]))
        assert hint in str(caught.value)


class TestRefusals:
    """What is wrong with a later stage is said before the first step of the first one."""

    @pytest.mark.parametrize(
        ("change", "error", "hint"),
        [
            ({"optim": {"warmup_steps": 6}}, ConfigError, "leaves nothing of 6 steps"),
            ({"pseudo_labels": {}}, ConfigError, "a stage before that trains class scores"),
            ({"train": {"devices": 3}}, ConfigError, "multiple of 3"),
            (
                {"method": {**PRETRAIN, "embedding": {"dim": 8, "tap": "encoder"}}},
                ConfigError,
                "cannot read another map",
            ),
        ],
    )
    def test_before_the_first_step(self, staged, tmp_path, monkeypatch, change, error, hint):
        staged["stages"]["finetune"] |= change
        monkeypatch.setattr(LabelPretrain, "losses", lambda *_: pytest.fail("a step was taken"))
        with pytest.raises(error, match=hint):
            train(staged, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_pseudo_labels_need_unlabelled_images_and_known_classes(self, staged):
        tree = semi(staged)
        tree["stages"]["pretrain2"]["pseudo_labels"]["thresholds"] = {"skye": 0.5}
        with pytest.raises(ConfigError, match="did you mean 'sky'"):
            prepare(tree)
        tree = semi(staged)
        tree["data"]["labeled"] = "train"
        with pytest.raises(DataError, match="no unlabelled images"):
            prepare(tree)


def state_of(path):
    return torch.load(path, weights_only=True)["state_dict"]


def same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=0, atol=0, msg=name)


def lines_of(folder):
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows
    ]


@pytest.mark.slow
class TestTwoStages:
    def test_fine_tuning_begins_with_the_pretrained_encoder_and_decoder(
        self, staged, tmp_path, monkeypatch
    ):
        begun = {}
        losses = Supervised.losses

        def first(method, batch):
            if not begun:
                begun.update({k: v.clone() for k, v in method.segmentor.state_dict().items()})
            return losses(method, batch)

        monkeypatch.setattr(Supervised, "losses", first)
        run = train(staged, out=tmp_path / "run")
        pretrained, header = read_model(run.stage("pretrain").model)
        assert not header["classifies"]
        body = {k: v for k, v in pretrained.items() if not k.startswith("classifier.")}
        assert not any("embedding" in k for k in begun)
        same(body, {k: v for k, v in begun.items() if not k.startswith("classifier.")})

        record = run.read_record()
        assert (record["status"], record["method"], record["steps"]) == (
            "finished", "label_pretrain", 6,
        )  # fmt: skip
        assert [line["step"] for line in lines_of(run) if line["kind"] == "train"] == [*range(1, 7)]
        stage = run.stage("pretrain")
        assert len([line for line in lines_of(stage) if line["kind"] == "train"]) == 4
        assert not [line for line in lines_of(stage) if line["kind"] == "val"]
        assert pc.load(run.root).names[0] == "sky"
        assert run.report.is_file()

    @pytest.mark.parametrize("where", ["pretrain", "pretrain before a checkpoint", "finetune"])
    def test_a_killed_run_goes_on_to_the_same_end(
        self, staged, whole, tmp_path, monkeypatch, where
    ):
        cls, step = {
            "pretrain": (LabelPretrain, 3),
            "pretrain before a checkpoint": (LabelPretrain, 1),
            "finetune": (Supervised, 4),
        }[where]
        losses = cls.losses

        def killed(method, batch):
            if method.global_step == step:
                raise RuntimeError("killed")
            return losses(method, batch)

        monkeypatch.setattr(cls, "losses", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(staged, out=tmp_path / "broken")
        monkeypatch.setattr(cls, "losses", losses)
        resume = where != "pretrain before a checkpoint"
        broken = train(staged, out=tmp_path / "broken", resume=resume, force=not resume)
        same(state_of(whole.last), state_of(broken.last))
        same(read_model(whole.model)[0], read_model(broken.model)[0])
        for part in (lambda run: run, lambda run: run.stage("pretrain")):
            assert lines_of(part(whole)) == lines_of(part(broken))
        assert broken.read_record()["status"] == "finished"

    def test_killed_between_the_stages(self, staged, whole, tmp_path, monkeypatch):
        losses = Supervised.losses

        def killed(method, batch):
            raise TrainingError("killed")

        monkeypatch.setattr(Supervised, "losses", killed)
        with pytest.raises(TrainingError, match="killed"):
            train(staged, out=tmp_path / "broken")
        monkeypatch.setattr(Supervised, "losses", losses)
        monkeypatch.setattr(LabelPretrain, "losses", lambda *_: pytest.fail("trained again"))
        command = RunFolder(tmp_path / "broken").read_record()["command"]
        assert command.startswith("pixelcontrast train ")
        broken = train(staged, out=tmp_path / "broken", resume=True)
        assert broken.read_record()["command"] == command
        same(state_of(whole.last), state_of(broken.last))

    def test_a_resumed_run_cannot_change_a_stage(self, staged, whole):
        with pytest.raises(ConfigError, match=r"cannot change stages\.pretrain\.train\.steps"):
            train(staged, ["stages.pretrain.train.steps=9"], out=whole.root, resume=True)


@pytest.mark.slow
class TestPseudoLabelRound:
    def test_masks_are_stored_once_and_the_round_starts_anew(self, whole_semi):
        folder = whole_semi.pseudo_labels("pretrain2")
        summary = json.loads((folder / "labels.json").read_text())
        assert summary["images"] == 7
        assert len(list((folder / "masks").rglob("*.png"))) == 7
        assert 0 < summary["labelled_share"] <= 1
        assert sum(summary["class_shares"].values()) == pytest.approx(
            summary["labelled_share"], abs=1e-3
        )

    def test_killed_in_the_second_round(self, staged, whole_semi, tmp_path, monkeypatch):
        begun, seen = {}, set()
        pretraining, tuning = LabelPretrain.losses, Supervised.losses

        def noted(method, batch):
            state = {k: v.clone() for k, v in method.segmentor.state_dict().items()}
            begun.setdefault(method.task.num_images, state)
            return pretraining(method, batch)

        def killed(method, batch):
            seen.add(method.task.num_images)
            if method.task.num_images == 12 and method.global_step == 1:
                raise RuntimeError("killed")
            return tuning(method, batch)

        monkeypatch.setattr(LabelPretrain, "losses", noted)
        monkeypatch.setattr(Supervised, "losses", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(semi(staged), out=tmp_path / "broken")
        assert seen == {5, 12}  # the second round sees the seven other images as well
        same(begun[5], begun[12])  # and begins with the first weights of the run
        monkeypatch.setattr(Supervised, "losses", tuning)
        broken = train(semi(staged), out=tmp_path / "broken", resume=True)
        same(state_of(whole_semi.last), state_of(broken.last))


def test_a_pretrained_network_alone_does_not_predict(staged, tmp_path):
    del staged["stages"]
    staged["train"] |= {"steps": 1}
    run = train(staged, out=tmp_path / "run")
    assert RunFolder(run.root).model.is_file()
    with pytest.raises(pc.core.errors.CheckpointError, match=r"model\.init"):
        pc.load(run.root)
