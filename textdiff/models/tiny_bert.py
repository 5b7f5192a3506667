"""The text encoder that ships with the package: its folder in, a BERT and its tokenizer out, without importing transformers.

Same files, same tokens as through transformers' ``AutoModel`` and ``AutoTokenizer``, whose import takes longer than reading a
sentence and segmenting a volume. Only what :class:`textdiff.models.text.TextEncoder` needs of either is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.base.checkpoints import load_strict, read_checkpoint, read_json

EPS = 1e-12  # of BERT's layer norms


class Layer(nn.Module):
    """Self-attention and two linear layers, each with a residual connection and a norm behind it; names are transformers'."""

    def __init__(self, dim: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        asked = nn.ModuleDict({name: nn.Linear(dim, dim) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"self": asked, "output": _joined(dim, dim)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(dim, inner)})
        self.output = _joined(inner, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x [B, L, D]``, ``mask [B, L]`` bool (True = read it) -> ``[B, L, D]``."""
        parts: Any = self.attention["self"]
        q, k, v = (parts[name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in parts)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        x = _added(self.attention["output"], read.transpose(1, 2).flatten(2), x)
        return _added(self.output, F.gelu(self.intermediate["dense"](x)), x)


def _joined(inner: int, dim: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inner, dim), "LayerNorm": nn.LayerNorm(dim, EPS)})


def _added(parts: Any, read: Tensor, x: Tensor) -> Tensor:
    return parts["LayerNorm"](parts["dense"](read) + x)


class TinyBert(nn.Module):
    """A BERT without pooler; ``config`` has the names of its config.json."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config, dim = config, config.hidden_size
        sizes = {"word": config.vocab_size, "position": config.max_position_embeddings, "token_type": 2}
        self.embeddings = nn.ModuleDict({f"{name}_embeddings": nn.Embedding(n, dim) for name, n in sizes.items()})
        self.embeddings["LayerNorm"] = nn.LayerNorm(dim, EPS)
        how = (dim, config.intermediate_size, config.num_attention_heads)
        layers = nn.ModuleList(Layer(*how) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """``input_ids``, ``attention_mask`` integers ``[B, L]`` -> ``last_hidden_state [B, L, D]``."""
        parts, places = self.embeddings, torch.arange(input_ids.shape[1], device=input_ids.device)
        x = parts["word_embeddings"](input_ids) + parts["position_embeddings"](places)
        x = parts["LayerNorm"](x + parts["token_type_embeddings"](torch.zeros_like(input_ids)))
        layers: Any = self.encoder["layer"]
        for layer in layers:
            x = layer(x, attention_mask.bool())
        return SimpleNamespace(last_hidden_state=x)


@dataclass
class WordPieces:
    """BERT's word pieces of lower-case words; ``pieces`` is the tokenizers library's."""

    pieces: Any
    model_max_length: int
    pad_token: str = "[PAD]"

    def __len__(self) -> int:
        return self.pieces.get_vocab_size()

    def num_special_tokens_to_add(self) -> int:
        """[CLS] and [SEP]."""
        return self.pieces.num_special_tokens_to_add(False)

    def tokenize(self, caption: str) -> list[str]:
        """The pieces without [CLS] and [SEP]."""
        return self.pieces.encode(caption, add_special_tokens=False).tokens

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.pieces.id_to_token(one) for one in ids]

    def __call__(self, caption: str, *, max_length: int, padding: str | bool, **_: bool) -> dict[str, list[int]]:
        """``input_ids`` and ``attention_mask`` of at most ``max_length`` pieces, so many exactly where ``padding`` is "max_length"."""
        ids = self.pieces.encode(caption).ids
        ids = ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]
        more = max_length - len(ids) if padding == "max_length" else 0
        return {
            "input_ids": ids + [self.pieces.token_to_id(self.pad_token)] * more,
            "attention_mask": [1] * len(ids) + [0] * more,
        }


def load_tiny(folder: Path) -> tuple[TinyBert, WordPieces]:
    """The encoder and the tokenizer of a folder with config.json, vocab.txt, tokenizer_config.json and model.safetensors."""
    from tokenizers import BertWordPieceTokenizer

    backbone = TinyBert(SimpleNamespace(**read_json(folder / "config.json")))
    load_strict(backbone, read_checkpoint(folder / "model.safetensors"), str(folder / "model.safetensors"))
    longest = read_json(folder / "tokenizer_config.json")["model_max_length"]
    return backbone, WordPieces(BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True), longest)
