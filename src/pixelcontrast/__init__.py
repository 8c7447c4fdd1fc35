"""PixelContrast: semantic segmentation by pixel contrast when labels are few.

    import pixelcontrast as pc
    run = pc.train("pico_camvid", data={"root": "camvid"})
    prediction = pc.load(run.root)("street.jpg")

Names are imported on first use, so that `import pixelcontrast` does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelcontrast.engine.predict import load
    from pixelcontrast.engine.scoring import score_run as evaluate
    from pixelcontrast.engine.train import train
    from pixelcontrast.methods import list_methods
    from pixelcontrast.report import write_report

__all__ = ["__version__", "evaluate", "list_methods", "load", "train", "write_report"]

__version__ = version("pixelcontrast")

_HOMES = {
    "train": "pixelcontrast.engine.train:train",
    "evaluate": "pixelcontrast.engine.scoring:score_run",
    "load": "pixelcontrast.engine.predict:load",
    "list_methods": "pixelcontrast.methods:list_methods",
    "write_report": "pixelcontrast.report:write_report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute)
