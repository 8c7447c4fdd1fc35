"""Every decoder on every kind of encoder: sizes, gradients, bfloat16, files, exports.

    python benchmarks/models.py                            # the whole cross product, random weights
    python benchmarks/models.py --decoders ocrnet --encoders resnet18
    python benchmarks/models.py --exports --encoders resnet18 vit_tiny_patch16_224
    python benchmarks/models.py --table                    # what docs/models.md prints

For each pair: the output has the size of the image at 65, 129, 321 and 97 x 161, every parameter
that learns has a finite gradient in training mode, bfloat16 autocast stays near float32, and a
model file gives the same logits again. With `--exports` instead torch.export and ONNX with
dynamic height and width, at two sizes, or else at one fixed size: the largest difference from the
network before batch norm was merged, relative to the largest logit. What fails is named. Results
are merged by decoder and encoder into benchmarks/results/models.json; `--missing` leaves out the
pairs that are there.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.files import atomic_path
from pixelcontrast.models import (
    DECODERS,
    DeployedSegmentor,
    EmbeddingConfig,
    ModelConfig,
    Segmentor,
    build_segmentor,
    load_model,
    save_model,
)

RESULT = Path(__file__).parent / "results" / "models.json"
ENCODERS = (
    "resnet18",
    "mobilenetv3_large_100",
    "hrnet_w18",
    "mit_b0",
    "vit_tiny_patch16_224",
    "vit_small_patch14_dinov2",
)
SIZES = ((65, 65), (129, 129), (321, 321), (97, 161))
EXPORTED = ((97, 129), (129, 65))
CLASSES = 5


def images(batch: int, size: tuple[int, int]) -> torch.Tensor:
    return torch.rand(batch, 3, *size) * 255


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).abs().max() / expected.abs().max())


def check(encoder: str, decoder: str) -> dict[str, Any]:
    torch.manual_seed(0)
    config = ModelConfig(encoder=encoder, decoder=decoder, pretrained=False, dropout=0.0)
    model = build_segmentor(config, CLASSES, embedding=EmbeddingConfig(dim=16))
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.inference_copy().parameters()),
        "strides": list(model.encoder.strides),
        "tap": model.tap,
        "tap_width": model.find_tap(model.tap)[1],
    }
    found["gradients"] = gradients(model)
    module = model.deploy()
    with torch.no_grad():
        sizes = {f"{h}x{w}": tuple(module(images(1, (h, w))).shape[2:]) for h, w in SIZES}
        found["sizes"] = all(name == "{}x{}".format(*size) for name, size in sizes.items())
        image = images(1, SIZES[-1])
        model.eval()
        exact = model(image).logits
        with torch.autocast("cpu", torch.bfloat16):
            half = model(image).logits
        gap = (half.float() - exact).abs().mean() / exact.std()
        found["bfloat16"] = round(float(gap), 4)
        with tempfile.TemporaryDirectory() as folder:
            save_model(model, Path(folder) / "m.safetensors", {})
            again = load_model(Path(folder) / "m.safetensors")[0](image).logits
        found["file"] = difference(again, exact)
    return found


def gradients(model: Segmentor) -> str:
    """Empty, or the parameters without a finite gradient in a training step of one small image."""
    out = model.train()(images(2, SIZES[0]), embed=True)
    parts = [out.logits, out.embedding, *out.auxiliary, *out.query_classes, *out.query_masks]
    sum((part * torch.randn_like(part)).sum() for part in parts).backward()
    lost = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not torch.isfinite(p.grad).all())
    ]
    model.zero_grad()
    return ", ".join(lost)


def exports(encoder: str, decoder: str) -> dict[str, Any]:
    """Largest differences of a program for any size at two sizes, or else of one for one size."""
    config = ModelConfig(encoder=encoder, decoder=decoder, pretrained=False)
    torch.manual_seed(0)
    model = build_segmentor(config, CLASSES)
    module, whole = model.deploy(), DeployedSegmentor(model.inference_copy())
    dims = {2: torch.export.Dim("height", min=64), 3: torch.export.Dim("width", min=64)}
    found: dict[str, Any] = {}
    for kind, shapes in (("dynamic", (dims,)), ("fixed", None)):
        probes = [images(1, size) for size in (EXPORTED if shapes else EXPORTED[:1])]
        with torch.no_grad():
            expected = [whole(probe) for probe in probes]
        for form in ("export", "onnx"):
            if good(found, form, "dynamic"):
                continue
            try:
                program = torch.export.export(module, (probes[0],), dynamic_shapes=shapes)
                run = program.module() if form == "export" else onnx(program, probes[0])
                gaps = [difference(run(p), e) for p, e in zip(probes, expected, strict=True)]
                found[f"{form}_{kind}"] = max(gaps)
            except Exception as error:  # exporters raise many kinds; the first line says which
                line = str(error).strip().partition("\n")[0][:120]
                found[f"{form}_{kind}"] = f"{type(error).__name__}: {line}"
    return found


def onnx(program: Any, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "m.onnx")
        torch.onnx.export(
            program, (example,), path, dynamo=True, external_data=False, verbose=False
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda probe: torch.from_numpy(session.run(None, {name: probe.numpy()})[0])


def verdict(row: dict[str, Any]) -> str:
    """`yes` if all that was tried went well, else what did not; empty if nothing was tried."""
    if "refused" in row:
        return "refused"
    if "sizes" not in row:
        return ""
    failed = {
        "size": not row["sizes"],
        "gradient": bool(row["gradients"]),
        "bfloat16": row["bfloat16"] > 0.1,
        "file": row["file"] > 0,
    }
    return ", ".join(name for name, bad in failed.items() if bad) or "yes"


def good(row: dict[str, Any], form: str, kind: str) -> bool:
    """Whether a program gave the module's logits."""
    gap = row.get(f"{form}_{kind}")
    return isinstance(gap, float) and gap < 1e-3


