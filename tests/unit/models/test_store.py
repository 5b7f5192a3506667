"""Names and the weights behind them: known ones are found here before any hub is asked, and two weights are never one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_textdiff, tiny_unet

from textdiff import TextDiff, TextDiffSeg
from textdiff.base import paths
from textdiff.base.checkpoints import read_checkpoint, write_checkpoint
from textdiff.data import registry
from textdiff.models import store
from textdiff.models.store import decoder_blocks, find_model, load_backbone, weights_identity
from textdiff.models.text import TextEncoder


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Path:
    """An empty folder of weights, no hub and no release; the working directory is empty too."""

    def unreachable(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setenv("TEXTDIFF_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    monkeypatch.setattr("textdiff.data.fetch.fetch_release", unreachable, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


# --- saved models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.MODELS)
def test_known_models_load_without_a_network(machine, name):
    kind = {"TextDiff": TextDiff, "TextDiffSeg": TextDiffSeg}[registry.MODELS[name].kind]
    model = kind.from_pretrained(name)
    assert model.trained_on["dataset"] == registry.MODELS[name].dataset and model.trained_on["cases"]
    assert not model.training and len(model.class_names) >= 2


@pytest.mark.takes("Model files", "other weights under a known name", "refused")
def test_other_weights_under_a_known_name_are_refused(machine, monkeypatch):
    """A record would name the registry's weights, and another run would be given its result."""
    monkeypatch.setattr(paths, "shipped", lambda kind: machine / "not here")
    tiny_unet().save_pretrained(paths.weights_dir() / "chest_32", torch.float32)
    with pytest.raises(ValueError, match="is not 'chest_32' as the registry knows it"):
        load_backbone("chest_32")


def test_a_known_name_is_no_folder_of_that_name(machine):
    Path("hippocampus_small").mkdir()
    Path("hippocampus_small/config.json").write_text("{}")
    assert find_model("hippocampus_small", "TextDiffSeg") == paths.shipped("weights") / "hippocampus_small"


def test_a_known_name_that_is_not_here_comes_from_the_release(machine, monkeypatch):
    shipped = paths.shipped("weights") / "hippocampus_small"
    asked = []

    def fetch_release(name):
        asked.append(name)
        return Path(shutil.copytree(shipped, paths.weights_dir() / name))

    monkeypatch.setattr(paths, "shipped", lambda kind: machine / "not_here")
    monkeypatch.setattr("textdiff.data.fetch.fetch_release", fetch_release, raising=False)
    for _ in range(2):  # fetched, then found
        assert find_model("hippocampus_small", "TextDiffSeg") == machine / "weights" / "hippocampus_small"
    assert asked == ["hippocampus_small"]

    def broken(name):
        raise OSError("no route")

    monkeypatch.setattr("textdiff.data.fetch.fetch_release", broken)
    with pytest.raises(FileNotFoundError, match=r"no 'abdomen_small': looked in .* from the release \(no route\)"):
        find_model("abdomen_small", "TextDiffSeg")


@pytest.mark.takes("Model files", "weights that are NaN", "refused")
@pytest.mark.parametrize("part", ["", "unet"])
def test_weights_that_are_no_numbers_are_refused_with_tensor_and_file(machine, part):
    tiny_textdiff(None, fusion="none").save_pretrained(machine / "mine")
    weights = machine / "mine" / part / store.WEIGHTS
    state = read_checkpoint(weights)
    name = next(key for key, value in state.items() if value.is_floating_point())
    state[name].view(-1)[-1] = float("nan")
    write_checkpoint(weights, state)
    with pytest.raises(
        ValueError, match=rf"{re.escape(str(weights))} .*\n  with nan or infinity \(1\): {re.escape(name)}$"
    ):
        TextDiff.from_pretrained(machine / "mine")


def test_volume_models_and_backbones_refuse_them_too(machine):
    shutil.copytree(find_model("hippocampus_small", "TextDiffSeg"), machine / "mine")
    shutil.copytree(paths.assets_dir() / "phantoms_32", machine / "own")
    for folder, load in (("mine", TextDiffSeg.from_pretrained), ("own", load_backbone)):
        state = read_checkpoint(machine / folder / store.WEIGHTS)
        next(iter(state.values())).view(-1)[0] = float("inf")
        write_checkpoint(machine / folder / store.WEIGHTS, state)
        with pytest.raises(ValueError, match=rf"{folder}.model.safetensors .*\n  with nan or infinity \(1\)"):
            load(str(machine / folder))


@pytest.mark.takes("Model files", "a model of another kind or format", "refused")
def test_folders_and_names_in_the_folder_of_weights(machine):
    model = tiny_textdiff(None, fusion="none")
    model.save_pretrained(machine / "weights" / "mine")
    assert find_model("mine", "TextDiff") == find_model(machine / "weights" / "mine", "TextDiff")
    with pytest.raises(ValueError, match="holds a TextDiff of format 2; this reads a TextDiffSeg of format 2"):
        TextDiffSeg.from_pretrained("mine")
    about = machine / "weights" / "mine" / "config.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"format": 1}))
    with pytest.raises(ValueError, match="holds a TextDiff of format 1; this reads a TextDiff of format 2"):
        TextDiff.from_pretrained("mine")


