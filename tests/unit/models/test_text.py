"""The text encoder: tokens and mask, frozen, cached; loaded from the package, a folder or the hub."""

from __future__ import annotations

import http.server
import json
import logging
import pickle
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from textdiff.base.paths import assets_dir
from textdiff.models.text import TextEncoder

TINY = assets_dir() / "tiny_bert"
LONG = "bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."
SHORT = "The nuclei are sparsely distributed."
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def shared() -> TextEncoder:
    return TextEncoder.from_pretrained("tiny")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "encoder"))


# --- tokens and mask ---


def test_tokens_and_mask_have_the_promised_shapes(shared):
    tokens, mask = shared([LONG, SHORT])
    lengths = [len(shared.words(LONG)), len(shared.words(SHORT))]
    assert tokens.shape == (2, lengths[0], shared.dim) and tokens.dtype == torch.float32
    assert mask.dtype == torch.bool and mask.sum(1).tolist() == lengths
    assert mask[1, : lengths[1]].all() and (tokens[~mask] == 0).all() and torch.isfinite(tokens).all()


def test_a_captions_tokens_do_not_depend_on_its_company_nor_on_the_cache():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    encoder = TextEncoder.from_pretrained("tiny")
    assert torch.equal(torch.rand(4), expected)  # loading draws nothing from the caller's generator
    given = encoder([SHORT])[0]
    alone = given.clone()
    given.zero_()  # which changes nothing of what is remembered
    together, mask = TextEncoder.from_pretrained("tiny")([LONG, SHORT])
    assert torch.equal(together[1][mask[1]], alone[0])
    assert torch.equal(encoder([SHORT])[0], alone)


def test_words_line_up_with_tokens_and_unknown_ones_are_spelled_in_pieces(shared):
    words = shared.words("Upper left lung")
    assert words == ["[CLS]", "upper", "left", "lung", "[SEP]"]
    assert shared(["Upper left lung"])[0].shape[1] == len(words)
    words = shared.words("Zyxgloboma 12.5×3 mm (µ-type), naïve?!")
    assert "".join(word.removeprefix("##") for word in words[1:-1]) == "zyxgloboma12.5×3mm(µ-type),naive?!"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("the tumour in the left kidney.", "the tumour in the right kidney."),
        ("upper left lung.", "lower left lung."),
        ("two infected areas.", "three infected areas."),
    ],
)
def test_context_reaches_the_other_words(shared, one, other):
    (a, b), _ = shared([one, other])
    same = [i for i, (x, y) in enumerate(zip(shared.words(one), shared.words(other), strict=True)) if x == y]
    assert len(same) == len(a) - 1
    distance = (a[same] - b[same]).norm(dim=1) / a[same].norm(dim=1)
    assert distance.max() > 0.1


def test_fixed_padding_gives_always_max_length_tokens_and_speaks_at_pads(shared):
    encoder = TextEncoder.from_pretrained("tiny", max_length=10, padding="max_length")
    tokens, mask = encoder([LONG, "lung"])
    assert tokens.shape == (2, 10, encoder.dim)
    assert mask.sum(1).tolist() == [10, 3]
    assert (tokens[1, 3:].norm(dim=1) > 0).all()
    assert len(encoder.words(LONG)) == len(encoder.words("lung")) == 10
    assert not {"left", "right", "upper", "lower"} & set(encoder.words(LONG))
    torch.testing.assert_close(tokens[1, :3], shared(["lung"])[0][0], atol=1e-4, rtol=1e-4)


def test_a_cut_caption_is_said_once(caplog):
    encoder = TextEncoder.from_pretrained("tiny", max_length=8)
    with caplog.at_level(logging.WARNING, logger="textdiff.models.text"):
        assert encoder([SHORT])[0].shape[1] == 8 and not caplog.records  # just fits
        tokens, _ = encoder([LONG])
        encoder([LONG + " again"])
    assert tokens.shape[1] == 8
    assert len(caplog.records) == 1 and "18 tokens" in caplog.text and LONG in caplog.text


# --- captions that are refused ---


