import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def draw(tmp_path):
    """Writes a data folder: `masks` maps id -> array, palette image or None; images fit them."""

    def drawn(masks, *, yaml=None, splits=None, suffix=".jpg", root=None, sizes=None):
        root = root or tmp_path / "set"
        (root / "images").mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        for name, mask in masks.items():
            size = (sizes or {}).get(name)
            if mask is not None:
                picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
                path = root / "masks" / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
                size = size or picture.size[::-1]
            pixels = rng.integers(0, 256, (*(size or (40, 48)), 3)).astype(np.uint8)
            path = root / "images" / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        if yaml is not None:
            (root / "dataset.yaml").write_text(yaml)
        for name, ids in (splits or {}).items():
            (root / "splits").mkdir(exist_ok=True)
            (root / "splits" / f"{name}.txt").write_text("\n".join(ids))
        return root

    return drawn


@pytest.fixture
def ids_mask():
    """A (40, 48) mask that holds the given values in vertical stripes."""

    def made(*values, dtype=np.uint8):
        columns = np.array(values)[np.arange(48) * len(values) // 48]
        return np.broadcast_to(columns, (40, 48)).astype(dtype)

    return made


@pytest.fixture(scope="session")
def real_camvid():
    """The real CamVid, where it is at hand."""
    default = Path(__file__).parents[2].parent / "shared" / "data" / "camvid"
    root = Path(os.environ.get("PIXELCONTRAST_CAMVID", default))
    if not root.is_dir():
        pytest.skip("no CamVid here; PIXELCONTRAST_CAMVID names its folder")
    return root
