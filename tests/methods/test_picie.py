import json
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch

from pixelcontrast.core.distributed import rank, world_size
from pixelcontrast.core.errors import CheckpointError, ConfigError, DataError, TrainingError
from pixelcontrast.core.types import Batch
from pixelcontrast.data.label_maps import LabelMaps
from pixelcontrast.engine.config import parse_config
from pixelcontrast.engine.predict import load
from pixelcontrast.engine.train import train
from pixelcontrast.methods import method_class
from pixelcontrast.methods.base import Task
from pixelcontrast.models import ModelConfig, build_segmentor
from tests.gloo import two_processes
from tests.methods.tester import CLUSTER_MODEL, MethodTester, cluster_network, drawn_batch

SIZE = (48, 64)
KMEANS = {"batch": 4, "init_batches": 2, "iterations": 5}
CROP = {"share": (0.5, 1.0), "enlarge": 1.0}


def built(name="picie", classes=3, segmentor=None, **options):
    cls = method_class(name)
    tree = {"name": name, "kmeans": KMEANS, "views": CROP, **options}
    config = parse_config({"method": tree}).method
    task = Task(classes, 255, total_steps=100, crop=SIZE)
    return cls(config, segmentor or cluster_network(classes), task).train()


def pairs(method, classes=3, batch=4):
    """Drawn images whose second view is darker, without a crop between the two."""
    drawn = drawn_batch(method.streams[0], classes, batch=batch)
    boxes = [[0, 0, *method.grid, 0]] * batch
    second = drawn.image // 2
    return replace(
        drawn,
        strong=(second,) if method.views == 2 else (),
        grid_box=torch.tensor(boxes),
    )


def part(batch, start, stop):
    """Some images of a batch."""
    pieces = {
        name: getattr(batch, name)[start:stop]
        for name in ("image", "valid", "index", "ids", "geometry", "grid_box")
    }
    return Batch(**pieces, strong=tuple(view[start:stop] for view in batch.strong))


def relabelled(method, batches, epoch=0, folder=None):
    """Cluster, label and begin an epoch, as the engine does in one process."""
    images = sum(len(batch.ids) for batch in batches) * world_size()
    method.cluster(epoch, batches, images)
    folder = Path(folder or tempfile.mkdtemp())
    ids = [name for batch in batches for name in batch.ids]
    labels = LabelMaps(folder, ids, method.grid, method.stored())
    labels.create()
    counts, stats = method.label(epoch, batches, labels)
    labels.seal("test", {})
    labels.opened("test")
    method.use_labels(labels, counts, stats)
    method.begin_epoch(epoch, None)
    return counts, stats


