"""Features in the plane, for pictures: principal components and t-SNE."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_plane(vectors: Tensor) -> tuple[Tensor, float]:
    """The first two principal components.

    The sign of each axis is fixed by its largest entry, so that equal features give equal pictures.

    Args:
        vectors: (N, F).

    Returns:
        (N, 2) float64 coordinates and the share of the variance they hold.
    """
    wide = vectors.double()
    centred = wide - wide.mean(dim=0, keepdim=True)
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    largest = axes.abs().argmax(dim=1, keepdim=True)
    plane = centred @ (axes * axes.gather(1, largest).sign()).T
    plane = torch.nn.functional.pad(plane, (0, 2 - plane.shape[1]))
    power = values.square()
    return plane, float(power[:2].sum() / power.sum().clamp(min=1e-300))


def tsne_plane(vectors: Tensor, *, seed: int = 0, perplexity: float = 30.0) -> Tensor | None:
    """t-SNE coordinates (van der Maaten and Hinton, JMLR 2008), started from the principal plane.

    Args:
        vectors: (N, F).
        seed: makes the picture repeatable.
        perplexity: about how many neighbours count (the value of the paper's experiments lies in
            5 to 50); lowered for few vectors.

    Returns:
        (N, 2) float64; None without scikit-learn or with fewer than 5 vectors.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        return None
    if len(vectors) < 5:
        return None
    model = TSNE(
        perplexity=min(perplexity, (len(vectors) - 1) / 3),
        init="pca" if vectors.shape[1] > 1 else "random",
        random_state=seed,
    )
    return torch.from_numpy(model.fit_transform(vectors.float().numpy())).double()