def change(folder, key: str, *value: object) -> None:
    """Another value for "head.dim" in a saved model's config.json; without a value the key goes."""
    about = json.loads((folder / "config.json").read_text())
    *path, last = key.split(".")
    place = about
    for name in path:
        place = place[name]
    del place[last]
    place |= dict.fromkeys([last], *value) if value else {}
    (folder / "config.json").write_text(json.dumps(about))


KEYS = ["text", "head", "model", "trained_on", "features", "class_names", "text.padding", "text.max_length"]


@pytest.mark.takes("Model files", "a config.json that lacks something", "refused")
@pytest.mark.parametrize(
    "key", [*KEYS, "model.text_mask", "image.channel_order", "head.positions", "features.noise_seed"]
)
def test_a_description_that_lacks_something_is_named(machine, key):
    """What is left out would otherwise be a default, and the answers other than those of the model that was saved."""
    tiny_textdiff(TextEncoder.from_pretrained("tiny")).save_pretrained(machine / "mine")
    change(machine / "mine", key)
    with pytest.raises(ValueError, match=f"config.json does not describe a TextDiff: .*{key.split('.')[-1]}"):
        TextDiff.from_pretrained(machine / "mine")


@pytest.mark.takes("Model files", "a config.json with a value that cannot be", "refused")
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("text", "tiny", "does not describe a TextDiff"),
        ("head", None, "does not describe a TextDiff"),
        ("image.channel_order", "GBR", "channel_order='GBR': known are RGB, BGR"),
        ("image.image_size", "32", "image_size='32': a whole number"),
        ("model.num_classes", 1, "num_classes=1"),
    ],
)
def test_a_description_that_cannot_be_is_refused(machine, key, value, said):
    tiny_textdiff(TextEncoder.from_pretrained("tiny")).save_pretrained(machine / "mine")
    change(machine / "mine", key, value)
    with pytest.raises(ValueError, match=said):
        TextDiff.from_pretrained(machine / "mine")


# --- backbones -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["he_32", "chest_32", "chest_64", "phantoms_32"])
def test_known_backbones_load_without_a_network(machine, name, monkeypatch):
    monkeypatch.delenv("TEXTDIFF_WEIGHTS")
    unet = load_backbone(name)
    assert not unet.training and len(unet.output_blocks) == decoder_blocks(name)
    assert len(registry.BACKBONES[name].blocks) >= 1


def test_a_backbone_of_ones_own_is_a_folder_or_an_entry(machine, monkeypatch):
    tiny_unet().save_pretrained(machine / "weights" / "mine", torch.float32)
    entry = {"backbones": {"my_own": {"image_size": 16, "blocks": {"": "0,2"}, "folder": "mine"}}}
    (machine / "registry.json").write_text(json.dumps(entry))
    monkeypatch.setenv("TEXTDIFF_REGISTRY", str(machine / "registry.json"))
    for name in ("my_own", str(machine / "weights" / "mine")):
        assert torch.equal(load_backbone(name).out[2].weight, tiny_unet().out[2].weight)
        assert decoder_blocks(name) == 4


def test_random_weights_follow_from_the_seed_and_redrawn_ones_have_no_empty_layer(machine):
    before = torch.random.get_rng_state()
    first, same, other = (load_backbone("random:phantoms_32", seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    key = "input_blocks.0.0.weight"
    assert torch.equal(first[key], same[key]) and not torch.equal(first[key], other[key])
    empty = [name for name, value in first.items() if name.endswith("weight") and not value.any()]
    redrawn = load_backbone("redrawn:phantoms_32").state_dict()
    assert empty and all(redrawn[name].any() for name in empty)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openai_256", "textdiff fetch openai_256.*choose a small backbone: he_32"),
        ("no/such", "no backbone 'no/such': looked in no/such and .*weights/no/such. Known names: openai_256, he_32"),
    ],
)
def test_what_is_not_here_says_how_to_get_it(machine, name, message):
    with pytest.raises(FileNotFoundError, match=message):
        load_backbone(name)
    assert decoder_blocks(name) == (18 if name == "openai_256" else None)


def test_counting_decoder_blocks_starts_no_download(machine, monkeypatch):
    """They are asked for while a configuration is made: what is not on this machine is not known, and that is all."""
    for place in ("assets_dir", "shipped"):
        monkeypatch.setattr(paths, place, lambda *_: machine / "not_here")
    asked = []
    monkeypatch.setattr("textdiff.data.fetch.fetch_release", lambda *given, **_: asked.append(given))
    monkeypatch.setitem(registry.BACKBONES, "he_32", replace(registry.BACKBONES["he_32"], packaged=False))
    for name in ("he_32", "random:he_32", "redrawn:he_32"):
        assert decoder_blocks(name) is None
    assert not asked


# --- what a name stands for ------------------------------------------------------------------------------