def exported(row: dict[str, Any]) -> str:
    """For which image sizes torch.export and ONNX give the network's logits."""
    if "refused" in row:
        return "refused"
    if "export_dynamic" not in row:
        return ""
    words = [
        "any" if good(row, form, "dynamic") else "one" if good(row, form, "fixed") else "no"
        for form in ("export", "onnx")
    ]
    return " / ".join(words)


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Two markdown tables: what was tried of each pair, and exports."""
    return "\n\n".join(one_table(rows, cell) for cell in (verdict, exported))


def one_table(rows: dict[str, dict[str, Any]], cell: Callable[[dict[str, Any]], str]) -> str:
    """Decoders down, encoders across."""
    lines = [f"| decoder | {' | '.join(f'`{e}`' for e in ENCODERS)} |"]
    lines += [f"| --- |{' --- |' * len(ENCODERS)}"]
    for decoder in DECODERS:
        cells = [cell(rows.get(decoder, {}).get(encoder, {})) for encoder in ENCODERS]
        lines.append(f"| `{decoder}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    parser.add_argument("--decoders", nargs="+", default=list(DECODERS))
    parser.add_argument("--exports", action="store_true")
    parser.add_argument("--missing", action="store_true", help="leave out pairs that are stored")
    parser.add_argument("--table", action="store_true", help="print the results as markdown")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(RESULT.read_text())["rows"]))
        return
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for decoder in args.decoders:
        for encoder in args.encoders:
            if args.missing and stored(decoder, encoder, args.exports):
                continue
            begun = time.perf_counter()
            try:
                row = exports(encoder, decoder) if args.exports else check(encoder, decoder)
            except ConfigError as error:
                row = {"refused": str(error).partition("\n")[0]}
            merge(decoder, encoder, row)
            print(
                f"{decoder:14s}{encoder:28s}{time.perf_counter() - begun:6.1f} s  {row}", flush=True
            )


def stored(decoder: str, encoder: str, exports: bool) -> bool:
    """Whether the file has this pair."""
    record = json.loads(RESULT.read_text()) if RESULT.is_file() else {"rows": {}}
    row = record["rows"].get(decoder, {}).get(encoder, {})
    return "refused" in row or ("export_dynamic" if exports else "sizes") in row


def merge(decoder: str, encoder: str, row: dict[str, Any]) -> None:
    """Adds what was found to the file; rows of other pairs stay."""
    record = json.loads(RESULT.read_text()) if RESULT.is_file() else {"rows": {}}
    record["torch"], record["python"] = torch.__version__, platform.python_version()
    record["rows"].setdefault(decoder, {}).setdefault(encoder, {}).update(row)
    with atomic_path(RESULT) as temporary:
        temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
