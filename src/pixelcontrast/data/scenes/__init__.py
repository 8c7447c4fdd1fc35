"""Generated streets: a data set of any size that needs no download."""

from pixelcontrast.data.scenes.making import SCENES_INFO, make_scenes, render_scene

__all__ = ["SCENES_INFO", "make_scenes", "render_scene"]
