from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from pixelcontrast.core.errors import CheckpointError
from pixelcontrast.data import PairConfig, Pairing
from pixelcontrast.data.loaders import Stream
from pixelcontrast.engine.alternation import Alternation, Passes
from pixelcontrast.engine.config import parse_config
from pixelcontrast.engine.folder import RunFolder
from pixelcontrast.engine.sources import gather_sources
from pixelcontrast.engine.streams import StreamData
from pixelcontrast.memory import MiniBatchKMeans

IDS = ["a", "b"]
EPOCH = 3


class Recorder:
    """A method that notes which of its phases is called; `network` stands for its weights."""

    def __init__(self, network="first"):
        self.network = network
        self.calls = []
        self.kmeans = nn.ModuleDict({"view1": MiniBatchKMeans(2, 3)})
        self.task = SimpleNamespace(epoch_steps=EPOCH)
        self.config = SimpleNamespace(final=True)
        self.streams, self.grid = (None,), (1, 1)

    def origin(self, epoch):
        return f"{self.network} {epoch}"

    def stored(self):
        return {"view1": 2}

    sizes = stored

    def cluster(self, epoch, batches, images):
        self.calls.append(f"cluster {epoch}")
        self.kmeans["view1"].means.fill_(epoch + 1)

    def label(self, epoch, batches, labels):
        self.calls.append(f"label {epoch}")
        labels.write("view1", IDS, np.full((2, 1, 1), epoch % 2))
        labels.flush()
        return {"view1": [1, 1]}, {"largest_cluster_view1": 0.5}

    def use_labels(self, labels, counts, stats):
        self.calls.append(f"use {labels.read('view1', ['a']).item()}")

    def begin_epoch(self, epoch, optimizer):
        self.calls.append(f"begin {epoch}")

    def finish(self, epoch, batches, images):
        self.calls.append(f"finish {epoch}")


class Alternated:
    """An alternation in a folder, with what it is given by the engine."""

    def __init__(self, folder, method):
        data = SimpleNamespace(samples=lambda _: [SimpleNamespace(id=name) for name in IDS])
        self.lines = []
        journal = SimpleNamespace(pause=lambda seconds: None, write=self.write)
        self.callback = Alternation(RunFolder(folder), data, journal, Console(quiet=True))
        self.callback._passes = SimpleNamespace(
            views=lambda epoch: [], plain=lambda epoch: [], count=2
        )
        self.method = method

    def write(self, kind, step, values):
        self.lines.append((kind, step, values))

    def step(self, number, last=2 * EPOCH):
        precision = SimpleNamespace(forward_context=nullcontext)
        strategy = SimpleNamespace(precision_plugin=precision)
        trainer = SimpleNamespace(
            global_step=number, max_steps=last, optimizers=[None], strategy=strategy
        )
        self.callback.on_train_batch_start(trainer, self.method, None, 0)
        trainer.global_step += 1
        self.callback.on_train_batch_end(trainer, self.method)


def alternated(folder, network="first"):
    return Alternated(folder, Recorder(network))


def test_phases_come_in_order_where_epochs_begin_and_the_last_step_is_followed_by_one(tmp_path):
    run = alternated(tmp_path)
    for number in range(2 * EPOCH):
        run.step(number)
    assert run.method.calls == [
        *("cluster 0", "label 0", "use 0", "begin 0"),
        *("cluster 1", "label 1", "use 1", "begin 1"),
        "finish 2",
    ]
    assert [(kind, step) for kind, step, _ in run.lines] == [("cluster", 1), ("cluster", EPOCH + 1)]
    assert run.lines[0][2]["stat/largest_cluster_view1"] == 0.5


def test_without_a_final_clustering_training_ends_with_the_last_step(tmp_path):
    run = alternated(tmp_path)
    run.method.config.final = False
    run.step(0, last=1)
    assert "finish 1" not in run.method.calls