class TestPiCIE(MethodTester):
    name = "picie"
    options: ClassVar[dict] = {"over_clusters": 5, "mse": True}
    may_rise: ClassVar[tuple[str, ...]] = ("mse",)

    def build(self, classes=3, seed=0):
        method = built(self.name, classes, **self.options)
        batch = pairs(method, classes)
        half = len(batch.ids) // world_size()
        relabelled(method, [part(batch, rank() * half, (rank() + 1) * half)])
        return method

    def batch(self, method, classes=3, **kwargs):
        return {"images": pairs(method, classes)}

    def test_an_all_ignored_batch_gives_zero_terms_and_finite_gradients(self):
        pytest.skip("views have no padding and no labels to be ignored")

    def test_one_class_in_the_batch_is_finite(self):
        pytest.skip("no masks")

    def test_hidden_masks_are_never_trained_on(self):
        pytest.skip("masks are never opened")

    def test_a_killed_run_resumes_to_the_same_weights(self):
        pytest.skip("see test_a_run_killed_in_any_phase_resumes_to_the_same_weights")

    def test_two_processes_equal_one(self):
        whole = self.build()
        batch = self.batch(whole)["images"]
        whole.segmentor.eval()
        whole.losses({"images": batch}).total.backward()
        weight = whole.segmentor.decoder.laterals[0].weight.grad
        found = two_processes(_on_half, type(self))
        centroids = whole.kmeans["view1"].centroids.numpy()
        for one in found:
            np.testing.assert_allclose(one["centroids"], centroids, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(one["weights"], whole.weights["view1"].numpy(), rtol=1e-6)
        gradient = (found[0]["gradient"] + found[1]["gradient"]) / 2
        np.testing.assert_allclose(gradient, weight.numpy(), rtol=1e-3, atol=1e-5)


def _on_half(rank, tester):
    """Centroids, weights and gradient of a process that sees two of four images."""
    self = tester()
    method = self.build()
    method.segmentor.eval()
    half = part(self.batch(method)["images"], 2 * rank, 2 * rank + 2)
    method.losses({"images": half}).total.backward()
    return {
        "centroids": method.kmeans["view1"].centroids.numpy(),
        "weights": method.weights["view1"].detach().numpy(),
        "gradient": method.segmentor.decoder.laterals[0].weight.grad.numpy(),
    }


class TestMDC(TestPiCIE):
    name = "mdc"
    options: ClassVar[dict] = {}

    def test_two_processes_equal_one(self):
        pytest.skip("the same code as PiCIE")

    def test_a_new_classifier_begins_every_epoch(self):
        method = self.build()
        convolution = method.classifier_convolution()
        first = convolution.weight.clone()
        optimizer = torch.optim.AdamW(convolution.parameters(), lr=0.1)
        method.losses(self.batch(method)).total.backward()
        optimizer.step()
        assert len(optimizer.state) == 2
        method.begin_epoch(1, optimizer)
        assert not optimizer.state
        assert not torch.equal(convolution.weight, first)
        method.begin_epoch(0, None)
        assert torch.equal(convolution.weight, first)
        assert 0.005 < first.std() < 0.02


def test_identity_views_are_clustered_alike_and_within_equals_cross():
    method = built(views={"share": (1.0, 1.0), "flip": 0.0, "enlarge": 1.0})
    batch = pairs(method)
    batch = replace(batch, strong=(batch.image,))
    _, stats = relabelled(method, [batch])
    means = [method.kmeans[name].centroids for name in ("view1", "view2")]
    torch.testing.assert_close(*means)
    terms = method.losses({"images": batch}).terms
    torch.testing.assert_close(terms["within"], terms["cross"], rtol=1e-5, atol=0)
    assert stats["view_agreement"] == 1.0


def test_clustering_leaves_the_network_as_it_is():
    method = built()
    before = {k: v.clone() for k, v in method.segmentor.state_dict().items()}
    batch = pairs(method)
    method.cluster(0, [batch], 4)
    assert method.segmentor.training
    for name, value in method.segmentor.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_classifier_gives_the_labels_that_clustering_gave():
    method = built()
    batch = pairs(method)
    relabelled(method, [batch])
    labels = method.labels_of(batch)["view1"]
    method.segmentor.eval()
    assert torch.equal(method.segmentor(batch.image).logits.argmax(1), labels)


def test_a_frozen_copy_gives_the_labels_that_are_written_otherwise():
    found, weights = [], []
    for source in ("cached", "frozen_copy"):
        method = built(label_source=source, over_clusters=5)
        batch = pairs(method)
        counts, _ = relabelled(method, [batch])
        assert sum(counts["view1"]) == 4 * method.grid[0] * method.grid[1]
        with torch.no_grad():  # what is learnt within the epoch does not change its labels
            method.segmentor.decoder.laterals[0].weight.mul_(-1)
        found.append(method.labels_of(batch))
        weights.append(method.weights["view1"])
        assert method.segmentor.training
    assert found[0].keys() == found[1].keys()
    for name, labels in found[0].items():
        assert torch.equal(labels, found[1][name]), name
    torch.testing.assert_close(weights[1], weights[0])  # all pixels were in the full k-means


def test_clusters_do_not_depend_on_how_images_are_batched():
    sets = []
    for bounds in ([0, 4], [0, 2, 4], [0, 1, 2, 4]):
        method = built(kmeans={**KMEANS, "init_batches": 3})
        batch = pairs(method)
        parts = [part(batch, a, b) for a, b in pairwise(bounds)]
        method.cluster(0, parts, 4)
        sets.append(method.kmeans["view1"].centroids)
    for other in sets[1:]:
        torch.testing.assert_close(other, sets[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 9])
def test_a_constant_image_alone_is_no_crash(classes):
    method = built(classes=classes)
    batch = part(pairs(method), 0, 1)
    grey = torch.full_like(batch.image, 128)
    batch = replace(batch, image=grey, strong=(grey,))
    relabelled(method, [batch])
    report = method.losses({"images": batch})
    report.total.backward()
    assert torch.isfinite(report.total)


def test_fewer_pixels_than_clusters_are_refused_with_both_numbers():
    pixels = built().grid[0] * built().grid[1]
    method = built(classes=pixels + 1, kmeans={**KMEANS, "iterations": 1})
    batch = part(pairs(method, 2), 0, 1)
    with pytest.raises(DataError, match=f"{pixels + 1} clusters need .* there are {pixels}"):
        method.cluster(0, [batch], 1)


def test_features_that_are_not_finite_stop_the_run_with_the_image():
    method = built()
    with torch.no_grad():
        method.segmentor.decoder.laterals[0].bias[0] = float("nan")
    with pytest.raises(TrainingError, match="drawn0"):
        method.cluster(0, [pairs(method)], 4)


def test_settings_that_cannot_work():
    with pytest.raises(ConfigError, match="how many clusters"):
        method_class("picie").output_names(built().config, ())
    plain = build_segmentor(ModelConfig(encoder="test_resnet", decoder="fpn", pretrained=False), 3)
    with pytest.raises(ConfigError, match="directions"):
        built(segmentor=plain)
    for wrong in ({"clusters": 1}, {"temperature": 0.0}, {"over_clusters": 1}):
        with pytest.raises(ConfigError):
            built(**wrong)


# Runs


def recipe(tiny, **train_options):
    """A run of two epochs of three steps."""
    tiny["method"] = {"name": "picie", "kmeans": KMEANS, "views": CROP}
    tiny["model"] = CLUSTER_MODEL
    tiny["train"] |= {"ema": None, "steps": 6, "checkpoint_every": 2, **train_options}
    return tiny


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_run_killed_in_any_phase_resumes_to_the_same_weights(tiny, tmp_path, monkeypatch):
    cls = method_class("picie")
    whole = torch.load(train(recipe(tiny), out=tmp_path / "whole").last, weights_only=True)
    kept = sorted(p.name for p in (tmp_path / "whole" / "labels").iterdir())
    assert kept == ["epoch_00000", "epoch_00001"]  # epoch 1 began before a checkpoint was in it
    for phase, call in (("cluster", 2), ("label", 2), ("losses", 5), ("finish", 1)):
        calls = 0
        original = getattr(cls, phase)

        def dies(self, *args, call=call, original=original, **kwargs):
            nonlocal calls
            calls += 1
            if calls == call:
                raise Killed
            return original(self, *args, **kwargs)

        monkeypatch.setattr(cls, phase, dies)
        with pytest.raises(Killed):
            train(recipe(tiny), out=tmp_path / phase)
        monkeypatch.setattr(cls, phase, original)
        resumed = train(recipe(tiny), out=tmp_path / phase, resume=True)
        state = torch.load(resumed.last, weights_only=True)["state_dict"]
        for name, value in whole["state_dict"].items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=0, msg=f"{phase}: {name}")


