"""Tile shapes, column splits and launches of the contrast kernels.

The tiles are the largest that compile for their GPU without register spills and within its shared
memory; `benchmarks/triton_compile.py` prints both for every entry and needs no GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

Denominator = Literal["negatives", "all"]
Kernel = Literal["statistics", "positives", "gradient"]


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and columns of one tile of logits, and the warps and pipeline stages that work on it."""

    rows: int
    columns: int
    warps: int
    stages: int


HOPPER_TILES: dict[tuple[Kernel, int], Tile] = {
    ("statistics", 64): Tile(128, 128, 8, 3),
    ("statistics", 128): Tile(128, 128, 8, 3),
    ("statistics", 256): Tile(128, 128, 8, 2),
    ("positives", 64): Tile(128, 64, 8, 3),
    ("positives", 128): Tile(128, 64, 8, 3),
    ("positives", 256): Tile(128, 64, 8, 3),
    ("gradient", 64): Tile(128, 128, 8, 3),
    ("gradient", 128): Tile(128, 128, 8, 3),
    ("gradient", 256): Tile(128, 64, 8, 3),
}
"""(kernel, padded D) -> tile within 227 KB of shared memory a block: capability 9.0 and 10.0."""

SMALL_TILES: dict[tuple[Kernel, int], Tile] = {
    ("statistics", 64): Tile(64, 64, 4, 3),
    ("statistics", 128): Tile(64, 64, 4, 3),
    ("statistics", 256): Tile(64, 64, 8, 2),
    ("positives", 64): Tile(64, 64, 4, 3),
    ("positives", 128): Tile(64, 64, 4, 3),
    ("positives", 256): Tile(64, 64, 8, 2),
    ("gradient", 64): Tile(64, 64, 4, 3),
    ("gradient", 128): Tile(64, 64, 4, 2),
    ("gradient", 256): Tile(64, 64, 8, 2),
}
"""The same within the 99 KB of every GPU since compute capability 8.0."""

_HOPPER_SHARED_BYTES = 227 * 1024


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel on one pair of matrices, with its tile and grid."""

    kernel: Kernel
    rows: Tensor
    columns: Tensor
    tile: Tile
    blocks: int
    splits: int

    @classmethod
    def plan(cls, kernel: Kernel, rows: Tensor, columns: Tensor) -> Launch:
        """Choose the tile by D, and the column splits by the number of row blocks.

        Args:
            kernel: name without its ending.
            rows: (N, D) contiguous; each program owns a block of them.
            columns: (K, D) in the same format.
        """
        processors, shared_bytes = _device_limits(rows.device)
        tiles = HOPPER_TILES if shared_bytes >= _HOPPER_SHARED_BYTES else SMALL_TILES
        tile = tiles[kernel, max(64, padded(rows.shape[1]))]
        blocks = _ceil_div(len(rows), tile.rows)
        splits = split_count(blocks, _ceil_div(len(columns), tile.columns), processors)
        return cls(kernel, rows, columns, tile, blocks, splits)

    def __call__(self, *pointers: Tensor, denominator: Denominator, **flags: bool) -> None:
        """Run it; `pointers` are the kernel's arguments between the vectors and the numbers."""
        module = import_module("pixelcontrast.losses.triton_kernels")
        kernel = getattr(module, f"{self.kernel}_kernel")
        # Triton launches on the current device.
        with torch.cuda.device_of(self.rows):  # type: ignore[no-untyped-call]
            kernel[(self.blocks, self.splits)](
                self.rows,
                self.columns,
                *pointers,
                len(self.rows),
                self.splits,
                **constants(self.tile, self.rows.shape[1], denominator),
                **flags,
                **options(self.tile),
            )


def constants(tile: Tile, dim: int, denominator: Denominator) -> dict[str, int]:
    """Compile-time constants common to all kernels."""
    return {
        "NEGATIVES": denominator == "negatives",
        "DIM": dim,
        "BLOCK_D": padded(dim),
        "BLOCK_M": tile.rows,
        "BLOCK_N": tile.columns,
    }


def options(tile: Tile) -> dict[str, int]:
    """Compiler options of a kernel with this tile."""
    return {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}


def padded(dim: int) -> int:
    """Columns of a tile that holds vectors of this length: the next power of two."""
    return 1 << (dim - 1).bit_length()


def split_count(blocks: int, column_tiles: int, processors: int) -> int:
    """Programs that share the columns of one block of rows.

    Minimises the number of rounds the multiprocessors need, in units of an unsplit program, among
    splits of at most two programs a multiprocessor: that also bounds the memory of the parts.
    """
    most = max(1, min(2 * processors // blocks, column_tiles))
    return min(range(1, most + 1), key=lambda s: _ceil_div(blocks * s, processors) / s)


def _ceil_div(total: int, size: int) -> int:
    return -(-total // size)


@cache
def _device_limits(device: torch.device) -> tuple[int, int]:
    """Multiprocessors, and bytes of shared memory one block can have."""
    if device.type != "cuda":  # Triton's interpreter: as an H200
        return 132, _HOPPER_SHARED_BYTES
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.shared_memory_per_block_optin
