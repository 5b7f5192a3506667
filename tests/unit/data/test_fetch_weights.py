"""Fetching weights: from a local server, with a small network in the place of the large one."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from local_server import Server
from tiny_models import ARCHITECTURE, tiny_unet

from textdiff.data import fetch as fetching
from textdiff.data.fetch import FetchError, WrongContentError, fetch, fetch_weights
from textdiff.experiments import images as experiments
from textdiff.experiments.images import load_backbone

NAME = "256x256_diffusion_uncond.pt"
PATH = f"/diffusion/jul-2021/{NAME}"


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def whole() -> bytes:
    return saved(tiny_unet().state_dict())


@pytest.fixture
def server(whole):
    server = Server()
    server.files[PATH] = whole
    yield server
    server.close()


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path, whole):
    monkeypatch.setenv("TEXTDIFF_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(experiments, "OPENAI_256", ARCHITECTURE)
    monkeypatch.setattr(fetching.time, "sleep", lambda _: None)
    monkeypatch.setitem(fetching.WEIGHTS, "openai_256", replace(fetching.WEIGHTS["openai_256"], size=len(whole)))
    return tmp_path / "weights"


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_public_address():
    entry = fetching.WEIGHTS["openai_256"]
    assert f"{entry.host}/{entry.path}" == (
        "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/256x256_diffusion_uncond.pt"
    )
    assert entry.path.endswith(experiments.OPENAI_256_FILE)  # where load_backbone looks


def test_they_arrive_checked_and_can_be_loaded(server, home):
    said = []
    path = fetch("openai_256", base_url=server.url, say=said.append)
    assert path == home / NAME and names(home) == [NAME]
    count = sum(p.numel() for p in tiny_unet().parameters())
    assert f"{len(tiny_unet().state_dict())} tensors, {count:,} numbers" in said[-1]
    assert "no checksum is published" in said[-1] and "MIT" in said[-1]
    assert load_backbone("openai_256").config["model_channels"] == 32
    asked = len(server.asked)
    assert fetch("openai_256", base_url=server.url, say=said.append) == path and len(server.asked) == asked
    assert "already in" in said[-1]


def test_a_broken_transfer_goes_on_where_it_stopped(server, home):
    server.cut = [5000]
    path = fetch_weights("openai_256", base_url=server.url, say=lambda _: None)
    assert server.asked[-1] == (PATH, "bytes=5000-") and names(home) == [path.name]


def test_a_later_call_goes_on_too(server, home, whole):
    server.cut = [3000] + [0] * 3
    with pytest.raises(FetchError, match=f"(?s){PATH}.*{NAME}.*Run the same command again"):
        fetch_weights("openai_256", base_url=server.url, say=lambda _: None)
    assert not (home / NAME).exists()
    fetch_weights("openai_256", base_url=server.url, say=lambda _: None)
    assert server.asked[-1][1] == "bytes=3000-" and (home / NAME).read_bytes() == whole


def test_a_run_killed_before_the_check_is_taken_up(server, home, whole):
    home.mkdir()
    (home / f".{NAME}.unverified").write_bytes(whole)
    fetch_weights("openai_256", base_url=server.url, say=lambda _: None)
    assert not server.asked and names(home) == [NAME]


class Malicious:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("kind", ["another network", "nested", "no weights", "code"])
def test_what_does_not_fit_is_refused_and_an_old_file_stays(server, home, whole, kind, tmp_path):
    evidence = tmp_path / "was_run"
    server.files[PATH] = {
        "another network": saved(tiny_unet(num_res_blocks=2).state_dict()),
        "nested": saved({"model": tiny_unet().state_dict()}),
        "no weights": b"<html>not here</html>",
        "code": pickle.dumps(Malicious(str(evidence))),
    }[kind]
    home.mkdir()
    (home / NAME).write_bytes(whole)
    with pytest.raises(WrongContentError, match=f"(?s){PATH}.*not the weights of openai_256"):
        fetch_weights("openai_256", base_url=server.url, force=True, say=lambda _: None)
    assert names(home) == [NAME] and (home / NAME).read_bytes() == whole and not evidence.exists()


def test_a_file_already_on_disk(home, whole, tmp_path):
    (tmp_path / "brought.pt").write_bytes(whole)
    path = fetch("openai_256", source=tmp_path / "brought.pt", say=lambda _: None)
    assert path.read_bytes() == whole and (tmp_path / "brought.pt").exists()
    with pytest.raises(FetchError, match="already there; use force"):
        fetch("openai_256", source=tmp_path / "brought.pt", say=lambda _: None)
    with pytest.raises(FetchError, match="no such file: .*absent.pt"):
        fetch("openai_256", source=tmp_path / "absent.pt", force=True)


def test_a_damaged_file_that_is_there_is_noticed(home, whole):
    home.mkdir()
    (home / NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WrongContentError, match="on disk.*truncated|on disk.*damaged"):
        fetch("openai_256", say=lambda _: None)


def test_too_little_room_is_said_before_anything_is_asked(server, home, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(FetchError, match="0 MiB free, about .* MiB needed"):
        fetch("openai_256", base_url=server.url, say=lambda _: None)
    assert not server.asked


def test_unknown_names_list_data_and_weights():
    with pytest.raises(ValueError, match="'openai_512' is unknown; `fetch` knows monuseg, qata, openai_256"):
        fetch("openai_512")


def test_the_command_takes_them(monkeypatch, tmp_path, server):
    from typer.testing import CliRunner

    from textdiff import cli
    from textdiff.base.paths import weights_dir

    monkeypatch.setenv("TEXTDIFF_WEIGHTS", "elsewhere")
    monkeypatch.setattr("textdiff.data.fetch.fetch", lambda name, **_: f"{name} to {weights_dir()}")
    result = CliRunner().invoke(cli.app, ["fetch", "openai_256", "--root", str(tmp_path)])
    assert result.exit_code == 0 and f"openai_256 to {tmp_path}" in result.output.replace("\n", "")
