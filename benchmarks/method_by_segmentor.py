"""One training step of every method on every segmentor.

    python benchmarks/method_by_segmentor.py
    python benchmarks/method_by_segmentor.py --methods pico u2pl --decoders maskformer

Each pair is built with the method's own defaults, warm-ups left out, on a tiny encoder (a plain
vision transformer for the decoders made for one), and takes two optimiser steps on drawn
rectangles. A pair passes if all loss terms are finite, every parameter that learns gets a finite
gradient, and the weights move. Methods without labels find the clusters of the batch first.
The table goes to benchmarks/results/method_by_segmentor.json; docs/models.md prints it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import warnings
from pathlib import Path

import torch

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.files import atomic_path
from pixelcontrast.core.types import Batch
from pixelcontrast.data.label_maps import LabelMaps
from pixelcontrast.data.loaders import Stream
from pixelcontrast.engine.config import parse_config
from pixelcontrast.methods import METHODS, method_class
from pixelcontrast.methods.base import Method, Task
from pixelcontrast.methods.clustering import ClusteringMethod
from pixelcontrast.models import DECODERS, ModelConfig, build_segmentor

RESULT = Path(__file__).parent / "results" / "method_by_segmentor.json"
VIT, TINY = "vit_tiny_patch16_224", "test_resnet"
ON_VIT = ("dpt", "linear", "segmenter")
WIDTHS = {"linear": None, "fcn": None, "maskformer": 64}
WAITS = ("warmup_steps", "supervised_epochs")
CLASSES, SIZE = 4, (64, 96)


def drawn_batch(stream: Stream, batch: int = 4) -> Batch:
    """Coloured rectangles on noise, one colour a class."""
    generator = torch.Generator().manual_seed(0)
    height, width = SIZE
    mask = torch.zeros(batch, height, width, dtype=torch.uint8)
    for image in range(batch):
        for label in range(1, CLASSES):
            top = int(torch.randint(0, height - 32, (), generator=generator))
            left = int(torch.randint(0, width - 32, (), generator=generator))
            mask[image, top : top + 32, left : left + 32] = label
    colour = torch.linspace(20, 235, CLASSES)[mask.long()][:, None]
    views = int(stream.pair.second) if stream.pair else stream.strong_views
    noise = 8 * torch.randn(batch, 3, height, width, generator=generator)
    image = (colour + noise).clamp(0, 255).to(torch.uint8)
    return Batch(
        image=image,
        valid=torch.ones(batch, height, width, dtype=torch.bool),
        index=torch.arange(batch),
        ids=tuple(f"drawn{i}" for i in range(batch)),
        geometry=torch.eye(2, 3).expand(batch, 2, 3),
        grid_box=torch.tensor([[0, 0, *stream.pair.grid, 0]] * batch) if stream.pair else None,
        mask=mask if stream.labelled else None,
        strong=tuple(255 - image for _ in range(views)),
        hidden_mask=mask if stream.hidden_masks else None,
    )


def find_clusters(method: ClusteringMethod, batch: Batch, folder: Path) -> None:
    """The clusters of one batch, as the engine finds them at the start of an epoch."""
    method.cluster(0, [batch], len(batch.ids))
    labels = LabelMaps(folder, batch.ids, method.grid, method.stored())
    labels.create()
    found = method.label(0, [batch], labels)
    labels.seal("drawn", {})
    labels.opened("drawn")
    method.use_labels(labels, *found)
    method.begin_epoch(0, None)


def step(method_name: str, decoder: str) -> str:
    """Empty if the pair trains, else why not."""
    kind = method_class(method_name)
    config = parse_config({"method": {"name": method_name}}).method
    waits = {key: 0 for key in WAITS if getattr(config, key, 0)}
    config = dataclasses.replace(config, **waits)
    torch.manual_seed(0)
    model = ModelConfig(
        encoder=VIT if decoder in ON_VIT else TINY,
        decoder=decoder,
        decoder_channels=WIDTHS.get(decoder, 16) if decoder not in ON_VIT else None,
        pretrained=False,
        unit_features=kind.finds_clusters,
    )
    segmentor = build_segmentor(model, CLASSES, embedding=kind.embedding_head(config))
    method = kind(config, segmentor, Task(CLASSES, 255, total_steps=100, crop=SIZE))
    method.train()
    batch = {stream.name: drawn_batch(stream) for stream in method.streams}
    if isinstance(method, ClusteringMethod):
        with tempfile.TemporaryDirectory() as folder:
            find_clusters(method, *batch.values(), Path(folder))
            return trains(method, batch)
    return trains(method, batch)


def trains(method: Method, batch: dict[str, Batch]) -> str:
    """Two steps on the same images; empty if they go well, else why not."""
    learning = {n: p for n, p in method.named_parameters() if p.requires_grad}
    before = {n: p.detach().clone() for n, p in learning.items()}
    optimizer = torch.optim.AdamW(learning.values(), 1e-3)
    for index in range(2):
        method.batch_index = index
        report = method.losses(batch)
        broken = [name for name, term in report.terms.items() if not torch.isfinite(term)]
        if broken:
            return f"{', '.join(broken)} not finite"
        optimizer.zero_grad()
        report.total.backward()
        lost = [n for n, p in learning.items() if p.grad is None or not p.grad.isfinite().all()]
        if lost:
            return f"no finite gradient: {', '.join(lost[:3])}"
        optimizer.step()
        method.after_step()
    if all(torch.equal(before[n], p) for n, p in learning.items()):
        return "nothing moved"
    return ""


def table(rows: dict[str, dict[str, str]]) -> str:
    """The results as markdown: `yes`, or a number of the note that says why not."""
    decoders = [name for name in DECODERS if any(name in row for row in rows.values())]
    notes: list[str] = []
    lines = [f"| method | {' | '.join(decoders)} |", f"| --- |{' --- |' * len(decoders)}"]
    for method in (name for name in METHODS if name in rows):
        cells = []
        for decoder in decoders:
            reason = rows[method].get(decoder)
            if reason and reason not in notes:
                notes.append(reason)
            cells.append(
                "" if reason is None else f"({notes.index(reason) + 1})" if reason else "yes"
            )
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines + [""] + [f"({k}) {note}" for k, note in enumerate(notes, start=1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--decoders", nargs="+", default=list(DECODERS))
    parser.add_argument("--table", action="store_true", help="print the results as markdown")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(RESULT.read_text())["rows"]))
        return
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    record = json.loads(RESULT.read_text()) if RESULT.is_file() else {"rows": {}}
    for name in args.methods:
        row = record["rows"].setdefault(name, {})
        for decoder in args.decoders:
            try:
                row[decoder] = step(name, decoder)
            except ConfigError as error:
                row[decoder] = f"refused: {str(error).partition(chr(10))[0]}"
            except Exception as error:
                row[decoder] = f"failed: {type(error).__name__}: {str(error)[:120]}"
        print(f"{name:22s}", {k: v for k, v in row.items() if v} or "all", flush=True)
        record["torch"] = torch.__version__
        with atomic_path(RESULT) as temporary:
            temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
