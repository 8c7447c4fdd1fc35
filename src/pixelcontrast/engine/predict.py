"""A trained network as a function from pictures to masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import torch

from pixelcontrast.core.errors import CheckpointError, DataError, PixelContrastError
from pixelcontrast.data import IMAGE_SUFFIXES, read_image, write_bytes, write_mask
from pixelcontrast.engine.config import parse_section
from pixelcontrast.engine.folder import model_file
from pixelcontrast.engine.names import Naming, read_names
from pixelcontrast.evaluation import InferenceConfig, predict_labels
from pixelcontrast.models import Segmentor, load_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["ids", "colour", "overlay", "confidence"]
KINDS: tuple[Kind, ...] = ("ids", "colour", "overlay", "confidence")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network sees in one picture."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    mask: NDArray[np.uint8]
    """(H, W) class ids."""
    confidence: NDArray[np.float32]
    """(H, W) probability of the predicted class."""
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def colour(self) -> NDArray[np.uint8]:
        """(H, W, 3) the mask in the colours of its classes."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return table[self.mask]

    def overlay(self, opacity: float = 0.5) -> NDArray[np.uint8]:
        """(H, W, 3) the picture with the coloured mask over it."""
        return cv2.addWeighted(self.image, 1 - opacity, self.colour(), opacity, 0).astype(np.uint8)

    def shares(self) -> dict[str, float]:
        """Share of the picture that each class covers, largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.names))
        order = np.argsort(-counts, kind="stable")
        return {self.names[i]: float(counts[i] / self.mask.size) for i in order if counts[i]}

    def write(self, folder: Path, name: str, kinds: Iterable[Kind] = KINDS) -> list[Path]:
        """Write the wanted pictures as `<kind>/<name>.png` and return their paths."""
        written = []
        for kind in kinds:
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "ids":
                write_mask(path, self.mask)
            elif kind == "colour":
                write_mask(path, self.mask, self.palette)
            elif kind == "overlay":
                _write_png(path, self.overlay()[..., ::-1])
            else:
                _write_png(path, (self.confidence * 255).round().astype(np.uint8))
            written.append(path)
        return written


class Predictor:
    """A network with its class names, ready for pictures of any size.

    Args:
        segmentor: the network.
        metadata: what its model file says about it.
        device: where it runs; None: a GPU if there is one.
        inference: None: as the network was scored in training, which its model file tells.
        naming: names that a person gave to clusters; None: what the model file says.
    """

    def __init__(
        self,
        segmentor: Segmentor,
        metadata: dict[str, Any],
        *,
        device: str | torch.device | None = None,
        inference: InferenceConfig | None = None,
        naming: Naming | None = None,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.segmentor = segmentor.eval().to(self.device)
        self.metadata = metadata
        self.names = tuple(metadata["classes"])
        self.palette = tuple((int(r), int(g), int(b)) for r, g, b in metadata["palette"])
        self._class_of: NDArray[np.uint8] | None = None
        if naming is not None:
            self._class_of = np.array(naming.class_of, np.uint8)
            self.names = naming.names
            self.palette = tuple(self.palette[naming.first(name)] for name in naming.names)
        self.inference = inference or parse_section(
            InferenceConfig, metadata.get("inference", {}), "inference"
        )

    @cached_property
    def _fast(self) -> Segmentor:
        """What pictures pass through; made for the first one."""
        return self.segmentor.fast_copy()

    def __call__(self, image: str | Path | NDArray[np.uint8]) -> Prediction:
        """Segment one picture.

        Args:
            image: a file, or an (H, W, 3) RGB array.

        Raises:
            DataError: the file cannot be read.
        """
        pixels = read_image(image) if isinstance(image, (str, Path)) else image
        batch = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
        labels, confidence = predict_labels(self._fast, batch.to(self.device), self.inference)
        mask = labels[0].cpu().numpy()
        return Prediction(
            image=pixels,
            mask=mask if self._class_of is None else self._class_of[mask],
            confidence=confidence[0].cpu().numpy(),
            names=self.names,
            palette=self.palette,
        )


def load(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    inference: InferenceConfig | None = None,
) -> Predictor:
    """The network of a run folder or of a model file.

    Clusters are called what `names.yaml` beside the model calls them.

    Raises:
        ConfigError: names of clusters that cannot be used.
        CheckpointError: there is no model, or it cannot be read.
    """
    file = model_file(path)
    segmentor, metadata = load_model(file)
    if not metadata.get("classifies", True):
        raise CheckpointError(
            "this network was pretrained only and has no trained classifier",
            where=file,
            fix=f"fine-tune it: pixelcontrast train --method supervised model.init={path} ...",
        )
    clusters = metadata["classes"] if metadata.get("clusters") else None
    naming = None if clusters is None else read_names(file.parent, clusters)
    return Predictor(segmentor, metadata, device=device, inference=inference, naming=naming)


def find_images(paths: Iterable[str | Path]) -> list[tuple[Path, str]]:
    """Every picture in files and folders, each with the name its masks get.

    Raises:
        DataError: a path does not exist, or nothing is found.
    """
    found: list[tuple[Path, str]] = []
    for given in map(Path, paths):
        if given.is_dir():
            inside = (p for p in sorted(given.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES)
            found += [(p, p.relative_to(given).with_suffix("").as_posix()) for p in inside]
        elif given.is_file():
            found.append((given, given.stem))
        else:
            raise DataError("there is no such image or folder", where=given.absolute())
    if not found:
        raise DataError("no images found", where=", ".join(map(str, paths)))
    names = [name for _, name in found]
    return [
        (path, name if names.count(name) == 1 else f"{name}{path.suffix.replace('.', '_')}")
        for path, name in found
    ]


def predict_files(
    predictor: Predictor,
    paths: Iterable[str | Path],
    out: Path,
    *,
    kinds: Iterable[Kind] = KINDS,
    on_done: Callable[[Path, Prediction], None] | None = None,
) -> list[PixelContrastError]:
    """Segment many pictures into a folder; one that cannot be read does not stop the others.

    Returns:
        The errors, in the order of the files.
    """
    kinds = tuple(kinds)
    errors: list[PixelContrastError] = []
    for path, name in find_images(paths):
        try:
            prediction = predictor(path)
        except DataError as error:
            errors.append(error)
            continue
        prediction.write(out, name, kinds)
        if on_done is not None:
            on_done(path, prediction)
    return errors


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    write_bytes(path, cv2.imencode(".png", pixels)[1].tobytes())
