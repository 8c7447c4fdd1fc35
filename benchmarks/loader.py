"""Images per second and core of every stage of loading, against albumentations and torchvision.

    python benchmarks/loader.py            # writes benchmarks/results/loader_cpu.json
    python benchmarks/loader.py --quick    # a minute, prints only

Pictures are drawn (fractal noise under grain, which compresses about like a photograph). Times are
process CPU time of one thread; contestants take turns within a round, and a ratio is the median
over rounds of the ratio within a round, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import cv2
import numpy as np
import PIL.Image
import torch

from pixelcontrast.data.cache import open_reader
from pixelcontrast.data.colour import STRONG, ColourConfig, apply_colour, draw_colour
from pixelcontrast.data.dataset import DatasetInfo, Sample
from pixelcontrast.data.items import Stream, TrainDataset, _to_planes
from pixelcontrast.data.reading import read_image, read_mask
from pixelcontrast.data.views import ViewConfig, draw_geometry, draw_view, warp_image, warp_mask

SIZES = {"480x360": (360, 480), "2048x1024": (1024, 2048)}
CROP = (512, 512)
FILL = (124, 116, 104)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 16
# The chain that is compared: jitter always, blur always with a kernel of 7 pixels.
CHAIN = ColourConfig(0.5, 0.5, 0.5, 0.25, blur_probability=1.0, blur_sigma=(1.0, 1.0))
INFO = DatasetInfo("drawn", tuple(f"class {i}" for i in range(19)))


def draw_picture(size, rng):
    """An image and a mask whose files are about as large and as slow to read as CamVid's.

    A mosaic of CamVid photographs of 2048x1024 has 1.39 (PNG) and 0.30 (JPEG) bytes a pixel; the
    report says what the drawn ones have.
    """
    height, width = size

    def fractal(height, width, channels):
        total = np.zeros((height, width, channels), np.float32)
        for octave in range(2, 12):
            cells = (2**octave * height // width + 2, 2**octave + 2, channels)
            wide = rng.normal(0, 1, cells).astype(np.float32)
            wide = cv2.resize(wide, (width, height), interpolation=cv2.INTER_CUBIC)
            total += wide.reshape(total.shape) / 1.35**octave
        return total / total.std()

    tint = cv2.resize(fractal(height // 4, width // 4, 3), (width, height))
    grain = rng.normal(0, 1.5, (height, width, 1)) + rng.normal(0, 0.3, (height, width, 3))
    image = 110 + 50 * fractal(height, width, 1) + 15 * tint + grain
    regions = cv2.resize(rng.normal(0, 1, (6, 10)).astype(np.float32), (width, height))
    mask = np.digitize(regions, np.quantile(regions, np.linspace(0, 1, 20)[1:-1]))
    return np.clip(image, 0, 255).astype(np.uint8), mask.astype(np.uint8)


class Pictures:
    """Drawn pictures of one size, in memory and as files."""

    def __init__(self, name, folder, count):
        rng = np.random.default_rng(0)
        self.size = SIZES[name]
        self.arrays = [draw_picture(self.size, rng) for _ in range(count)]
        self.png, self.jpeg = [], []
        for i, (image, mask) in enumerate(self.arrays):
            base = folder / f"{name}_{i}"
            files = [base.with_suffix(s) for s in (".png", ".jpg", ".mask.png")]
            # Pillow compresses as the tools do that data sets come from; OpenCV's fast strategy
            # makes label files that take twice as long to read.
            PIL.Image.fromarray(image).save(files[0])
            PIL.Image.fromarray(image).save(files[1], quality=90)
            PIL.Image.fromarray(mask).save(files[2])
            self.png.append(Sample(str(i), files[0], files[2]))
            self.jpeg.append(Sample(str(i), files[1], files[2]))

    def bytes_per_pixel(self):
        """Mean size of the files by kind."""
        files = {
            "PNG": [s.image for s in self.png],
            "JPEG": [s.image for s in self.jpeg],
            "mask": [s.mask for s in self.png],
        }
        area = self.size[0] * self.size[1]
        return {
            kind: round(statistics.mean(p.stat().st_size for p in paths) / area, 3)
            for kind, paths in files.items()
        }


def seconds(function, count):
    """Process CPU seconds of one call, averaged over `count` calls with arguments 0, 1, ..."""
    start = time.process_time()
    for i in range(count):
        function(i)
    return (time.process_time() - start) / count


def rounds(contestants, count, repeats):
    """Seconds of every contestant in every round, taking turns; one warm-up round is dropped."""
    times = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, function in contestants.items():
            spent = seconds(function, count)
            if turn:
                times[name].append(spent)
    return times


def ratio(times, ours, theirs):
    """Median over rounds of ours / theirs."""
    pairs = zip(times[ours], times[theirs], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 4)


def stages(pictures, folder):
    """Every stage of our loader as a function of a picture number."""
    count = len(pictures.arrays)
    view = ViewConfig(crop=CROP)
    geometries = [
        draw_geometry(pictures.size, view, np.random.default_rng(i)) for i in range(4 * count)
    ]
    crops = [
        warp_image(image, geometry, view.fill)
        for (image, _), geometry in zip(pictures.arrays, geometries, strict=False)
    ]
    planes = np.empty((3, *CROP), np.uint8)
    jitter = ColourConfig(0.5, 0.5, 0.5, 0.25)
    blur = ColourConfig(blur_probability=1.0)

    def coloured(config):
        return lambda i: apply_colour(
            crops[i % count], draw_colour(config, np.random.default_rng(i))
        )

    def sample(samples, cache, strong_views=0):
        dataset = TrainDataset(
            open_reader(samples, INFO, cache=cache, folder=folder / "cache"),
            samples,
            stream=Stream("s", labelled=True, strong_views=strong_views),
            view=view,
            strong=STRONG,
            ignore_index=255,
        )
        return lambda i: dataset[[(i % count, i)]]

    disk = open_reader(pictures.png, INFO, cache="disk", folder=folder / "cache")
    return {
        "decode PNG": lambda i: read_image(pictures.png[i % count].image),
        "decode JPEG": lambda i: read_image(pictures.jpeg[i % count].image),
        "decode mask": lambda i: read_mask(pictures.png[i % count].mask, INFO),
        "open disk cache": lambda i: (disk.image(i % count), disk.mask(i % count)),
        "warp image": lambda i: warp_image(
            pictures.arrays[i % count][0], geometries[i % len(geometries)], view.fill
        ),
        "warp mask": lambda i: warp_mask(
            pictures.arrays[i % count][1], geometries[i % len(geometries)], 255
        ),
        "colour jitter": coloured(jitter),
        "blur": coloured(blur),
        "strong view": coloured(STRONG),
        "collate": lambda i: _to_planes(crops[i % count], planes),
        "sample, PNG": sample(pictures.png, "none"),
        "sample, JPEG": sample(pictures.jpeg, "none"),
        "sample, disk cache": sample(pictures.png, "disk"),
        "sample, disk cache, 2 strong views": sample(pictures.png, "disk", 2),
    }


def our_chain(*, normalise):
    view = ViewConfig(crop=CROP)
    mean = torch.tensor(MEAN).view(3, 1, 1) * 255
    scale = 1 / (torch.tensor(STD).view(3, 1, 1) * 255)

    def run(image, mask, seed):
        rng = np.random.default_rng(seed)
        crop = draw_view(image, mask, view, rng)
        planes = np.empty((3, *CROP), np.uint8)
        _to_planes(apply_colour(crop.image, draw_colour(CHAIN, rng)), planes)
        out = torch.from_numpy(planes)
        if normalise:
            out = out.float().sub_(mean).mul_(scale)
        return out, torch.from_numpy(crop.mask)

    return run


def albumentations_chain():
    import albumentations as A
    from albumentations.pytorch import ToTensorV2

    chain = A.Compose(
        [
            A.RandomScale(scale_limit=(-0.5, 1.0), p=1),
            A.PadIfNeeded(*CROP, border_mode=cv2.BORDER_CONSTANT, fill=FILL, fill_mask=255),
            A.RandomCrop(*CROP),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(
                brightness=(0.5, 1.5),
                contrast=(0.5, 1.5),
                saturation=(0.5, 1.5),
                hue=(-0.25, 0.25),
                p=1,
            ),
            A.GaussianBlur(blur_limit=(7, 7), sigma_limit=(1.0, 1.0), p=1),
            A.Normalize(MEAN, STD),
            ToTensorV2(),
        ],
        seed=0,
    )

    def run(image, mask, seed):
        done = chain(image=image, mask=mask)
        return done["image"], done["mask"]

    return run


def torchvision_chain(size):
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    chain = v2.Compose(
        [
            v2.ScaleJitter(target_size=size, scale_range=(0.5, 2.0)),
            v2.RandomCrop(
                CROP,
                pad_if_needed=True,
                fill={tv_tensors.Image: FILL, tv_tensors.Mask: 255},
            ),
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(0.5, 0.5, 0.5, 0.25),
            v2.GaussianBlur(7, (1.0, 1.0)),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )

    def run(image, mask, seed):
        return chain(
            tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)), tv_tensors.Mask(mask)
        )

    return run


def chains(size):
    """The same augmentation by every library that is installed."""
    found = {"ours": our_chain(normalise=True), "ours, uint8": our_chain(normalise=False)}
    try:
        found["albumentations"] = albumentations_chain()
    except ImportError:
        print("albumentations is not installed: its rows are left out", file=sys.stderr)
    found["torchvision"] = torchvision_chain(size)
    return found


def on_arrays(chain, pictures):
    return lambda i: chain(*pictures.arrays[i % len(pictures.arrays)], i)


def on_files(chain, samples, folder=None):
    reader = open_reader(samples, INFO, cache="disk" if folder else "none", folder=folder)
    return lambda i: chain(reader.image(i % len(samples)), reader.mask(i % len(samples)), i)


def measure(folder, *, count, repeats):
    pictures = {name: Pictures(name, folder, count) for name in SIZES}
    sizes = {name: those.bytes_per_pixel() for name, those in pictures.items()}
    report = {"file_bytes_per_pixel": sizes, "stages": {}, "chain_ms": {}, "ratios": {}}
    for name, those in pictures.items():
        times = rounds(stages(those, folder), 2 * count, repeats)
        report["stages"][name] = {
            stage: {
                "ms": round(statistics.median(spent) * 1e3, 3),
                "images_per_second_and_core": round(1 / statistics.median(spent), 1),
            }
            for stage, spent in times.items()
        }
    small, large = pictures.values()
    contestants = {name: on_arrays(chain, large) for name, chain in chains(large.size).items()}
    contestants["ours at 480x360"] = on_arrays(our_chain(normalise=True), small)
    times = rounds(contestants, 2 * count, repeats)
    report["chain_ms"] = {n: round(statistics.median(t) * 1e3, 2) for n, t in times.items()}
    ratios = report["ratios"]
    ratios["chain / torchvision v2"] = ratio(times, "ours", "torchvision")
    ratios["chain / own at 480x360"] = ratio(times, "ours", "ours at 480x360")
    if "albumentations" in times:
        ratios["chain / albumentations"] = ratio(times, "ours", "albumentations")
        mine, theirs = our_chain(normalise=True), albumentations_chain()
        times = rounds(
            {
                "PNG + albumentations": on_files(theirs, large.png),
                "disk cache + ours": on_files(mine, large.png, folder / "cache"),
                "JPEG + ours": on_files(mine, large.jpeg),
                "PNG + ours": on_files(mine, large.png),
            },
            2 * count,
            repeats,
        )
        report["sample_ms"] = {n: round(statistics.median(t) * 1e3, 2) for n, t in times.items()}
        for name in ("disk cache + ours", "JPEG + ours", "PNG + ours"):
            ratios[f"{name} / PNG + albumentations"] = ratio(times, name, "PNG + albumentations")
    report["bytes_per_pixel_from_worker"] = bytes_per_pixel(large)
    report["goals"] = goals(report)
    return report


def bytes_per_pixel(pictures):
    """What a worker sends for a batch, label included; two decimals drop the geometry's bytes."""
    dataset = TrainDataset(
        open_reader(pictures.png, INFO),
        pictures.png,
        stream=Stream("s", labelled=True),
        view=ViewConfig(crop=CROP),
        strong=None,
        ignore_index=255,
    )
    part = dataset[[(i % len(pictures.png), i) for i in range(BATCH)]]
    tensors = (part.image, part.mask, part.index, part.geometry, part.boxes)
    sent = sum(t.numel() * t.element_size() for t in tensors)
    return round(sent / (BATCH * CROP[0] * CROP[1]), 2)


