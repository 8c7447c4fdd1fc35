"""Every recipe is built on a drawn miniature of its data set and takes one training step.

What memory and time demand is replaced, the rest is the recipe's: crops of 64 x 64, batches of
two, a few images a list, memories of a few vectors, no warm-up (else the first step would show no
contrast), and in place of the encoder a tiny untrained one. `tests/recipes/test_data.py` looks at
the whole lists, `tests/models` at the encoders.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pixelcontrast.data.guides import GUIDES
from pixelcontrast.engine.prepare import build_method, prepare
from pixelcontrast.engine.streams import StreamData
from pixelcontrast.engine.train import train
from pixelcontrast.recipes import load_recipe, override, recipe_names

TINY = {"vit": "test_vit", "mit": "mit_b0"}
"""Encoders whose decoders need one of the same family."""
IMAGES = 6
"""Kept of each list."""
SMALL = {
    "memory.pixels": 20,
    "queue": 50,
    "queue_class0": 50,
    "warmup_steps": 0,
    "supervised_epochs": 0.0,
    "max_anchors": 64,
    "anchors": 16,
    "negatives": 8,
    "selection.positives": 16,
    "selection.negatives": 32,
}
"""Settings of methods, where they have them."""


def small(tree, root):
    """The overrides that make a recipe cheap."""
    encoder = tree["model"]["encoder"]
    tiny = next((v for k, v in TINY.items() if encoder.startswith(k)), "test_resnet")
    grid = tree["model"].get("multi_grid")
    changes = {
        "data.root": root,
        "data.workers": 0,
        "data.cache": "none",
        "data.check": False,
        "view.crop": [64, 64],
        "model.encoder": "resnet14t" if grid else tiny,  # one bottleneck block a stage
        "model.pretrained": False,
        "model.decoder_channels": 64 if tree["model"]["decoder"] == "maskformer" else 16,
        "train.epochs": "null",
        "train.steps": 1,
        "train.batch": 2,
        "train.device": "cpu",
        "optim.warmup_steps": 0,
    }
    if grid:
        changes["model.multi_grid"] = [grid[-1]]
    if "batch_unlabeled" in tree["train"]:
        changes["train.batch_unlabeled"] = 2
    return [f"{key}={value}" for key, value in changes.items()]


def shrink(method):
    """Smaller numbers in a method section, where it has them."""
    for key, value in SMALL.items():
        *parents, last = key.split(".")
        node = method
        for parent in parents:
            node = (node or {}).get(parent)
        if isinstance(node, dict) and last in node:
            node[last] = value


def resolved(name, root):
    tree = load_recipe(name)
    tree = override(tree, small(tree, root))
    shrink(tree.get("method") or {})
    for stage in (tree.get("stages") or {}).values():
        shrink(stage.get("method") or {})
        stage["train"] = {**(stage.get("train") or {}), "steps": 1}
        stage["optim"] = {**(stage.get("optim") or {}), "warmup_steps": 0}
        if "crop" in (stage.get("view") or {}):
            stage["view"]["crop"] = [64, 64]
    return tree


def step(config, sources):
    """One step; the loss terms."""
    torch.manual_seed(0)
    method, _ = build_method(config, sources)
    data = StreamData(config, sources, method.streams)
    data.trainer = SimpleNamespace(
        global_step=0, global_rank=0, world_size=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )  # fmt: skip
    batch, *_ = next(iter(data.train_dataloader()))
    optimizer = method.configure_optimizers()["optimizer"]
    report = method.losses(batch)
    report.total.backward()
    optimizer.step()
    method.after_step()
    return report.terms


@pytest.fixture
def folder(miniature, scenes):
    def of(tree):
        name = tree["data"]["name"]
        if name in GUIDES:
            return miniature(name)
        return scenes  # general recipes, and those on the larger drawing of the same streets

    return of


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_takes_a_step(name, folder, tmp_path):
    recipe = load_recipe(name)
    tree = resolved(name, str(folder(recipe)))
    if recipe["data"]["name"] == "scenes":
        tree["data"] |= {"name": "auto"}
        tree["data"].pop("scenes", None)
        if "labeled" in tree["data"]:
            tree["data"]["labeled"] = IMAGES
    config, sources, _ = prepare(tree)
    sources = replace(
        sources, labeled=sources.labeled[:IMAGES], unlabeled=sources.unlabeled[:IMAGES]
    )
    if config.method_name in ("picie", "mdc"):
        train(tree, out=tmp_path / "run")  # clusters have to be found first
        return
    for part in (stage.config for stage in config.stages) if config.stages else (config,):
        terms = step(part, sources)
        assert terms
        for term, value in terms.items():
            assert torch.isfinite(value), term
