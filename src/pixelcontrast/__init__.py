"""PixelContrast: semantic segmentation by pixel contrast when labels are few."""
