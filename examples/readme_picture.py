"""Draws docs/images/demo.png from the demo's runs: scene, mask, and what each network sees."""

from pathlib import Path

import cv2
import numpy as np

import pixelcontrast as pc
from pixelcontrast.data import SCENES_INFO, open_dataset, read_image, read_mask

RUNS = ("runs/demo/supervised_scenes", "runs/demo/pico_scenes")
COUNT, ZOOM, GAP = 5, 2, 6


def main() -> None:
    networks = [pc.load(run) for run in RUNS]
    samples = open_dataset("runs/scenes").select("test")[:COUNT]
    palette = np.zeros((256, 3), np.uint8)
    palette[: SCENES_INFO.num_classes] = SCENES_INFO.palette
    columns = []
    for sample in samples:
        truth = palette[read_mask(sample.mask, SCENES_INFO)]
        tiles = [read_image(sample.image), truth, *(net(sample.image).colour() for net in networks)]
        big = [
            cv2.resize(t, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST) for t in tiles
        ]
        columns.append(np.concatenate([np.pad(t, GAP_BELOW, constant_values=255) for t in big]))
    picture = np.concatenate([np.pad(c, GAP_RIGHT, constant_values=255) for c in columns], axis=1)
    out = Path("docs/images/demo.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), picture[:-GAP, :-GAP, ::-1])
    print(out)


GAP_BELOW = ((0, GAP), (0, 0), (0, 0))
GAP_RIGHT = ((0, 0), (0, GAP), (0, 0))

if __name__ == "__main__":
    main()
