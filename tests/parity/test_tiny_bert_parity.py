"""The shipped text encoder against transformers: the same files through both, the same pieces and the same tokens."""

from __future__ import annotations

import pytest
import torch

from textdiff.models.text import find_encoder
from textdiff.models.tiny_bert import load_tiny

CAPTIONS = (
    "the liver",
    "Both kidneys, PLEASE; but not the tumour (2.5 cm)!",
    "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung.",
    "na\u00efve \u00e9t\u00e9 \u4e2d\u6587 unknownestword \U0001f600\t tabs\x00 and   spaces",
    "liver " * 200,
)


@pytest.fixture(scope="module")
def both():
    from transformers import AutoModel, AutoTokenizer

    folder = find_encoder("tiny")
    theirs = AutoModel.from_pretrained(folder, add_pooling_layer=False).float().eval()
    return load_tiny(folder), (theirs, AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("padding", [False, "max_length"])
@pytest.mark.parametrize("caption", CAPTIONS)
def test_pieces_and_tokens_are_those_of_transformers(both, caption, padding):
    (ours, pieces), (theirs, tokenizer) = both
    how = {"max_length": 64, "padding": padding, "truncation": True, "return_attention_mask": True}
    one, other = pieces(caption, **how), tokenizer(caption, **how)
    assert one["input_ids"] == other["input_ids"] and one["attention_mask"] == other["attention_mask"]
    assert pieces.tokenize(caption) == tokenizer.tokenize(caption)
    assert pieces.convert_ids_to_tokens(one["input_ids"]) == tokenizer.convert_ids_to_tokens(one["input_ids"])
    ids, mask = (torch.tensor([one[name]]) for name in ("input_ids", "attention_mask"))
    with torch.no_grad():
        found, expected = (
            model(input_ids=ids, attention_mask=mask).last_hidden_state for model in (ours.float(), theirs)
        )
    assert torch.allclose(found, expected, atol=2e-5)


def test_what_the_encoder_asks_of_both_is_the_same(both):
    (ours, pieces), (theirs, tokenizer) = both
    assert len(pieces) == len(tokenizer) and pieces.pad_token == tokenizer.pad_token
    assert pieces.model_max_length == tokenizer.model_max_length
    assert pieces.num_special_tokens_to_add() == tokenizer.num_special_tokens_to_add()
    for name in ("hidden_size", "vocab_size", "max_position_embeddings"):
        assert getattr(ours.config, name) == getattr(theirs.config, name)
    assert set(ours.state_dict()) == {key for key in theirs.state_dict() if "position_ids" not in key}
