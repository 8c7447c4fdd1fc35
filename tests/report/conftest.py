"""Run folders as the engine writes them, with drawn street scenes."""

import json
import math

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pixelcontrast.evaluation import ConfusionMatrix

CLASSES = ["sky", "building", "road", "pavement", "tree", "car", "person", "sign"]
PALETTE = [
    [120, 170, 230],
    [110, 95, 90],
    [90, 70, 110],
    [225, 120, 200],
    [70, 140, 60],
    [30, 60, 190],
    [220, 40, 60],
    [240, 200, 40],
]


def draw_scene(rng, height, width):
    """A street: (image (H, W, 3), labels (H, W))."""
    y, x = np.mgrid[0:height, 0:width] / [[[height]], [[width]]]
    horizon = 0.42 + 0.06 * rng.random()
    labels = np.zeros((height, width), np.uint8)
    left = 0.0
    while left < 1:
        wide, tall = 0.1 + 0.15 * rng.random(), 0.15 + 0.25 * rng.random()
        labels[(x >= left) & (x < left + wide) & (y > horizon - tall) & (y < horizon + 0.05)] = 1
        left += wide + 0.05 * rng.random()
    labels[y > horizon] = 3
    labels[(y > horizon) & (abs(x - 0.5) < 0.12 + (y - horizon) * 0.9)] = 2
    for _ in range(3):
        cx, cy, r = rng.random(), horizon - 0.06 * rng.random(), 0.05 + 0.05 * rng.random()
        labels[(x - cx) ** 2 + ((y - cy) * 0.8) ** 2 < r**2] = 4
    for _ in range(3):
        cx, cy = 0.25 + 0.5 * rng.random(), horizon + 0.08 + 0.3 * rng.random()
        size = 0.06 + 0.25 * (cy - horizon)
        labels[(abs(x - cx) < size) & (abs(y - cy) < size * 0.6)] = 5
    for _ in range(2):
        cx, cy = rng.random(), horizon + 0.08 + 0.12 * rng.random()
        labels[(abs(x - cx) < 0.012) & (abs(y - cy) < 0.07)] = 6
    cx = 0.1 + 0.8 * rng.random()
    labels[(abs(x - cx) < 0.02) & (abs(y - horizon + 0.12) < 0.03)] = 7
    base = np.array(PALETTE, np.float32)[labels] * 0.55 + 60
    image = base + 22 * rng.standard_normal((height, width, 1)) + 35 * (0.5 - y)[..., None]
    return image.clip(0, 255).astype(np.uint8), labels


