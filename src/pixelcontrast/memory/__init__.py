"""What is remembered between steps: queues, region memory, prototypes.

Memories are modules whose whole state lies in buffers. The training method owns them; a
segmentation network never contains one.
"""

from pixelcontrast.memory.kmeans import MiniBatchKMeans
from pixelcontrast.memory.lloyd import lloyd, nearest
from pixelcontrast.memory.prototypes import (
    ClassPrototypes,
    GaussianPrototypes,
    Gaussians,
    GaussianSums,
)
from pixelcontrast.memory.queue import ClassQueue
from pixelcontrast.memory.regions import RegionMemory
from pixelcontrast.memory.storage import Keys

__all__ = [
    "ClassPrototypes",
    "ClassQueue",
    "GaussianPrototypes",
    "GaussianSums",
    "Gaussians",
    "Keys",
    "MiniBatchKMeans",
    "RegionMemory",
    "lloyd",
    "nearest",
]