@pytest.mark.parametrize(
    ("captions", "error", "says"),
    [
        (SHORT, TypeError, "list of strings"),
        ([], ValueError, "empty"),
        ([SHORT, ""], ValueError, "caption 1 is empty"),
        (["  "], ValueError, "allow_empty"),
        ([None], TypeError, "caption 0 is a NoneType"),
    ],
)
def test_bad_captions_are_refused(shared, captions, error, says):
    with pytest.raises(error, match=says):
        shared(captions)


def test_empty_captions_are_taken_where_allowed():
    encoder = TextEncoder.from_pretrained("tiny")
    encoder.allow_empty = True
    assert encoder([""])[0].shape == (1, 2, encoder.dim) and encoder([""])[1].all()


# --- frozen ---


def test_the_encoder_is_frozen_and_stays_in_evaluation_mode(shared):
    parent = nn.Sequential(nn.Dropout(), shared).train()
    assert parent[0].training and not any(module.training for module in shared.modules())
    assert not any(p.requires_grad for p in shared.parameters())
    assert all(p.dtype == torch.float32 for p in shared.parameters())


def test_what_inference_mode_or_autocast_remembered_can_be_trained_on():
    plain = TextEncoder.from_pretrained("tiny")([SHORT])[0]
    encoder = TextEncoder.from_pretrained("tiny")
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        encoder([SHORT])
    tokens, _ = encoder([SHORT])
    layer = nn.Linear(encoder.dim, 1)
    layer(tokens).sum().backward()
    assert layer.weight.grad is not None and torch.equal(tokens, plain)


# --- what is remembered ---


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("textdiff.models.text.REMEMBERED", 2)
    encoder = TextEncoder.from_pretrained("tiny")
    encoder([SHORT, LONG, "lung", "liver"])
    assert len(encoder._memory) == 2


# --- folders ---


def test_a_folder_with_pytorch_weights_and_a_bare_vocabulary_loads(shared, folder):
    """As Bio_ClinicalBERT's: pytorch_model.bin with `bert.` keys and heads, vocab.txt, nothing on casing."""
    from safetensors.torch import load_file

    weights = {f"bert.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    weights["cls.seq_relationship.bias"] = torch.zeros(2)
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer_config.json").unlink()
    encoder = TextEncoder.from_pretrained(str(folder))
    assert torch.equal(encoder([LONG])[0], shared([LONG])[0])


def test_a_pickle_with_code_is_not_run(folder, tmp_path):
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (trap,))

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"bert.embeddings": Trap()}))
    with pytest.raises(OSError, match="cannot be loaded"):
        TextEncoder.from_pretrained(folder)
    assert not trap.exists()


@pytest.mark.parametrize("kind", ["DistilBert", "Roberta", "T5", "CLIP"])
def test_other_families_load_by_the_same_code(kind, folder):
    import transformers

    words = json.loads((folder / "config.json").read_text())["vocab_size"]
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = {
        "DistilBert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "vocab_size": words},
        "Roberta": {**small, "intermediate_size": 16, "vocab_size": words},
        "T5": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": words},
        "CLIP": {"text_config": small | {"vocab_size": words}, "vision_config": small},
    }
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**settings[kind]))
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    encoder = TextEncoder.from_pretrained(folder)
    tokens, mask = encoder([LONG, SHORT])
    assert encoder.dim == 16 and tokens.shape == (2, 18, 16) and mask.sum(1).tolist() == [18, 8]


@pytest.mark.parametrize("file", ["config.json", "vocab.txt", "model.safetensors"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{folder}.*{file}"):
        TextEncoder.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *((name, "no text encoder folder") for name in ("/no/such/folder", "./here", "a/b/c")),
        ("bad id!!", "neither a folder on this disk nor a possible hub id"),
    ],
)
def test_a_missing_folder_is_not_taken_for_a_hub_id(name, says):
    with pytest.raises(OSError, match=says):
        TextEncoder.from_pretrained(name)


def test_damaged_weights_are_named(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(OSError, match=f"{folder} cannot be loaded"):
        TextEncoder.from_pretrained(folder)


def test_weights_that_leave_layers_unset_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="tensors unset"):
        TextEncoder.from_pretrained(folder)


