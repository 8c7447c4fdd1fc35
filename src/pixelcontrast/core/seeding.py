"""Seeds and generators that depend on names, not on the history of a process."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Generator


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed that is the same for the same parts on every machine and in every process.

    `seed_for(run_seed, "anchors", step, rank)` gives each draw of a run its own stream, so a
    resumed run needs no stored generator state.

    Args:
        parts: integers of any size and strings; the order matters, and 1 differs from "1".
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return int.from_bytes(digest.digest(), "little") >> 1


def generator_for(device: torch.device | str, *parts: int | str) -> Generator:
    """A generator on `device`, seeded by `seed_for(*parts)`.

    Random numbers differ between kinds of devices; on one kind they repeat exactly.
    """
    return torch.Generator(device=device).manual_seed(seed_for(*parts))