def spoil(rng, labels, amount):
    """A prediction: borders moved, small things missed, some blocks wrong."""
    height, width = labels.shape
    shift = rng.normal(0, 1 + 6 * amount, 2).round().astype(int)
    wrong = np.roll(labels, shift, (0, 1))
    for c, other in ((7, 1), (6, 3), (5, 2)):
        if rng.random() < amount * 2:
            wrong[wrong == c] = other
    for _ in range(int(12 * amount)):
        top, left = rng.integers(0, height), rng.integers(0, width)
        wrong[top : top + height // 8, left : left + width // 8] = rng.integers(0, len(CLASSES))
    return wrong


def write_evaluation(folder, *, split, seed, quality, count, size, names, pictures):
    rng = np.random.default_rng(seed)
    target = folder / "evaluation" / split
    (target / "images").mkdir(parents=True)
    total = ConfusionMatrix(len(names))
    images = []
    for i in range(count):
        image, labels = draw_scene(np.random.default_rng(100 + i), *size)
        prediction = spoil(rng, labels, (1 - quality) * (0.3 + 1.2 * rng.random()))
        truth = labels.copy()
        truth[: size[0] // 12, : size[1] // 5] = 255
        one = ConfusionMatrix(len(names))
        one.update(torch.from_numpy(prediction), torch.from_numpy(truth))
        total.merge(one)
        scores = one.scores()
        images.append(
            {
                "id": f"street/{i:04d}",
                "miou": scores.miou_of_present,
                "accuracy": scores.pixel_accuracy,
                "role": None,
                "files": None,
            }
        )
        images[-1]["arrays"] = (image, truth, prediction)
    panel = images[:pictures]
    worst = sorted(images[pictures:], key=lambda entry: entry["miou"])[:pictures]
    for role, chosen in (("panel", panel), ("worst", worst)):
        for entry in chosen:
            number = images.index(entry)
            entry["role"] = role
            entry["files"] = {
                "image": f"images/{number:03d}_image.jpg",
                "truth": f"images/{number:03d}_truth.png",
                "pred": f"images/{number:03d}_pred.png",
            }
            for path, array in zip(entry["files"].values(), entry["arrays"], strict=True):
                Image.fromarray(array).save(target / path)
    for entry in images:
        del entry["arrays"]
    values = {
        "split": split,
        "step": 1800,
        "protocol": {"mode": "whole", "crop": None, "scales": [1.0], "flip": False},
        "scores": total.scores().to_dict(names),
        "images": images,
    }
    (target / "scores.json").write_text(json.dumps(values))
    return values


def write_features(folder, *, split, seed, quality, names, instances):
    """What an evaluation adds: boundary and feature scores, points in the plane, instances."""
    from pixelcontrast.evaluation import FeatureConfig, FeatureMeter

    path = folder / "evaluation" / split / "scores.json"
    values = json.loads(path.read_text())
    values["boundary"] = {"distance": 3.0, **values["scores"]}
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(20 * len(names)) % len(names)
    centres = torch.randn(len(names), 8, generator=generator) * (1 + quality)
    pictures, layers = [], []
    for layer in ("classifier input", "embedding"):
        vectors = centres[labels] + torch.randn(len(labels), 8, generator=generator)
        meter = FeatureMeter(layer, len(names), 8, FeatureConfig())
        meter.update(vectors.T[None, :, None], labels[None, None], ["image"])
        layers.append(meter.scores().to_dict(names))
        points = (vectors[:, :2] * 100).round().int().tolist()
        pictures.append(
            {"layer": layer, "labels": labels.tolist(), "pca": points, "pca_share": 0.4}
            | {"tsne": points[::-1]}
        )
    values["features"] = layers
    if instances:
        values["instances"] = {
            "class_iou": {"car": 0.5, "road": 0.9},
            "class_iiou": {"car": 0.25, "road": None},
            "category_iou": {"vehicle": 0.6, "flat": 0.8},
            "category_iiou": {"vehicle": 0.35, "flat": None},
            "means": {"class_iou": 0.7, "class_iiou": 0.25, "category_iou": 0.7}
            | {"category_iiou": 0.35},
        }
    path.write_text(json.dumps(values))
    path.with_name("embedding.json").write_text(json.dumps(pictures))


def write_metrics(folder, *, method, seed, steps, quality, ema):
    rng = np.random.default_rng(seed)
    lines = []
    for step in range(10, steps + 1, 10):
        t = step / steps
        ce = 2.2 * math.exp(-4 * t) + 0.25 + 0.12 * rng.standard_normal() * (1 - 0.5 * t)
        line = {"loss/ce": ce}
        if method == "pico":
            line["loss/contrast"] = 0.6 + 0.35 * math.exp(-3 * t) + 0.04 * rng.standard_normal()
            line |= {
                "stat/anchors": 700 + 60 * rng.standard_normal(),
                "stat/anchor_classes": 6.0 + (step % 3),
                "stat/hard_share": 0.15 + 0.35 * math.exp(-3 * t) + 0.02 * rng.standard_normal(),
                "stat/positive_similarity": 0.9 - 0.6 * math.exp(-4 * t),
                "stat/negative_similarity": 0.1 + 0.2 * math.exp(-4 * t),
            }
        line["loss"] = sum(v for k, v in line.items() if k.startswith("loss/"))
        line |= {"lr": 0.01 * (1 - t) ** 0.9, "images_per_second": 31 + rng.standard_normal()}
        lines.append({"kind": "train", "step": step, "seconds": step * 0.25, **line})
        if step % (steps // 10) == 0:
            miou = quality * (1 - math.exp(-5 * t)) - 0.02 * rng.random()
            val = {"miou": miou, "pixel_accuracy": min(1, miou + 0.2)}
            if ema:
                val["miou_ema"] = miou + 0.012 - 0.1 * math.exp(-6 * t)
            lines.append({"kind": "val", "step": step, "seconds": step * 0.25, **val})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def make_run(tmp_path):
    """A factory of run folders: `make_run(name, method=..., seed=..., ...)`."""

    def make(name="run", **options):
        return build_run(tmp_path / name, **options)

    return make


def build_run(
    folder,
    *,
    method="pico",
    seed=0,
    quality=0.7,
    steps=400,
    count=5,
    size=(48, 64),
    pictures=2,
    ema=False,
    names=CLASSES,
    status="finished",
    splits=("val",),
    features=False,
    instances=False,
):
    folder.mkdir(parents=True)
    config = {
        "name": f"{method}_streets",
        "seed": seed,
        "data": {"root": "streets", "name": "auto", "val": "val", "labeled": 40, "workers": 1},
        "view": {"crop": [96, 128], "scale": [0.5, 2.0], "flip": 0.5, "colour": None},
        "model": {"encoder": "resnet18", "decoder": "deeplabv3plus", "pretrained": False},
        "method": {"name": method, "segmentation": {"auxiliary_weight": 0.4}},
        "optim": {"name": "sgd", "lr": 0.01, "head_factor": 10.0, "schedule": "poly"},
        "train": {"steps": steps, "batch": 8, "precision": "fp32", "ema": 0.99 if ema else None},
        "eval": {"inference": {"mode": "whole"}},
    }
    if method == "pico":
        config["method"] |= {"weight": 0.1, "temperature": 0.1, "max_anchors": 1024}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    write_metrics(folder, method=method, seed=seed, steps=steps, quality=quality, ema=ema)
    for split in splits:
        values = write_evaluation(
            folder,
            split=split,
            seed=seed,
            quality=quality,
            count=count,
            size=size,
            names=list(names),
            pictures=pictures,
        )
        if features:
            write_features(
                folder,
                split=split,
                seed=seed,
                quality=quality,
                names=list(names),
                instances=instances,
            )
    record = {
        "name": config["name"],
        "method": method,
        "seed": seed,
        "command": f"pixelcontrast train {method}_streets data.root=streets seed={seed}",
        "started": "2026-01-02T10:00:00+00:00",
        "finished": "2026-01-02T10:08:20+00:00",
        "seconds": 500.0 + seed,
        "device": "cpu",
        "precision": "fp32",
        "hardware": {"cpu": "Example CPU 9000", "cores": 2, "gpu": None, "memory_gb": 24.0},
        "versions": {"python": "3.11.7", "pixelcontrast": "0.1.0", "torch": "2.11.0"},
        "git": {"commit": "0123456789abcdef", "dirty": True},
        "dataset": {
            "name": "streets",
            "root": "streets",
            "classes": list(names),
            "palette": PALETTE,
            "ignore_index": 255,
            "splits": {
                "labeled": {"count": 40, "sha256": "aa" * 32},
                "unlabeled": {"count": 160, "sha256": "bb" * 32},
                "val": {"count": count, "sha256": "cc" * 32},
            },
            "statistics": {
                "pixels": [400_000, 300_000, 500_000, 200_000, 90_000, 60_000, 4_000, 900],
                "images": [40, 40, 40, 40, 38, 35, 20, 8],
                "rare": [names[6], names[7]],
                "unlabelled": 160,
            },
        },
        "model": {
            "encoder": "resnet18",
            "decoder": "deeplabv3plus",
            "parameters": 12_345_678,
            "parameters_inference": 12_200_000,
        },
        "steps": steps,
        "status": status,
        "best": {"step": steps, "miou": values["scores"]["miou"], "which": "student"},
        "notes": ["train.precision: fp32, because there is no GPU"],
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder
