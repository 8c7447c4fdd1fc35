"""Compile the contrast kernels for a GPU that need not be there; print what each one occupies.

    python benchmarks/triton_compile.py --capability 90

One line a kernel: registers a thread, bytes spilled to memory, shared memory a block and whether
Hopper's matrix instructions are used. The exit status is 1 when a kernel spills registers or needs
more shared memory than a block can have.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pixelcontrast.losses import triton_kernels
from pixelcontrast.losses.triton_launch import (
    HOPPER_TILES,
    SMALL_TILES,
    constants,
    options,
    padded,
)

if TYPE_CHECKING:
    from pixelcontrast.losses.triton_launch import Denominator, Kernel, Tile

SHARED_LIMIT = {"hopper": 227 * 1024, "small": 99 * 1024}
# Roles of the gradient kernel: anchors, keys, and a set contrasted with itself.
ROLES = {"rows": (True, False), "columns": (False, True), "both": (True, True)}


@dataclass(frozen=True, slots=True)
class Usage:
    """What one compiled kernel occupies."""

    registers: int
    spilled: int
    shared: int
    wgmma: bool


def usage(
    kernel: Kernel, tile: Tile, dim: int, form: Denominator, roles: str, capability: int
) -> Usage:
    """Compile one kernel with the tile and options of a launch and read ptxas' report."""
    function = getattr(triton_kernels, f"{kernel}_kernel")
    constexprs: dict[str, int] = {**constants(tile, dim, form), "HAS_SELF": True}
    if kernel == "gradient":
        constexprs["ROWS_ACT"], constexprs["COLUMNS_ACT"] = ROLES[roles]
    names = function.arg_names
    source = ASTSource(
        function,
        {name: _type(name, constexprs) for name in names},
        {(names.index(name),): value for name, value in constexprs.items()},
        {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name.endswith("_ptr")},
    )
    triton.knobs.nvidia.dump_ptxas_log = True
    triton.knobs.compilation.always_compile = True
    with contextlib.redirect_stdout(io.StringIO()) as log:
        compiled = triton.compile(source, GPUTarget("cuda", capability, 32), options(tile))
    text = log.getvalue()
    registers = re.search(r"Used (\d+) registers", text)
    if registers is None:
        raise RuntimeError(f"no resource report from ptxas for {kernel}: {text[:500]}")
    return Usage(
        int(registers[1]),
        sum(int(number) for number in re.findall(r"(\d+) bytes spill", text)),
        compiled.metadata.shared,
        "wgmma" in compiled.asm["ptx"],
    )


def _type(name: str, constexprs: dict[str, int]) -> str:
    if name in constexprs:
        return "constexpr"
    if name in ("stride", "splits"):
        return "i32"
    if name in ("row_ptr", "column_ptr"):
        return "*fp16"
    return "*i32" if re.search(r"start|end|self|count", name) else "*fp32"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capability", type=int, default=90, help="90 for Hopper, 80, 86, 89 ...")
    parser.add_argument("--kernels", nargs="+", default=["statistics", "positives", "gradient"])
    parser.add_argument("--dims", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--forms", nargs="+", default=["negatives", "all"])
    parser.add_argument("--roles", nargs="+", default=list(ROLES))
    given = parser.parse_args()
    size = "hopper" if given.capability >= 90 else "small"
    tiles = HOPPER_TILES if size == "hopper" else SMALL_TILES
    print(f"triton {triton.__version__}, sm_{given.capability}, {SHARED_LIMIT[size]} B shared")
    print(
        f"{'kernel':<12}{'D':>4} {'form':<10}{'roles':<9}{'tile':<12}{'regs':>5}{'spill':>6}"
        f"{'shared':>8}  wgmma"
    )
    worst = 0
    for kernel, dim, form in product(given.kernels, given.dims, given.forms):
        tile = tiles[kernel, max(64, padded(dim))]
        shape = f"{tile.rows}x{tile.columns},{tile.warps},{tile.stages}"
        for roles in given.roles if kernel == "gradient" else ["-"]:
            got = usage(kernel, tile, dim, form, roles, given.capability)
            bad = got.spilled > 0 or got.shared > SHARED_LIMIT[size]
            worst |= bad
            print(
                f"{kernel:<12}{dim:>4} {form:<10}{roles:<9}{shape:<12}{got.registers:>5}"
                f"{got.spilled:>6}{got.shared:>8}  {got.wgmma}{'  <- does not fit' * bad}",
                flush=True,
            )
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
