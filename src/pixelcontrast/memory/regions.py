"""One region embedding per class and training image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelcontrast.core.distributed import gather_rows
from pixelcontrast.memory.storage import Keys, gather_labelled, write_rows


class RegionMemory(nn.Module):
    """The latest region embedding of every class in every training image.

    The C x N x D region memory of Wang et al. (ICCV 2021): an image overwrites its own entries,
    so the memory covers the whole training set and is never older than one epoch. Where images
    have no number, a `ClassQueue` of region embeddings takes its place (as in the authors'
    code). What `ClassQueue` says about processes, checkpoints and export holds here too.

    Args:
        num_classes: C.
        images: slots of each class; the number of training images, or less to save memory:
            image i uses slot i modulo `images`.
        dim: D.
        dtype: storage type.
    """

    same_on_all_ranks = True
    rows: Tensor
    filled: Tensor

    def __init__(
        self, num_classes: int, images: int, dim: int, *, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.images = images
        # One row more than slots takes what is not to be kept; see write_rows.
        self.register_buffer("rows", torch.zeros(num_classes * images + 1, dim, dtype=dtype))
        self.register_buffer("filled", torch.zeros(num_classes * images + 1, dtype=torch.bool))

    @torch.no_grad()
    def store(
        self,
        regions_ND: Tensor,
        labels_N: Tensor,
        images_N: Tensor,
        *,
        same_rows: bool = False,
    ) -> None:
        """Overwrite the entries of the given images; of equal ones the last stays.

        Not between the forward pass of a loss on `keys()` and its backward pass.

        Args:
            regions_ND: (N, D); no gradient is kept.
            labels_N: (N,) class ids; rows outside [0, C) are left out.
            images_N: (N,) numbers of the images in the training set, at least 0.
            same_rows: N is equal on all processes (see `core.distributed.gather_rows`).
        """
        regions, labels = gather_labelled(regions_ND, labels_N, None, self.num_classes, same_rows)
        images = gather_rows(images_N.long(), same_rows=same_rows) % self.images
        slots, order = (labels * self.images + images).sort(stable=True)
        last = torch.ones_like(slots, dtype=torch.bool)
        last[:-1] = slots[1:] != slots[:-1]
        keep = last & (slots >= 0) & (slots < self.num_classes * self.images)
        slots = torch.where(keep, slots, self.filled.shape[0] - 1)
        write_rows(self.rows, slots, regions[order])
        write_rows(self.filled, slots, keep)

    def keys(self) -> Keys:
        """All slots, class by class, filled or not: (C * images, D)."""
        slot = torch.arange(self.num_classes * self.images, device=self.rows.device)
        valid = self.filled[:-1]
        return Keys(self.rows[:-1], torch.where(valid, slot // self.images, -1), valid)
