"""A trained network as a file other programs can run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pixelcontrast.core.errors import ConfigError, TrainingError, unknown_name
from pixelcontrast.core.files import atomic_path
from pixelcontrast.engine.folder import FORMATS, model_file
from pixelcontrast.models import load_model

if TYPE_CHECKING:
    from torch import Tensor, nn

_TOLERANCE = 1e-3


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
        dynamic: let height and width vary; not every network can be exported so.

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
    network = load_model(model)[0].deploy()
    example = torch.rand(1, 3, *size) * 255
    shapes = {2: torch.export.Dim("height", min=32), 3: torch.export.Dim("width", min=32)}
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
    with torch.no_grad():
        expected = network(example)
    with atomic_path(target) as temporary:
        if form == "pt2":
            torch.export.save(program, temporary)
            found = torch.export.load(temporary).module()(example)
        else:
            found = _write_onnx(program, network, example, temporary)
    error_size = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if error_size > _TOLERANCE:
        target.unlink(missing_ok=True)
        raise TrainingError(
            f"the exported program differs from the network by {error_size:.1e} (relative)",
            where=target,
            fix="report this with the encoder and decoder names",
        )
    return target


def _write_onnx(
    program: torch.export.ExportedProgram, network: nn.Module, example: Tensor, path: Path
) -> Tensor:
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
    return torch.from_numpy(session.run(None, {name: example.numpy()})[0])
