"""PixelContrast: semantic segmentation by pixel contrast when labels are few.

    import pixelcontrast as pc
    run = pc.train("pico_camvid", data={"root": "camvid"})
    prediction = pc.load(run.root)("street.jpg")

Names are imported on first use, so that `import pixelcontrast` does not load torch.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from pixelcontrast.core.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcontrast.engine.predict import load as load
    from pixelcontrast.engine.scoring import evaluate as evaluate
    from pixelcontrast.engine.train import train as train
    from pixelcontrast.methods import list_methods as list_methods
    from pixelcontrast.report import write_report as write_report

__version__ = version("pixelcontrast")

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "engine.train": ("train",),
        "engine.scoring": ("evaluate",),
        "engine.predict": ("load",),
        "methods": ("list_methods",),
        "report": ("write_report",),
    },
)