def goals(report):
    """The bars this loader is held to, at 2048x1024, with what was reached."""
    bars = {
        "chain / albumentations": 0.55,
        "chain / torchvision v2": 0.2,
        "chain / own at 480x360": 1.2,
        "disk cache + ours / PNG + albumentations": 0.15,
        "JPEG + ours / PNG + albumentations": 0.35,
        "bytes per pixel": 4.0,
    }
    measured = {**report["ratios"], "bytes per pixel": report["bytes_per_pixel_from_worker"]}
    return {
        name: {"bar": bar, "measured": measured[name], "reached": measured[name] <= bar}
        for name, bar in bars.items()
        if name in measured
    }


def environment():
    packages = ("opencv-python-headless", "torch", "torchvision", "albumentations", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((li.split(":", 1)[1].strip() for li in lines if "model name" in li), cpu)
    return {"cpu": cpu, "threads": 1, "python": platform.python_version(), **versions}


def show(report):
    for size, rows in report["stages"].items():
        print(f"\n{size}: one thread, crop {CROP[1]}x{CROP[0]}")
        for stage, row in rows.items():
            rate = row["images_per_second_and_core"]
            print(f"  {stage:36s} {row['ms']:9.3f} ms {rate:10.1f} images/s")
    print("\naugmentation of 2048x1024 arrays to normalised tensors, ms")
    for name, spent in report["chain_ms"].items():
        print(f"  {name:36s} {spent:9.2f}")
    print("\ngoals")
    for name, goal in report["goals"].items():
        mark = "reached" if goal["reached"] else "MISSED"
        print(f"  {name:44s} {goal['measured']:7.3f}  (<= {goal['bar']})  {mark}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats, print only")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "loader_cpu.json"
    )
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        count, repeats = (4, 3) if arguments.quick else (6, 7)
        report = measure(Path(folder), count=count, repeats=repeats)
    report = {"environment": environment(), **report}
    show(report)
    if not arguments.quick:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
