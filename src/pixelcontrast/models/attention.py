"""Multi-head attention with positions, shared by the decoders that are transformers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Queries attend to keys (Vaswani et al., 1706.03762, section 3.2.2).

    Query, key and value have projections of their own, so that positions may be added to some of
    them alone, as DETR does (2005.12872, appendix A.4).

    Args:
        width: length of queries, keys and values.
        heads: number of heads; divides `width`.
        dropout: share of attention weights that are dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, N, width), (B, K, width), (B, K, width) -> (B, N, width)."""
        mixed = F.scaled_dot_product_attention(
            self._split(self.query(query)),
            self._split(self.key(key)),
            self._split(self.value(value)),
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, heads, N, width / heads)."""
        batch, length, _ = x.shape
        return x.view(batch, length, self.heads, -1).transpose(1, 2)


def tokens_of(x: Tensor) -> Tensor:
    """A feature map (B, F, h, w) as a sequence (B, h w, F), row by row."""
    return x.flatten(2).transpose(1, 2)
