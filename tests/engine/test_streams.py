from dataclasses import replace

import pytest

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


def test_without_unlabelled_images_the_setting_is_named(run):
    config, sources = run
    full = replace(sources, unlabeled=())
    with pytest.raises(DataError, match="unlabelled images too and there are none") as caught:
        build_method(config, full)
    assert "data.labeled" in str(caught.value)
    with pytest.raises(DataError, match="needs labelled images"):
        stream_samples(replace(sources, labeled=()), BOTH, BOTH[0])


def test_strong_views_without_distortion_are_refused(tiny):
    del tiny["strong"]
    tiny["method"] = {"name": "fixmatch"}
    config = parse_config(tiny)
    require_distortion(config, BOTH)
    with pytest.raises(ConfigError, match="distorts nothing"):
        require_distortion(config, (Stream("unlabeled", labelled=False, strong_views=1),))