def test_two_folders_of_one_name_are_two_weights(machine):
    folders = [machine / place / "mine" for place in ("a", "b", "c")]
    for folder, seed in zip(folders, (0, 1, 0), strict=True):
        tiny_unet(seed).save_pretrained(folder)
    one, other, again = (weights_identity(str(folder)) for folder in folders)
    assert one == again != other and len(one) == 16
    tiny_unet(2).save_pretrained(folders[0])
    assert weights_identity(str(folders[0])) not in (one, other)


def test_every_kind_of_name_has_an_identity_of_its_own(machine):
    text = TextEncoder.from_pretrained("tiny")
    tiny_textdiff(text).save_pretrained(machine / "weights" / "mine")
    names = [
        "he_32",
        "chest_32",
        "random:he_32",
        "redrawn:he_32",
        "random:openai_256",
        "openai_256",
        "hippocampus_small",
    ]
    found = [weights_identity(name) for name in [*names, "tiny", "mine"]]
    assert len(set(found)) == len(found) and all(len(one) == 16 and int(one, 16) >= 0 for one in found)
    assert weights_identity("he_32") == registry.BACKBONES["he_32"].sha256[:16]
    assert weights_identity("tiny") == weights_identity("")
    assert weights_identity("someone/bert") == "someone/bert"


@pytest.mark.parametrize("name", [*registry.MODELS, "he_32", "chest_32", "chest_64", "phantoms_32"])
def test_the_registry_states_the_hash_of_what_is_shipped(name):
    entry = registry.MODELS.get(name) or registry.BACKBONES[name]
    folder = store.find_model(name, "") if name in registry.MODELS else store._backbone_folder(name)
    for file, said in (("config.json", entry.config_sha256), (store.WEIGHTS, entry.sha256)):
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == said, file


def test_a_known_backbone_is_named_and_not_stored_again(machine, monkeypatch):
    from textdiff.models.features import DiffusionFeatures
    from textdiff.models.textdiff import HEADS, TextDiff

    text = TextEncoder.from_pretrained("tiny")
    features = DiffusionFeatures(load_backbone("phantoms_32", rounded=True), (0, 2), (50,), precision="bfloat16")
    model = TextDiff(features, text, head=HEADS["compact"]).eval()
    model.save_pretrained(machine / "named")
    assert not (machine / "named" / "unet").exists()
    again, pixels = TextDiff.from_pretrained(machine / "named"), torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(pixels, ["a lung"]), model(pixels, ["a lung"]))
        # A version with other weights of that name must not stand in
        about = json.loads((machine / "named" / "config.json").read_text())
        about["features"]["unet_sha256"] = "0" * 64
        (machine / "named" / "config.json").write_text(json.dumps(about))
        with pytest.raises(ValueError, match="needs the backbone 'phantoms_32' of SHA-256 0000000000000000"):
            TextDiff.from_pretrained(machine / "named")
        # Changed weights are no longer those of the name
        next(features.unet.parameters()).add_(0.5)
    model.save_pretrained(machine / "changed")
    assert (machine / "changed" / "unet" / "model.safetensors").is_file()
    with torch.no_grad():
        assert torch.allclose(
            TextDiff.from_pretrained(machine / "changed")(pixels, ["a lung"]), model(pixels, ["a lung"])
        )


def test_an_encoder_that_is_not_here_stands_for_the_files_that_are_known(machine):
    from textdiff.models.store import ENCODERS
    from textdiff.models.text import find_encoder

    (name, known), *_ = ENCODERS.items()
    assert weights_identity(name) == known
    shutil.copytree(find_encoder("tiny"), machine / "weights" / name)
    assert find_encoder(name) == machine / "weights" / name
    assert weights_identity(name) not in (name, known)


def test_another_encoder_in_the_place_of_a_models_own_is_refused(machine, monkeypatch):
    """And a folder is found again from elsewhere."""
    folder = machine / "here" / "enc"
    shutil.copytree(store.find_encoder("tiny"), folder)
    tiny_textdiff(TextEncoder.from_pretrained("enc")).save_pretrained(machine / "saved")
    monkeypatch.chdir(machine)
    assert TextDiff.from_pretrained("saved").text.name == str(folder)
    state = read_checkpoint(folder / "model.safetensors")
    write_checkpoint(folder / "model.safetensors", {name: value + 1 for name, value in state.items()})
    with pytest.raises(
        ValueError, match=r"text encoder '.*enc' has other weights here \(.*than the model was trained with"
    ):
        TextDiff.from_pretrained("saved")


def test_weights_without_a_description_are_said_to_be_a_networks(machine):
    write_checkpoint(machine / "here" / "unet" / "model.safetensors", {"weight": torch.zeros(2)})
    with pytest.raises(FileNotFoundError, match="weights alone, without config.json, as runs keep those of networks"):
        find_model("unet", "TextDiff")


def test_a_folder_below_the_home_folder_is_written_with_a_tilde(machine, monkeypatch):
    monkeypatch.setenv("HOME", str(machine))
    tiny_textdiff(TextEncoder.from_pretrained("tiny")).save_pretrained(machine / "mine")
    assert find_model("~/mine", "TextDiff") == machine / "mine"
    assert weights_identity("~/mine") == weights_identity(str(machine / "mine")) != "~/mine"
