"""`pixelcontrast doctor`."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def doctor(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="A network to measure: model.encoder=NAME model.decoder=NAME "
            "view.crop=[512,512] train.batch=2 ..."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Take network, crop and batch from this recipe.")
    ] = None,
) -> None:
    """Show what this machine offers; with settings, what a step of that network costs here."""
    import torch

    from pixelcontrast.engine.config import TrainConfig
    from pixelcontrast.engine.devices import precision, use_gpu
    from pixelcontrast.engine.environment import git_state, hardware, versions
    from pixelcontrast.losses.triton_backend import triton_available

    if settings or recipe:
        _show(_network(settings or [], recipe))
        return
    machine = hardware()
    train = TrainConfig()
    _show(
        {
            "processor": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB",
            "gpu": f"{machine['gpus']} x {machine['gpu']}"
            if machine["gpu"]
            else "none found by torch",
            "training runs on": "gpu" if use_gpu(train) else "cpu",
            "precision": precision(train),
            "threads": str(torch.get_num_threads()),
            "contrast back end": "triton" if triton_available() else "streaming torch",
            "source": git_state().get("commit", "installed package"),
            **versions(),
        }
    )


def _network(settings: list[str], recipe: str | None) -> dict[str, str]:
    """Cost of a training step of the network the settings describe."""
    from pixelcontrast.engine.cost import step_cost
    from pixelcontrast.engine.devices import precision, use_gpu
    from pixelcontrast.engine.prepare import refuse_unknown
    from pixelcontrast.recipes import load_recipe, override

    plain: dict[str, Any] = {"method": {"name": "supervised"}, "train": {"batch": 2}}
    config = refuse_unknown(override(load_recipe(recipe) if recipe else plain, settings))
    model, train, crop = config.model, config.train, config.view.crop
    cost = step_cost(model, train, crop=crop)
    both = cost.forward_seconds + cost.backward_seconds
    return {
        "network": f"{model.encoder} + {model.decoder}, {cost.parameters / 1e6:.2f} M parameters",
        "images": f"{train.batch} of {crop[0]} x {crop[1]}",
        "on": f"{'gpu' if use_gpu(train) else 'cpu'}, precision {precision(train)}",
        "forward": f"{cost.forward_seconds:.3f} s",
        "backward": f"{cost.backward_seconds:.3f} s",
        "rate": f"{train.batch / both:.2f} images/s, without contrast and optimiser",
        "peak memory": "unknown on this system"
        if cost.peak_bytes is None
        else f"{cost.peak_bytes / 2**30:.2f} GB beside the network's own",
    }


def _show(lines: dict[str, str]) -> None:
    width = max(map(len, lines))
    for name, text in lines.items():
        typer.echo(f"{name:<{width}}  {text}")
