"""`pixelcontrast doctor`."""

from __future__ import annotations

import typer


def doctor() -> None:
    """Show what this machine offers and what would be used."""
    import torch

    from pixelcontrast.engine.config import TrainConfig
    from pixelcontrast.engine.devices import precision, use_gpu
    from pixelcontrast.engine.environment import git_state, hardware, versions
    from pixelcontrast.losses.triton_backend import triton_available

    machine = hardware()
    train = TrainConfig()
    lines = {
        "processor": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB",
        "gpu": f"{machine['gpus']} x {machine['gpu']}" if machine["gpu"] else "none found by torch",
        "training runs on": "gpu" if use_gpu(train) else "cpu",
        "precision": precision(train),
        "threads": str(torch.get_num_threads()),
        "contrast back end": "triton" if triton_available() else "streaming torch",
        "source": git_state().get("commit", "installed package"),
        **versions(),
    }
    width = max(map(len, lines))
    for name, text in lines.items():
        typer.echo(f"{name:<{width}}  {text}")