def test_a_tokenizer_of_another_encoder_is_refused(folder):
    with (folder / "vocab.txt").open("a") as file:
        file.writelines(f"extra{i}\n" for i in range(50))
    with pytest.raises(ValueError, match="different encoders"):
        TextEncoder.from_pretrained(folder)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_length": 129}, "3 to 128"),
        ({"max_length": 2}, "3 to 128"),
        ({"padding": "right"}, "'longest' or 'max_length'"),
    ],
)
def test_bad_settings_are_refused_when_built(options, says):
    with pytest.raises(ValueError, match=says):
        TextEncoder.from_pretrained("tiny", **options)


# --- the hub, played by a local server ---


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download needs: the files of `root` are the model "someone/model"."""

    root: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        files = sorted(file.name for file in self.root.iterdir())
        api, resolve = "/api/models/someone/model", f"/someone/model/resolve/{COMMIT}/"
        if path.startswith(f"{api}/tree/"):
            about = {"type": "file", "oid": "0" * 40}
            rows = [about | {"path": file, "size": (self.root / file).stat().st_size} for file in files]
            self.send(json.dumps(rows).encode(), body)
        elif path.startswith(api):
            info = {"id": "someone/model", "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}
            self.send(json.dumps(info).encode(), body)
        elif path.startswith(resolve) and path.removeprefix(resolve) in files:
            content = (self.root / path.removeprefix(resolve)).read_bytes()
            self.send(content, body, 200, ETag=f'"{path.rsplit("/")[-1]}"')
        else:
            self.send(b"", body, 404, **{"X-Error-Code": "RepoNotFound"})

    def send(self, content: bytes, body: bool, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args) -> None:
        pass


def point_hub_at(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT and HF_HUB_CACHE do when set before the hub client is imported."""
    from huggingface_hub import constants, file_download, hf_api

    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)  # below 1.0
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hf_api.api, "endpoint", address)


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    handler = type("Handler", (Hub,), {"root": folder, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    point_hub_at(f"http://127.0.0.1:{server.server_port}", tmp_path / "cache", monkeypatch)
    yield handler
    server.shutdown()
    server.server_close()


def test_a_hub_id_is_downloaded_once_and_then_read_from_disk(hub, shared):
    (hub.root / "tf_model.h5").write_bytes(b"not wanted")
    first = TextEncoder.from_pretrained("someone/model")
    assert first.name == "someone/model" and torch.equal(first([LONG])[0], shared([LONG])[0])
    assert any(path.endswith("model.safetensors") for path in hub.asked)
    assert not any(path.endswith(("tf_model.h5", "README.md")) for path in hub.asked)
    hub.asked.clear()
    assert torch.equal(TextEncoder.from_pretrained("someone/model")([LONG])[0], shared([LONG])[0])
    assert hub.asked == []


def test_pytorch_weights_are_downloaded_where_there_are_no_safetensors(hub, shared):
    from safetensors.torch import load_file

    torch.save(load_file(hub.root / "model.safetensors"), hub.root / "pytorch_model.bin")
    (hub.root / "model.safetensors").unlink()
    assert torch.equal(TextEncoder.from_pretrained("someone/model")([LONG])[0], shared([LONG])[0])
    hub.asked.clear()
    TextEncoder.from_pretrained("someone/model")
    assert hub.asked == []


def test_an_unknown_hub_id_is_told_from_a_missing_network(hub):
    with pytest.raises(OSError, match="someone/else.* no such model") as caught:
        TextEncoder.from_pretrained("someone/else")
    assert "could not be reached" not in str(caught.value)
    (hub.root / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="lacks weights"):
        TextEncoder.from_pretrained("someone/model")


def test_a_network_that_swallows_everything_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("textdiff.models.text.HUB_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_hub_at(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path, monkeypatch)
        start = time.monotonic()
        with pytest.raises(OSError, match="emilyalsentzer/Bio_ClinicalBERT.* could not be reached.*folder.*'tiny'"):
            TextEncoder.from_pretrained("emilyalsentzer/Bio_ClinicalBERT")
    assert time.monotonic() - start < 10
