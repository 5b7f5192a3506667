"""Fetching weights: from a local server, with a small network in the place of the large one."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
from dataclasses import replace
from email.message import Message
from types import SimpleNamespace

import pytest
import torch
from local_server import names
from tiny_models import tiny_unet

from textdiff.data.download import FetchError, WrongContentError
from textdiff.data.fetch import fetch, fetch_release, release_url
from textdiff.data.registry import BACKBONES, MODELS

NAME = "256x256_diffusion_uncond.pt"
PATH = f"/diffusion/jul-2021/{NAME}"


def quiet(*_):
    pass


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def whole() -> bytes:
    return saved(tiny_unet().state_dict())


@pytest.fixture
def server(server, whole):
    server.files[PATH] = whole
    return server


@pytest.fixture(autouse=True)
def home(home, monkeypatch, whole):
    facts = {"size": len(whole), "address_sha256": hashlib.sha256(whole).hexdigest()}
    monkeypatch.setitem(BACKBONES, "openai_256", replace(BACKBONES["openai_256"], **facts))
    return home / "weights"


def test_they_arrive_checked(server, home, whole):
    said = []
    path = fetch("openai_256", base_url=server.url, say=said.append)
    assert path == home / NAME and names(home) == [NAME]
    assert f"SHA-256 {hashlib.sha256(whole).hexdigest()[:16]}" in said[-1] and "MIT" in said[-1]
    assert torch.load(path, weights_only=True).keys() == tiny_unet().state_dict().keys()
    asked = len(server.asked)
    assert fetch("openai_256", base_url=server.url, say=said.append) == path and len(server.asked) == asked
    assert "already in" in said[-1]


def test_a_later_call_goes_on_too(server, home, whole):
    server.cut = [3000] + [0] * 3
    with pytest.raises(FetchError, match=f"(?s){PATH}.*{NAME}.*Run the same command again"):
        fetch("openai_256", base_url=server.url, say=quiet)
    assert not (home / NAME).exists()
    fetch("openai_256", base_url=server.url, say=quiet)
    assert server.asked[-1][1] == "bytes=3000-" and (home / NAME).read_bytes() == whole


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
        fetch("openai_256", base_url=server.url, force=True, say=quiet)
    assert names(home) == [NAME] and (home / NAME).read_bytes() == whole and not evidence.exists()


def test_any_flipped_bit_is_noticed(server, home, whole):
    draw = random.Random(0)
    for _ in range(60):
        place = draw.randrange(len(whole))
        flipped = bytes([whole[place] ^ (1 << draw.randrange(8))])
        server.files[PATH] = whole[:place] + flipped + whole[place + 1 :]
        with pytest.raises(WrongContentError, match="not the weights of openai_256"):
            fetch("openai_256", base_url=server.url, say=quiet)
    assert names(home) == []


def test_a_file_already_on_disk(home, whole, tmp_path):
    (tmp_path / "brought.pt").write_bytes(whole)
    path = fetch("openai_256", source=tmp_path / "brought.pt", say=quiet)
    assert path.read_bytes() == whole and (tmp_path / "brought.pt").exists()
    with pytest.raises(FetchError, match="already there; use force"):
        fetch("openai_256", source=tmp_path / "brought.pt", say=quiet)
    with pytest.raises(FetchError, match="no such file: .*absent.pt"):
        fetch("openai_256", source=tmp_path / "absent.pt", force=True)


def test_a_damaged_file_that_is_there_is_noticed(home, whole):
    home.mkdir()
    (home / NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WrongContentError, match="on disk.*truncated|on disk.*damaged"):
        fetch("openai_256", say=quiet)


def test_too_little_room_is_said_before_anything_is_asked(server, home, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(FetchError, match="0 MiB free, about .* MiB needed"):
        fetch("openai_256", base_url=server.url, say=quiet)
    assert not server.asked


@pytest.mark.parametrize("name", ["openai_256", "he_32", "hippocampus_small"])
def test_the_command_takes_them(monkeypatch, tmp_path, name):
    from typer.testing import CliRunner

    from textdiff import cli
    from textdiff.base.paths import weights_dir

    monkeypatch.setenv("TEXTDIFF_WEIGHTS", "elsewhere")
    monkeypatch.setattr("textdiff.data.fetch.fetch", lambda name, **_: f"{name} to {weights_dir()}")
    result = CliRunner().invoke(cli.app, ["fetch", name, "--root", str(tmp_path)])
    assert result.exit_code == 0 and f"{name} to {tmp_path}" in result.output.replace("\n", "")


# --- our own weights from the release ------------------------------------------------------------------

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 50}


@pytest.fixture
def release(server, monkeypatch):
    """A release on a local server, known by hash, of a model with the name of a real one."""
    hashes = [hashlib.sha256(body).hexdigest() for body in FILES.values()]
    known = replace(MODELS["abdomen_small"], config_sha256=hashes[0], sha256=hashes[1], size=13_000)
    monkeypatch.setitem(MODELS, "abdomen_small", known)
    server.files |= {f"/v9/abdomen_small.{file}": body for file, body in FILES.items()}
    monkeypatch.setenv("TEXTDIFF_RELEASE", f"{server.url}/v9/")
    return server


@pytest.mark.parametrize("bring", [fetch, fetch_release])
def test_a_model_comes_from_the_release_whole_and_is_asked_for_once(release, home, bring):
    folder = bring("abdomen_small", say=quiet)
    assert folder == home / "abdomen_small" and names(home) == ["abdomen_small"]
    assert {file: (folder / file).read_bytes() for file in names(folder)} == FILES
    assert bring("abdomen_small", say=quiet) == folder and len(release.asked) == 2


def test_a_broken_release_transfer_goes_on_and_nothing_half_is_in_place(release, home):
    release.cut = [2, 5000] + [0] * 3
    with pytest.raises(FetchError, match=r"abdomen_small\.model\.safetensors.*Run the same command again"):
        fetch_release("abdomen_small", say=quiet)
    assert names(home) == [".abdomen_small.partial"]
    release.asked.clear()
    fetch_release("abdomen_small", say=quiet)
    assert release.asked == [("/v9/abdomen_small.model.safetensors", "bytes=5000-")] and names(home) == [
        "abdomen_small"
    ]


def test_another_content_is_refused_and_an_older_folder_stays_until_forced(release, home):
    (home / "abdomen_small").mkdir(parents=True)
    for file in FILES:
        (home / "abdomen_small" / file).write_bytes(b"mine")
    with pytest.raises(WrongContentError, match=r"--force.*config\.json: sha256 is .*, expected "):
        fetch_release("abdomen_small", say=quiet)
    good = release.files["/v9/abdomen_small.config.json"]
    release.files["/v9/abdomen_small.config.json"] = b"<html>"
    with pytest.raises(WrongContentError, match=r"/v9/abdomen_small\.config\.json -> .*sha256"):
        fetch_release("abdomen_small", force=True, say=quiet)
    assert (home / "abdomen_small" / "config.json").read_bytes() == b"mine"
    release.files["/v9/abdomen_small.config.json"] = good
    fetch_release("abdomen_small", force=True, say=quiet)
    assert names(home) == ["abdomen_small"] and (home / "abdomen_small" / "config.json").read_bytes() == good


@pytest.mark.parametrize("name", ["phantoms_32", "openai_256", "brain_small"])
def test_what_no_release_has_is_refused(name):
    with pytest.raises(
        ValueError,
        match=f"no release has weights '{name}'; it has he_32, chest_32, chest_64, qata_small, monuseg_small, "
        "hippocampus_small",
    ):
        fetch_release(name)


@pytest.mark.parametrize(("urls", "known"), [(["Repository, https://git.example/a/b"], True), (["Issues, x"], False)])
def test_the_release_is_that_of_the_installed_version(monkeypatch, urls, known):
    package = Message()
    package["Version"] = "1.2.3"
    for url in urls:
        package["Project-URL"] = url
    monkeypatch.delenv("TEXTDIFF_RELEASE", raising=False)
    monkeypatch.setattr("importlib.metadata.metadata", lambda name: package)
    if known:
        assert release_url() == "https://git.example/a/b/releases/download/v1.2.3"
        return
    with pytest.raises(FetchError, match="set TEXTDIFF_RELEASE"):
        release_url()
