"""Noise as a function of (seed, chunk, purpose): no random generator is ever kept as state.

Folding a path into a seed makes every draw independent of how many draws came before it, so
rewinding and replaying a rollout repeats it bit for bit (design law 1).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MAX_SEED = 2**63 - 1


def fold(seed: int, *path: int | str) -> int:
    """A new seed in [0, 2**63 - 1) that depends on ``seed`` and every element of ``path``.

    Integers and strings never collide (``fold(0, 1) != fold(0, "1")``); equal arguments give equal
    results on every platform.
    """
    parts = [f"i{seed}"] + [f"i{p}" if isinstance(p, int) else f"s{len(p)}:{p}" for p in path]
    digest = hashlib.blake2b("|".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % _MAX_SEED


def generator(seed: int, *path: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh torch generator seeded with ``fold(seed, *path)``.

    On the CPU by default, so that the same numbers are drawn whatever device computes with them.
    """
    import torch

    made = torch.Generator(device=device)
    made.manual_seed(fold(seed, *path))
    return made
