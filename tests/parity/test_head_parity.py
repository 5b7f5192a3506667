"""The trained head against the authors' code: parameter counts, keys and logits."""

from __future__ import annotations

import golden
import pytest
import torch

from textdiff.models.textdiff import TextDiffHead

MONUSEG = (1536, 1536, 768, 768)
QATA = (3072, 1536, 1536, 768)


@pytest.mark.parametrize(("channels", "count"), [(MONUSEG, 9_683_234), (QATA, 10_862_882)])
def test_trainable_parameters(channels: tuple[int, ...], count: int) -> None:
    with torch.device("meta"):
        head = TextDiffHead(channels)
    assert sum(p.numel() for p in head.parameters() if p.requires_grad) == count


def test_logits_agree_with_the_authors_code() -> None:
    description = golden.description("head_qata.json")
    head = TextDiffHead(QATA).eval()
    head.load_official(golden.state(description["state_dict"]))
    maps = [golden.data(f"head_qata/feat{k}", tuple(shape)) for k, shape in enumerate(description["feature_shapes"])]
    tokens = golden.data("head_qata/text", tuple(description["text_shape"]))
    with torch.inference_mode():
        logits = head(maps, tokens, size=(256, 256))
    golden.assert_close(logits[..., ::4, ::4], golden.arrays("head_qata.npz")["logits"])


def test_wrong_keys_are_listed() -> None:
    with torch.device("meta"):
        head = TextDiffHead(QATA)
        state = {key: torch.empty(shape) for key, shape in golden.description("head_qata.json")["state_dict"].items()}
    state["down3.weight"] = state.pop("down1.weight")
    with pytest.raises(ValueError, match=r"(?s)missing \(1\): project.first.weight.*unexpected \(1\): down3.weight"):
        head.load_official(state)
