"""Loss functions of pixel contrast: pure functions first, thin modules where they help.

They need torch alone and work in any training loop.
"""

from pixelcontrast.losses.pixel_info_nce import PixelInfoNCE, pixel_info_nce

__all__ = ["PixelInfoNCE", "pixel_info_nce"]