def test_a_phase_that_was_finished_is_not_repeated(tmp_path):
    first = alternated(tmp_path)

    def dies(*args):
        raise KeyboardInterrupt

    first.method.label = dies
    with pytest.raises(KeyboardInterrupt):
        first.step(0)
    second = alternated(tmp_path)
    second.step(0)
    assert second.method.calls == ["label 0", "use 0", "begin 0"]
    assert (second.method.kmeans["view1"].means == 1).all()
    third = alternated(tmp_path)
    third.step(0)
    assert third.method.calls == ["use 0", "begin 0"]


def test_phases_of_another_network_are_repeated(tmp_path):
    alternated(tmp_path).step(0)
    other = alternated(tmp_path, "second")
    other.step(0)
    assert other.method.calls[:2] == ["cluster 0", "label 0"]


def test_a_damaged_file_of_centroids_is_as_none(tmp_path):
    alternated(tmp_path).step(0)
    (tmp_path / "labels" / "epoch_00000" / "centroids.pt").write_bytes(b"half")
    again = alternated(tmp_path)
    again.step(0)
    assert again.method.calls[0] == "cluster 0"


def test_a_run_goes_on_within_an_epoch_with_the_labels_of_its_checkpoint(tmp_path):
    first = alternated(tmp_path)
    first.step(0)
    state = first.callback.state_dict()
    # By now the weights are others: only the checkpoint knows what the labels come from.
    resumed = alternated(tmp_path, "trained for a step")
    resumed.callback.load_state_dict(state)
    resumed.step(1)
    assert resumed.method.calls == ["use 0"]
    with pytest.raises(CheckpointError, match="names no cluster labels"):
        alternated(tmp_path).step(1)
    stranger = alternated(tmp_path)
    stranger.callback.load_state_dict({"origin": "second 0"})
    with pytest.raises(CheckpointError, match="other weights"):
        stranger.step(1)


def test_labels_are_kept_as_long_as_a_checkpoint_may_need_them(tmp_path):
    run = alternated(tmp_path)
    last = RunFolder(tmp_path).last
    last.parent.mkdir(parents=True)

    def kept():
        return sorted(path.name for path in (tmp_path / "labels").iterdir())

    run.step(0)
    torch.save({"global_step": 2}, last)
    run.step(EPOCH, last=9)
    assert kept() == ["epoch_00000", "epoch_00001"]
    torch.save({"global_step": 5}, last)
    run.step(2 * EPOCH, last=9)
    assert kept() == ["epoch_00001", "epoch_00002"]


def test_a_pass_shows_every_image_once_and_the_same_views_every_time(tiny):
    tiny["method"] = {"name": "picie", "kmeans": {"batch": 5}}
    tiny["model"]["unit_features"] = True
    tiny["train"]["ema"] = None
    config = parse_config(tiny)
    pairing = Pairing(PairConfig(enlarge=1.0), grid=(12, 16))
    stream = Stream("images", labelled=False, pair=pairing)
    sources = gather_sources(config.data)
    data = StreamData(config, sources, (stream,))
    method = SimpleNamespace(streams=(stream,), device=torch.device("cpu"), grid=(12, 16))
    passes = Passes(data, method)
    shown = list(passes.views(3))
    assert passes.count == 12
    assert [len(batch.ids) for batch in shown] == [5, 5, 2]
    assert len({name for batch in shown for name in batch.ids}) == 12
    assert all(batch.mask is None for batch in shown)
    for batch, again in zip(shown, passes.views(3), strict=True):
        assert torch.equal(batch.image, again.image)
        assert torch.equal(batch.strong[0], again.strong[0])
    plain = {
        name: image for b in passes.plain(3) for name, image in zip(b.ids, b.image, strict=True)
    }
    assert len(plain) == 12
    assert all(not batch.strong for batch in passes.plain(3))
    first = shown[0]
    assert not torch.equal(plain[first.ids[0]], first.image[0])  # no colours, no crop
