"""A trained network as a file other programs can run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pixelcontrast.core.errors import ConfigError, TrainingError, unknown_name
from pixelcontrast.core.files import atomic_path
from pixelcontrast.engine.folder import FORMATS, model_file
from pixelcontrast.models import load_model, upsample_logits

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from pixelcontrast.models import Segmentor

_TOLERANCE = 1e-3
_SMALLEST = 64
"""Smallest side of a program for any size: exporters treat maps of one position as a case of their
own, and the deepest maps have a stride of 32."""


def export(
    source: str | Path,
    form: str = "safetensors",
    out: str | Path | None = None,
    *,
    size: tuple[int, int] = (512, 512),
    dynamic: bool = False,
) -> Path:
    """Write the network of a run as weights, as a torch.export program or as ONNX.

    The two programs take a float32 batch (1, 3, H, W) of RGB in 0..255 and give logits
    (1, C, H, W); normalisation is inside. What was written is loaded again and compared.

    Args:
        source: a run folder or a model file.
        form: the format.
        out: the file; beside the model by default.
        size: (H, W) the program is made for.
        dynamic: let height and width vary from 64 on; not every network can be exported so.

    Raises:
        CheckpointError: there is no trained network.
        ConfigError: a package for the format is missing, or the network cannot be exported so.
        TrainingError: the written program does not reproduce the network.
    """
    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    model = model_file(source)
    target = Path(out) if out else model.with_suffix(f".{form}")
    if form == "safetensors":
        if target.absolute() != model.absolute():
            with atomic_path(target) as temporary:
                shutil.copyfile(model, temporary)
        return target
    segmentor = load_model(model)[0]
    network = segmentor.deploy()
    example = torch.rand(1, 3, *size) * 255
    shapes = {
        2: torch.export.Dim("height", min=_SMALLEST),
        3: torch.export.Dim("width", min=_SMALLEST),
    }
    try:
        program = torch.export.export(
            network, (example,), dynamic_shapes=({**shapes},) if dynamic else None
        )
    except Exception as error:  # torch.export raises many kinds
        raise ConfigError(
            f"this network cannot be exported: {str(error).splitlines()[0]}",
            where=model,
            fix="leave out --dynamic and give the --size it will be used at",
        ) from error
    with atomic_path(target) as temporary:
        if form == "pt2":
            torch.export.save(program, temporary)
            run: Callable[[Tensor], Tensor] = torch.export.load(temporary).module()
        else:
            run = _write_onnx(program, example, temporary)
        # Odd sides as well: rounding is where programs for any size go wrong.
        sizes = [size, (size[0] + 33, size[1] + 1)] if dynamic else [size]
        error_size = max(_difference(run, segmentor, size) for size in sizes)
    if error_size > _TOLERANCE:
        target.unlink(missing_ok=True)
        raise TrainingError(
            f"the exported program differs from the network by {error_size:.1e} (relative)",
            where=target,
            fix="report this with the encoder and decoder names",
        )
    return target


def _difference(
    run: Callable[[Tensor], Tensor], segmentor: Segmentor, size: tuple[int, int]
) -> float:
    """The largest error of a program's logits, relative to the largest logit."""
    image = torch.rand(1, 3, *size) * 255
    with torch.no_grad():
        logits = segmentor(image).logits
        expected = upsample_logits(logits, size, align_corners=segmentor.align_corners)
        found = run(image)
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _write_onnx(
    program: torch.export.ExportedProgram, example: Tensor, path: Path
) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"ONNX export needs the package {error.name}",
            fix=f"pip install {error.name}, or install pixelcontrast with its extra [export]",
        ) from error
    torch.onnx.export(
        program, (example,), str(path), dynamo=True, external_data=False, verbose=False
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: torch.from_numpy(session.run(None, {name: image.numpy()})[0])
