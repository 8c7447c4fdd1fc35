import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.data import Stream
from pixelcontrast.engine.config import parse_config
from pixelcontrast.engine.prepare import build_method
from pixelcontrast.engine.sources import gather_sources
from pixelcontrast.engine.streams import (
    describe_streams,
    epoch_steps,
    require_distortion,
    stream_samples,
)
from pixelcontrast.engine.train import train

BOTH = (Stream("labeled", labelled=True), Stream("unlabeled", labelled=False))


@pytest.fixture
def run(tiny):
    """Configuration and images: 8 labelled, 4 unlabelled."""
    tiny["method"] = {"name": "fixmatch"}
    tiny["train"] |= {"batch": 2, "batch_unlabeled": 3}
    config = parse_config(tiny)
    return config, gather_sources(config.data)


def test_an_unlabelled_stream_shows_what_is_not_labelled_and_alone_everything(run):
    _, sources = run
    names = [{s.id for s in stream_samples(sources, BOTH, stream)} for stream in BOTH]
    assert [len(n) for n in names] == [8, 4]
    assert not names[0] & names[1]
    alone = stream_samples(sources, BOTH[1:], BOTH[1])
    assert {s.id for s in alone} == names[0] | names[1]


def test_an_epoch_is_the_longer_stream_and_the_counts_are_said(run):
    config, sources = run
    assert epoch_steps(config.train, sources, BOTH) == 4  # 8 / 2, not 4 / 3
    assert epoch_steps(config.train, sources, BOTH[1:]) == 4  # 12 / 3
    assert epoch_steps(replace(config.train, accumulate=2), sources, BOTH) == 2
    assert describe_streams(config, sources, BOTH) == (
        "6 steps, 4 an epoch: 8 labelled images 1.5 times, 4 unlabelled images 4.5 times"
    )


@pytest.mark.parametrize(
    "name", ["fixmatch", "mean_teacher", "unimatch", "unimatch_v2", "rankmatch", "u2pl", "prcl"]
)
def test_without_unlabelled_images_the_setting_is_named(tiny, name):
    tiny["method"] = {"name": name}
    config = parse_config(tiny)
    sources = gather_sources(config.data)
    full = replace(sources, unlabeled=())
    with pytest.raises(DataError, match="unlabelled images too and there are none") as caught:
        build_method(config, full)
    assert "data.labeled" in str(caught.value)
    with pytest.raises(DataError, match="needs labelled images"):
        stream_samples(replace(sources, labeled=()), BOTH, BOTH[0])


def test_masks_of_unlabelled_images_are_measured_against_and_never_learnt(tiny, tmp_path):
    tiny["method"] = {"name": "mean_teacher", "threshold": 0.0}
    watched = copy.deepcopy(tiny)
    watched["data"]["hidden_masks"] = True
    bare = copy.deepcopy(tiny)
    bare["data"]["root"] = str(tmp_path / "bare")
    shutil.copytree(tiny["data"]["root"], tmp_path / "bare")
    for sample in gather_sources(parse_config(bare).data).unlabeled:
        sample.mask.unlink()
    with_masks, without = (
        train(tree, out=tmp_path / n) for n, tree in (("watched", watched), ("unseen", bare))
    )
    weights = [
        torch.load(run.last, weights_only=True)["state_dict"] for run in (with_masks, without)
    ]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    seen, unseen = (
        [json.loads(line) for line in run.metrics.read_text().splitlines()]
        for run in (with_masks, without)
    )
    steps = [line for line in seen if line["kind"] == "train"]
    classes = len(with_masks.read_record()["dataset"]["classes"])
    assert all(0 <= line["stat/pseudo_accuracy"] <= 1 for line in steps)
    assert all(len(line["stat/pseudo_precision"]) == classes for line in steps)
    assert not any("stat/pseudo_accuracy" in line for line in unseen)
    checks = [line for line in unseen if line["kind"] == "val"]
    assert all({"miou", "miou_teacher"} <= line.keys() for line in checks)


def test_strong_views_without_distortion_are_refused(tiny):
    del tiny["strong"]
    tiny["method"] = {"name": "fixmatch"}
    config = parse_config(tiny)
    require_distortion(config, BOTH)
    with pytest.raises(ConfigError, match="distorts nothing"):
        require_distortion(config, (Stream("unlabeled", labelled=False, strong_views=1),))