@pytest.mark.slow
def test_a_run_with_a_frozen_copy_resumes_within_an_epoch_to_the_same_weights(
    tiny, tmp_path, monkeypatch
):
    cls = method_class("picie")
    tree = recipe(tiny)
    tree["method"]["label_source"] = "frozen_copy"
    whole = torch.load(train(tree, out=tmp_path / "whole").last, weights_only=True)
    assert not list((tmp_path / "whole" / "labels").glob("epoch_*/view*.npy"))
    original = cls.losses

    def dies(self, batch):
        if self.global_step == 5:  # the last checkpoint is in the middle of epoch 1
            raise Killed
        return original(self, batch)

    monkeypatch.setattr(cls, "losses", dies)
    with pytest.raises(Killed):
        train(tree, out=tmp_path / "run")
    monkeypatch.setattr(cls, "losses", original)
    resumed = train(tree, out=tmp_path / "run", resume=True)
    state = torch.load(resumed.last, weights_only=True)["state_dict"]
    for name, value in whole["state_dict"].items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.slow
def test_labels_that_are_gone_in_the_middle_of_an_epoch_are_told(tiny, tmp_path, monkeypatch):
    cls = method_class("picie")
    original = cls.losses

    def dies(self, batch):
        if self.global_step == 2:
            raise Killed
        return original(self, batch)

    monkeypatch.setattr(cls, "losses", dies)
    with pytest.raises(Killed):
        train(recipe(tiny), out=tmp_path / "run")
    monkeypatch.setattr(cls, "losses", original)
    next((tmp_path / "run" / "labels").glob("epoch_*/view1.npy")).write_bytes(b"")
    with pytest.raises(CheckpointError, match="incomplete"):
        train(recipe(tiny), out=tmp_path / "run", resume=True)


SHARES = (0.51, 0.34, 0.11, 0.03, 0.01)
"""Of the pixels of the striped classes."""


