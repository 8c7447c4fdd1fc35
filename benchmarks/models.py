"""Every decoder on every kind of encoder: sizes, gradients, bfloat16, files, exports.

    python benchmarks/models.py                            # the whole cross product, random weights
    python benchmarks/models.py --decoders ocrnet --encoders resnet18
    python benchmarks/models.py --exports --encoders resnet18 vit_tiny_patch16_224
    python benchmarks/models.py --table                    # what docs/models.md prints

For each pair: the output has the size of the image at 65, 129, 321 and 97 x 161, every parameter
that learns has a finite gradient in training mode, bfloat16 autocast stays near float32, and a
model file gives the same logits again. With `--exports` also torch.export and ONNX, at a
fixed size and with dynamic height and width, as the largest difference relative to the largest
logit. What fails is named. Results are merged by decoder and encoder into
benchmarks/results/models.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.files import atomic_path
from pixelcontrast.models import (
    DECODERS,
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
    "hrnet_w18_small",
    "mit_b0",
    "vit_tiny_patch16_224",
    "vit_small_patch14_dinov2",
)
SIZES = ((65, 65), (129, 129), (321, 321), (97, 161))
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
    """Differences of the exported programs at the example's size, and at another if dynamic."""
    config = ModelConfig(encoder=encoder, decoder=decoder, pretrained=False)
    torch.manual_seed(0)
    module = build_segmentor(config, CLASSES).deploy()
    example, other = images(1, (96, 160)), images(1, (128, 192))
    dims = {2: torch.export.Dim("height", min=32), 3: torch.export.Dim("width", min=32)}
    found: dict[str, Any] = {}
    for kind, shapes, probe in (("fixed", None, example), ("dynamic", (dims,), other)):
        with torch.no_grad():
            expected = module(probe)
        try:
            program = torch.export.export(module, (example,), dynamic_shapes=shapes)
            found[f"export_{kind}"] = difference(program.module()(probe), expected)
            found[f"onnx_{kind}"] = difference(onnx(program, example, probe), expected)
        except Exception as error:  # exporters raise many kinds; the first line says which
            missing = f"onnx_{kind}" if f"export_{kind}" in found else f"export_{kind}"
            found[missing] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
    return found


def onnx(program: Any, example: torch.Tensor, probe: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "m.onnx")
        torch.onnx.export(
            program, (example,), path, dynamo=True, external_data=False, verbose=False
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return torch.from_numpy(session.run(None, {name: probe.numpy()})[0])


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


def exported(row: dict[str, Any]) -> str:
    """For which image sizes torch.export and ONNX give the module's logits."""
    words = []
    for form in ("export", "onnx"):
        gaps = {kind: row.get(f"{form}_{kind}") for kind in ("fixed", "dynamic")}
        good = {k: isinstance(gap, float) and gap < 1e-3 for k, gap in gaps.items()}
        words.append("any size" if all(good.values()) else "one size" if good["fixed"] else "no")
    return " / ".join(words)


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Two markdown tables: what was tried of each pair, and exports."""
    decoders = [name for name in DECODERS if name in rows]
    tried = [e for e in ENCODERS if any(verdict(rows[d].get(e, {})) for d in decoders)]
    lines = [f"| decoder | {' | '.join(f'`{e}`' for e in tried)} |"]
    lines += [f"| --- |{' --- |' * len(tried)}"]
    for decoder in decoders:
        cells = [verdict(rows[decoder].get(encoder, {})) for encoder in tried]
        if any(cells):
            lines.append(f"| `{decoder}` | {' | '.join(cells)} |")
    lines += ["", "| decoder | encoder | torch.export / ONNX |", "| --- | --- | --- |"]
    for decoder in decoders:
        for encoder, row in rows[decoder].items():
            if "export_fixed" in row:
                lines.append(f"| `{decoder}` | `{encoder}` | {exported(row)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    parser.add_argument("--decoders", nargs="+", default=list(DECODERS))
    parser.add_argument("--exports", action="store_true")
    parser.add_argument("--table", action="store_true", help="print the results as markdown")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(RESULT.read_text())["rows"]))
        return
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for decoder in args.decoders:
        for encoder in args.encoders:
            begun = time.perf_counter()
            try:
                row = exports(encoder, decoder) if args.exports else check(encoder, decoder)
            except ConfigError as error:
                row = {"refused": str(error).partition("\n")[0]}
            merge(decoder, encoder, row)
            print(
                f"{decoder:14s}{encoder:28s}{time.perf_counter() - begun:6.1f} s  {row}", flush=True
            )


def merge(decoder: str, encoder: str, row: dict[str, Any]) -> None:
    """Adds what was found to the file; rows of other pairs stay."""
    record = json.loads(RESULT.read_text()) if RESULT.is_file() else {"rows": {}}
    record["torch"], record["python"] = torch.__version__, platform.python_version()
    record["rows"].setdefault(decoder, {}).setdefault(encoder, {}).update(row)
    with atomic_path(RESULT) as temporary:
        temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