def striped(root, images, side=96):
    """Images of five classes that differ by colour and stripes, each a rectangle on the first."""
    rng = np.random.default_rng(0)
    colours = np.array(
        [[80, 100, 170], [170, 130, 70], [60, 160, 70], [200, 60, 60], [230, 230, 90]]
    )
    y, x = np.mgrid[:side, :side]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(images):
        mask = np.zeros((side, side), np.uint8)
        for label in range(1, 5):
            # Later ones cover earlier ones; enlarged so that the shares are about those wanted.
            area = SHARES[label] / (1 - sum(SHARES[label + 1 :])) * side**2
            height = int(np.clip(np.sqrt(area) * rng.uniform(0.7, 1.4), 4, side))
            width = int(np.clip(area / height, 4, side))
            top, left = rng.integers(side - height + 1), rng.integers(side - width + 1)
            mask[top : top + height, left : left + width] = label
        phase = np.array([1, 0, 1, 2, 1])[mask] * x + np.array([0, 1, 1, 1, 3])[mask] * y
        pixels = colours[mask] * (1 + 0.15 * np.sin(phase))[..., None]
        pixels = pixels * rng.uniform(0.95, 1.05) + rng.normal(0, 5, pixels.shape)
        pixels = np.clip(pixels, 0, 255).astype(np.uint8)
        cv2.imwrite(str(root / "images" / f"{number:02}.png"), pixels[..., ::-1])
        cv2.imwrite(str(root / "masks" / f"{number:02}.png"), mask)
    return root


@pytest.mark.slow
def test_two_epochs_find_classes_of_colour_and_stripes(tmp_path):
    root = striped(tmp_path / "data", 90)
    (root / "splits").mkdir()
    for split, numbers in (("train", range(80)), ("val", range(80, 90))):
        (root / "splits" / f"{split}.txt").write_text("".join(f"{n:02}\n" for n in numbers))
    tree = {
        "seed": 0,
        "data": {"root": str(root), "workers": 0},
        "view": {"crop": [96, 96]},
        "strong": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
        "model": {**CLUSTER_MODEL, "encoder": "resnet18", "decoder_channels": 128},
        "method": {
            "name": "picie",
            "final": False,
            "kmeans": {"batch": 40, "init_batches": 2, "iterations": 10},
            "views": CROP,
        },
        "optim": {"name": "adamw", "lr": 1e-4, "weight_decay": 0.0, "schedule": "constant"},
        "train": {"epochs": 2, "batch": 16, "ema": None, "device": "cpu"},
        "eval": {"batch": 16},
    }
    run = train(tree, out=tmp_path / "run")
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    accuracy = [line["pixel_accuracy"] for line in lines if line["kind"] == "val"][-1]
    assert accuracy > 0.55  # one class everywhere has 0.51
    last = [line for line in lines if line["kind"] == "cluster"][-1]
    for view in ("view1", "view2"):
        assert last[f"stat/used_clusters_{view}"] == 5
        assert last[f"stat/largest_cluster_{view}"] < 0.5


@pytest.mark.slow
def test_images_alone_are_enough_from_training_to_named_masks(tiny, scenes, tmp_path):
    images = tmp_path / "images_only"
    images.mkdir()
    for path in sorted((scenes / "images").rglob("*.*"))[:6]:
        (images / path.name).write_bytes(path.read_bytes())
    tree = recipe(tiny)
    tree["data"] = {"root": str(images), "workers": 0}
    tree["method"]["clusters"] = 4
    run = train(tree, out=tmp_path / "run")
    made = run.root / "clusters"
    assert len(list((made / "maps").iterdir())) == 6
    assert list(made.glob("cluster_0*.png"))
    report = run.report.read_text()
    assert "data:image/jpeg" in report
    assert "% of the pixels, in" in report
    predictor = load(run.root)
    assert predictor.names == tuple(f"cluster_{k:02d}" for k in range(4))
    first = sorted(images.iterdir())[0]
    clusters = predictor(first).mask
    text = "cluster_00: road\ncluster_01: sky\ncluster_02: road\ncluster_03: sky\n"
    (run.root / "names.yaml").write_text(text)
    named = load(run.root)
    assert named.names == ("road", "sky")
    assert np.array_equal(named(first).mask, clusters % 2)
    assert named(first).shares().keys() <= {"road", "sky"}
    # its weights begin a supervised run with the same decoder
    supervised = {
        **tiny,
        "method": {"name": "supervised"},
        "data": {"root": str(scenes), "workers": 0},
    }
    supervised["model"] = {**CLUSTER_MODEL, "unit_features": False, "init": str(run.root)}
    supervised["train"] = {**tiny["train"], "steps": 2}
    second = train(supervised, out=tmp_path / "supervised")
    assert any("encoder, decoder" in note for note in second.read_record()["notes"])
