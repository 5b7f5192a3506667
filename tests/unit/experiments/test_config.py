"""Configurations: names, types and ranges are checked, presets filled in, hashes mean the result."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_models import tiny_unet

from textdiff.base.parsing import numbers
from textdiff.data import registry
from textdiff.experiments.catalogue import BY_EXPERIMENT, CONFIGS, config_from_record
from textdiff.experiments.config import AT_RUN_TIME, parameters_of
from textdiff.experiments.grids import grid
from textdiff.experiments.images import PROTOCOLS, TextDiffConfig
from textdiff.experiments.pages import (
    BlocksConfig,
    DataConfig,
    FeaturesConfig,
    LabelLatentConfig,
    PredictConfig,
    PromptsConfig,
    SamplingConfig,
    VolumePredictConfig,
)
from textdiff.experiments.places import kept_run
from textdiff.experiments.pretraining import PretrainConfig
from textdiff.experiments.volumes import TextDiffSegConfig
from textdiff.models.store import weights_identity

every_class = pytest.mark.parametrize("cls", CONFIGS.values(), ids=list(CONFIGS))
nan, infinity = float("nan"), float("inf")


@every_class
def test_defaults_run_anywhere_and_nothing_is_left_to_presets(cls):
    config = cls.from_params()
    assert config.mode == "demo" and config.entry.synthetic and config.experiment and config.notebook
    assert [name for name, value in config.to_dict().items() if value == "auto"] == list(AT_RUN_TIME)


@every_class
def test_records_give_the_configuration_back(cls):
    config = cls.from_params(seed=3)
    again = config_from_record(json.loads(json.dumps(config.to_record())))
    assert type(again) is cls and again.run_id == config.run_id


def test_every_experiment_has_a_class_of_its_own():
    assert len(BY_EXPERIMENT) == len(CONFIGS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_label": 1}, r"unknown parameter 'n_label' \(did you mean 'n_labels'\?\); TextDiffConfig has: "),
        ({"datset": 1}, r"unknown parameter 'datset' \(did you mean 'dataset'\?\)"),
        ({"xyzzy": 1}, "unknown parameter 'xyzzy'; TextDiffConfig has: mode, dataset, seed"),
    ],
)
def test_names_that_are_not_known(params, message):
    with pytest.raises(ValueError, match=message):
        TextDiffConfig.from_params(**params)


@pytest.mark.parametrize(
    ("cls", "old", "new"),
    [
        (TextDiffConfig, "steps", "noise_steps"),
        (TextDiffConfig, "schedule", "lr_schedule"),
        (TextDiffSegConfig, "steps", "sampling_steps"),
        (PretrainConfig, "steps", "iterations"),
        (PretrainConfig, "sampler_steps", "sampling_steps"),
        (FeaturesConfig, "steps", "noise_steps"),
        (BlocksConfig, "steps", "noise_steps"),
        (SamplingConfig, "sample_steps", "uncertainty_steps"),
        (LabelLatentConfig, "timesteps", "noise_steps"),
        (VolumePredictConfig, "steps", "sampling_steps"),
    ],
)
def test_old_names_say_the_new_one(cls, old, new):
    with pytest.raises(ValueError, match=f"parameter '{old}' is called '{new}' now"):
        cls.from_params(**{old: 1})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", "3", "seed='3' is str, but must be int"),
        ("seed", 3.0, "seed=3.0 is float, but must be int"),
        ("seed", True, "seed=True is bool, but must be int"),
        ("seed", None, "seed=None is NoneType, but must be int"),
        ("n_labels", "many", "n_labels='many' is str, but must be int or 'auto' or 'all'"),
        ("learning_rate", "0.1", "learning_rate='0.1' is str, but must be float or 'auto'"),
        ("dataset", True, "dataset=True is bool, but must be str"),
        ("blocks", (1, 2), r"blocks=\(1, 2\) is tuple, but must be str"),
    ],
)
def test_values_of_another_type_are_refused(name, value, message):
    with pytest.raises(TypeError, match=message):
        TextDiffConfig.from_params(**{name: value})


@pytest.mark.parametrize(
    ("cls", "name", "value", "message"),
    [
        *((TextDiffConfig, "learning_rate", value, "above 0") for value in (0.0, -1.0, nan, infinity)),
        *((TextDiffConfig, "dice_weight", value, "at least 0") for value in (-1.0, nan)),
        *((TextDiffConfig, name, -5, "at least 1") for name in ("iterations", "batch_size", "n_labels", "max_test")),
        (TextDiffConfig, "max_test", 0, "at least 1"),
        (TextDiffConfig, "seed", -1, "at least 0"),
        (TextDiffConfig, "image_size", -8, "at least 8"),
        (TextDiffConfig, "image_size", 98, "image_size=98: phantoms_32 takes multiples of 4.*; the nearest is 96"),
        *((cls, "image_size", 98, "takes multiples of 4") for cls in (FeaturesConfig, BlocksConfig)),
        *((cls, "blocks", "99", "has decoder blocks 0 to") for cls in (FeaturesConfig, BlocksConfig)),
        *(
            (cls, "backbone", "/nope", "neither a folder with config.json here")
            for cls in (FeaturesConfig, BlocksConfig)
        ),
        (FeaturesConfig, "backbone", "blind:phantoms_32", "nothing to see on maps of zeros"),
        *(
            (BlocksConfig, "backbone", f"{how}:phantoms_32", "give 'phantoms_32'; with it, its two controls")
            for how in ("random", "redrawn", "blind")
        ),
        *(
            (cls, "noise_steps", "none", "noise_steps: 'none' is not a comma-separated list")
            for cls in (FeaturesConfig, BlocksConfig, LabelLatentConfig)
        ),
        (BlocksConfig, "sets", "1,4", "'1,4' is no set of blocks and steps"),
        (BlocksConfig, "sets", "0@50;0,99@50", "block=99: at least 0, at most "),
        (BlocksConfig, "sets", "-1@50", "block=-1: at least 0"),
        (BlocksConfig, "sets", "0@1000", "step=1000: at least 0, at most 999"),
        (PretrainConfig, "crop", 50, "crop=50: this network takes multiples of 4; the nearest is 48"),
        (PretrainConfig, "crop", 96, "are only 64 pixels"),
        (PretrainConfig, "model_channels", 33, "multiple of 32"),
        (TextDiffConfig, "noise_steps", "5000", "at most 999"),
        (TextDiffConfig, "blocks", "99", "phantoms_32 has decoder blocks 0 to"),
        (TextDiffConfig, "noise_steps", "50,50", "each number once"),
        (TextDiffConfig, "text_encoder", "", "give a name"),
        *((TextDiffConfig, name, "none", "is for networks trained from scratch") for name in ("head", "blocks")),
        (TextDiffConfig, "blocks", "one", "is not a comma-separated list"),
        (TextDiffConfig, "ema_decay", 1.5, "at most"),
        (TextDiffConfig, "views", -1, "at least 0"),
        *((TextDiffSegConfig, "sampling_steps", value, "at least 1, at most 1000") for value in (0, 2000)),
        *((TextDiffSegConfig, "samples", value, "at least 1") for value in (0, -2)),
        (TextDiffSegConfig, "ema_decay", 1.5, "at most"),
        (TextDiffSegConfig, "weight_decay", -1.0, "at least 0"),
        (TextDiffSegConfig, "denoise_weight", nan, "at least 0"),
        (TextDiffSegConfig, "named_alone", 1.5, "at most 1"),
        (TextDiffSegConfig, "structures", "nope", "structures='nope': some of liver"),
        (TextDiffSegConfig, "patch", "96,96", "give 3 numbers"),
        (TextDiffSegConfig, "patch", "96,96,9", "multiples of 8"),
        (TextDiffSegConfig, "latent_channels", 0, "at least 1"),
        (SamplingConfig, "sampling_steps", "5,0", "at least 1"),
        (VolumePredictConfig, "volume", "/nope.nii.gz", "there is no such file"),
        (PredictConfig, "image", "/nope.png", "there is no such file"),
        (DataConfig, "mode", "fast", "choose one of demo, full"),
        (DataConfig, "dataset", "cifar", "choose one of monuseg, qata, nuclei_phantoms, chest_phantoms"),
        (DataConfig, "device", "gpu", "device='gpu'"),
    ],
)
def test_values_that_are_not_possible_are_refused_before_anything_starts(cls, name, value, message):
    with pytest.raises(ValueError, match=message):
        cls.from_params(**{name: value})


def test_a_network_from_scratch_needs_pictures_of_some_size():
    with pytest.raises(ValueError, match="image_size=16: unet takes 32 pixels or more"):
        TextDiffConfig.from_params(model="unet", image_size=16)


@pytest.mark.parametrize(
    ("cls", "params", "said"),
    [
        (DataConfig, {"dataset": "monuseg"}, "data set 'monuseg' not found"),
        (TextDiffConfig, {"dataset": "monuseg"}, "data set 'monuseg' not found"),
        (TextDiffSegConfig, {"dataset": "hippocampus"}, "data set 'hippocampus' not found"),
        (SamplingConfig, {"dataset": "hippocampus"}, "data set 'hippocampus' not found"),
        (PredictConfig, {"dataset": "qata", "model_folder": "chest_phantoms_small"}, "data set 'qata' not found"),
        (PredictConfig, {"dataset": "nuclei_phantoms"}, "no model ships for 'nuclei_phantoms'"),
        (PredictConfig, {"model_folder": "/nope"}, "'/nope' is not a known TextDiff"),
        (TextDiffSegConfig, {"start_from": "/nope"}, "'/nope' is not a known TextDiffSeg"),
        (PretrainConfig, {"start_from": "/nope"}, "no backbone '/nope'"),
        (TextDiffConfig, {"text_encoder": "/nope"}, "no text encoder folder at /nope"),
        (TextDiffSegConfig, {"text_encoder": "/nope"}, "no text encoder folder at /nope"),
        (TextDiffConfig, {"backbone": "openai_256"}, "OpenAI's 256x256 unconditional checkpoint .* is not at"),
    ],
)
def test_what_a_run_reads_is_looked_for_before_it_starts(monkeypatch, tmp_path, cls, params, said):
    for name in ("TEXTDIFF_DATA", "TEXTDIFF_WEIGHTS", "TEXTDIFF_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    config = cls.from_params(**params)
    with pytest.raises((FileNotFoundError, ValueError), match=said):
        config.check_inputs()


@pytest.mark.parametrize(
    ("cls", "field", "said"),
    [
        (PredictConfig, "model_folder", "no TextDiff in .*config.json is missing"),
        (SamplingConfig, "model_folder", "no TextDiffSeg in .*config.json is missing"),
        (TextDiffSegConfig, "start_from", "no TextDiffSeg in .*config.json is missing"),
        (PretrainConfig, "start_from", "no backbone"),
    ],
)
def test_a_path_is_no_id_of_a_run(monkeypatch, tmp_path, cls, field, said):
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    for path in (str(tmp_path), ".", ".."):
        with pytest.raises(FileNotFoundError, match=said):
            cls.from_params(**{field: path}).check_inputs()


def test_a_run_of_this_machine_is_only_named_where_its_weights_are_read(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path))
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    assert kept_run("mine") is None, "nothing was kept"
    (folder / "model.safetensors").write_bytes(b"weights")
    assert kept_run("mine") == folder
    config = TextDiffSegConfig.from_params(start_from="mine")
    config.check_inputs()
    assert config.start_from_weights == weights_identity(str(folder))
    with pytest.raises(FileNotFoundError, match="no backbone 'mine'"):
        PretrainConfig.from_params(start_from="mine").check_inputs()


@every_class
def test_what_a_demo_reads_is_there(cls):
    cls.from_params().check_inputs()


def test_a_device_that_is_not_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device='cuda', but torch sees no CUDA device here"):
        DataConfig.from_params(device="cuda")
    assert config_from_record({**DataConfig.from_params().to_record(), "device": "cuda"}).device == "cuda"


@every_class
def test_each_choice_is_one_of_those_that_stand_in_the_annotation(cls):
    for name, parameter in parameters_of(cls).items():
        if parameter.choices:
            assert parameter.default in (*parameter.choices, "auto")
            with pytest.raises(ValueError, match=f"{name}='wrong': choose one of {', '.join(parameter.choices)}"):
                cls.from_params(**{name: "wrong"})


def test_not_set_is_a_word_and_zero_is_zero():
    assert TextDiffConfig.from_params(mode="full", dataset="monuseg", backbone="he_32").views == 8
    config = TextDiffConfig.from_params(mode="full", dataset="monuseg", backbone="he_32", views=0, dice_weight=0)
    assert (config.views, config.dice_weight) == (0, 0.0)
    assert TextDiffSegConfig.from_params(denoise_weight=0, named_alone=0).denoise_weight == 0.0
    assert TextDiffConfig.from_params(max_test="all").max_test == "all"


def test_what_asks_a_model_of_volumes_takes_the_one_that_ships():
    assert SamplingConfig.from_params().model_folder == PromptsConfig.from_params().model_folder == "abdomen_small"
    assert SamplingConfig.from_params(mode="full", dataset="hippocampus").model_folder == "hippocampus_small"
    assert PromptsConfig.from_params(mode="full", dataset="liver_tumour").model_folder == ""


def test_what_papermill_guesses_is_understood():
    config = TextDiffConfig.from_params(learning_rate=1, blocks=4, noise_steps=50)
    assert config.learning_rate == 1.0 and isinstance(config.learning_rate, float)
    assert (config.blocks, config.noise_steps) == ("4", "50")


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_a_protocol_sets_every_switch_and_each_can_be_overruled(protocol):
    values = TextDiffConfig.from_params(protocol=protocol, dataset="monuseg", mode="full").to_dict()
    assert {name: values[name] for name in PROTOCOLS[protocol]} == PROTOCOLS[protocol]
    other = PROTOCOLS["corrected" if protocol == "official" else "official"]
    for name, value in other.items():
        changed = TextDiffConfig.from_params(protocol=protocol, dataset="monuseg", mode="full", **{name: value})
        assert {k: v for k, v in changed.to_dict().items() if values[k] != v} == {name: value}


@pytest.mark.parametrize(
    ("dataset", "blocks", "n_labels", "iterations"),
    [("monuseg", "6,8,12,16", 5, 250), ("qata", "4,6,8,12", 150, 7500)],
)
def test_full_mode_on_real_data_is_the_papers_setting(dataset, blocks, n_labels, iterations):
    config = TextDiffConfig.from_params(mode="full", dataset=dataset, protocol="official")
    assert (config.backbone, config.head, config.image_size) == ("openai_256", "official", 256)
    assert (config.blocks, config.noise_steps, config.noise_seed) == (blocks, "50,150,250", 40)
    assert (config.n_labels, config.batch_size, config.iterations) == (n_labels, 1, iterations)
    assert (config.learning_rate, config.caption_tokens) == (1e-4, 10)
    assert config.text_encoder == "emilyalsentzer/Bio_ClinicalBERT"


def test_small_backbones_bring_their_blocks_and_size():
    config = TextDiffConfig.from_params(mode="full", dataset="monuseg", backbone="he_32")
    assert (config.head, config.blocks, config.image_size) == ("decoder", "1,4,7,10", 256)
    assert (config.augmentation, config.views) == ("affine", 8)
    same = TextDiffConfig.from_params(mode="full", dataset="monuseg", backbone="random:he_32")
    assert same.blocks == config.blocks and same.hash != config.hash


def test_a_network_from_scratch_owes_nothing_to_a_backbone():
    one, other = (TextDiffConfig.from_params(model="unet", backbone=name) for name in ("phantoms_32", "auto"))
    assert one.run_id == other.run_id and one.backbone == one.head == one.text_encoder == "none"
    assert TextDiffConfig.from_params(model="text_unet").text_encoder == "tiny"
    one, other = (TextDiffSegConfig.from_params(model="segresnet", latent_channels=n) for n in (4, 16))
    assert one.run_id == other.run_id


def saved_unet(folder, seed: int) -> str:
    tiny_unet(seed).save_pretrained(folder, torch.float32)
    return str(folder)


def test_two_backbones_in_folders_of_one_name_are_two_runs(tmp_path, monkeypatch):
    """The id holds the weights, not the folder: the second was once given the record of the first."""
    a, b, c = (saved_unet(tmp_path / place / "mine", seed) for place, seed in (("a", 0), ("b", 1), ("c", 0)))
    one, two, three = (TextDiffConfig.from_params(backbone=folder, blocks="0,2") for folder in (a, b, c))
    assert one.run_id != two.run_id and one.run_id == three.run_id
    assert one.backbone_weights != two.backbone_weights
    monkeypatch.chdir(tmp_path)
    assert TextDiffConfig.from_params(backbone="a/mine", blocks="0,2").run_id == one.run_id


def test_weights_to_go_on_from_are_part_of_the_run(tmp_path):
    a, b = (saved_unet(tmp_path / place / "mine", seed) for place, seed in (("a", 0), ("b", 1)))
    one, two = (PretrainConfig.from_params(start_from=folder) for folder in (a, b))
    assert one.run_id != two.run_id != PretrainConfig.from_params().run_id


def test_a_folder_as_backbone_needs_blocks(tmp_path):
    folder = saved_unet(tmp_path / "net", 0)
    with pytest.raises(ValueError, match="is not a known name: say which blocks to tap"):
        TextDiffConfig.from_params(backbone=folder)
    with pytest.raises(ValueError, match=r"did you mean 'chest_64'\?\): say which blocks"):
        TextDiffConfig.from_params(backbone="random:chest64")
    with pytest.raises(ValueError, match="has decoder blocks 0 to 3"):
        TextDiffConfig.from_params(backbone=folder, blocks="9")
    with pytest.raises(ValueError, match="neither a folder with config.json here, nor one of openai_256"):
        TextDiffConfig.from_params(backbone="nosuch", blocks="1")
    config = BlocksConfig.from_params(backbone=folder, blocks="1", sets="1@50")
    assert config.run_id.startswith("nuclei_phantoms-net-n5") and "/" not in config.run_id


def test_chest_films_are_flipped_only():
    assert PretrainConfig.from_params(dataset="chest_phantoms").symmetries == "0,4"
    assert PretrainConfig.from_params(dataset="nuclei_phantoms").symmetries == "0,1,2,3,4,5,6,7"


def test_the_hash_means_the_result():
    base = TextDiffConfig.from_params()
    same = [TextDiffConfig.from_params(**p) for p in ({"device": "cpu"}, {"out_dir": "elsewhere"}, {"workers": 2})]
    assert {base.run_id} == {config.run_id for config in same}
    others = [TextDiffConfig.from_params(**p) for p in ({"seed": 1}, {"learning_rate": 3e-3}, {"blocks": "0"})]
    assert len({base.hash, *(config.hash for config in others)}) == 4
    assert len(base.hash) == 8 and base.run_id.endswith(f"-{base.hash}") and "chest_phantoms-textdiff-n" in base.run_id
    assert TextDiffConfig.from_params(iterations=base.iterations, positions="on").hash == base.hash


def test_records_of_another_version_are_refused():
    record = TextDiffConfig.from_params().to_record()
    with pytest.raises(ValueError, match="unknown parameter 'dropout'"):
        config_from_record({**record, "dropout": 0.1})
    with pytest.raises(ValueError, match="the record lacks lr_schedule: another version made it"):
        config_from_record({k: v for k, v in record.items() if k != "lr_schedule"})
    with pytest.raises(ValueError, match="experiment=None: there are data, pretraining"):
        config_from_record({})
    with pytest.raises(ValueError, match="seed='one' is str"):
        config_from_record({**record, "seed": "one"})
    with pytest.raises(ValueError, match="protocol='older'"):
        config_from_record({**record, "protocol": "older"})


def test_a_configuration_cannot_be_changed():
    with pytest.raises(AttributeError):
        DataConfig.from_params().seed = 1


def test_own_data_sets_are_choices_too(tmp_path, monkeypatch):
    own_set(monkeypatch, tmp_path)
    assert "mine" in registry.names("images") and TextDiffConfig.from_params(dataset="mine").blocks == "0,2,4"


OWN = {"kind": "images", "layout": "lvit", "class_names": ["background", "lesion"], "licence": "mine"}


def own_set(monkeypatch, tmp_path, **facts) -> None:
    (tmp_path / "registry.json").write_text(json.dumps({"datasets": {"mine": OWN | facts}}))
    monkeypatch.setenv("TEXTDIFF_REGISTRY", str(tmp_path / "registry.json"))


def test_what_an_own_data_set_changes_takes_effect(tmp_path, monkeypatch):
    full = {"text_encoder": "tiny", "backbone": "chest_32", "blocks": "1,4", "noise_steps": "50", "n_labels": 3}
    full |= {"head": "wide", "views": 2, "iterations": 7, "batch_size": 3, "image_size": 96, "max_val": 4}
    own_set(monkeypatch, tmp_path, runs={"full": full})
    found = TextDiffConfig.resolved(dataset="mine", mode="full").to_dict()
    assert {name: found[name] for name in full} == full
    told = TextDiffConfig.resolved(dataset="mine", mode="full", n_labels=9, iterations=8)
    assert (told.n_labels, told.iterations) == (9, 8), "what a run says itself goes first"
    other = TextDiffConfig.resolved(dataset="mine", mode="full", backbone="chest_64")
    assert (other.blocks, other.noise_steps) != ("1,4", "50"), "they go with the backbone"
    assert TextDiffConfig.resolved(dataset="mine", mode="full", model="tuned_unet").backbone.startswith("timm:")


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ({"iteratons": 5}, r"data set 'mine', runs, 'full': unknown parameter 'iteratons' \(did you mean 'iterations'"),
        ({"iterations": "many"}, "runs, 'full': iterations='many' is str"),
        ({"iterations": 2.5}, "runs, 'full': iterations=2.5 is float"),
        ({"iterations": 0}, "runs, 'full': iterations=0: at least 1"),
        (
            {"weight_decay": 0.1},
            "weight_decay is 0.0 in every run that does not say otherwise; under 'grid' it can be set",
        ),
    ],
)
def test_what_an_own_data_set_cannot_change_is_said(tmp_path, monkeypatch, runs, said):
    own_set(monkeypatch, tmp_path, runs={"full": runs})
    with pytest.raises(ValueError, match=said):
        TextDiffConfig.resolved(dataset="mine", mode="full")
    assert TextDiffConfig.resolved(dataset="mine", mode="demo").dataset == "mine"


def test_the_authors_rule_for_masks_is_of_one_class(tmp_path, monkeypatch):
    own_set(monkeypatch, tmp_path, class_names=["background", "gland", "nucleus"])
    with pytest.raises(ValueError, match=r"mask_rule='dilated' \(protocol='official'\): .*mine has 2"):
        TextDiffConfig.resolved(dataset="mine", protocol="official")
    labels = [row.label for row in grid("audit", "mine").rows]
    assert "chosen on the test images" in labels and not {"dilated masks", "official protocol"} & set(labels)
    own_set(monkeypatch, tmp_path, n_labels="all")
    labels = [row.label for row in grid("audit", "mine").rows]
    assert "dilated masks" in labels and "the authors' head and training" not in labels, (
        "of how many epochs is not known"
    )


def test_numbers():
    assert numbers("6,8,12") == (6, 8, 12) and numbers(" 6, ") == (6,) and numbers("") == ()
    assert numbers("0.5,1", float) == (0.5, 1.0) and numbers(7) == (7,)
    with pytest.raises(ValueError, match="'6;8' is not a comma-separated list of int numbers"):
        numbers("6;8")


def test_fields_that_came_later_enter_the_id_only_when_they_say_something():
    plain = TextDiffConfig.resolved(dataset="chest_phantoms")
    old = {name: value for name, value in plain.to_record().items() if name not in TextDiffConfig.added}
    assert config_from_record(old).run_id == plain.run_id
    for change in ({"mirrored": "on"}, {"channel_dropout": 0.2}):
        other = TextDiffConfig.resolved(dataset="chest_phantoms", **change)
        assert other.run_id != plain.run_id and config_from_record(other.to_record()).run_id == other.run_id


def test_what_does_not_go_with_mirrors_and_dropout_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="channel_dropout=0.2: unet has no frozen features"):
        TextDiffConfig.resolved(dataset="chest_phantoms", model="unet", channel_dropout=0.2)
    own_set(monkeypatch, tmp_path, class_names=["background", "left lung", "right lung"])
    with pytest.raises(ValueError, match="mirrored='on': .*'left lung'"):
        TextDiffConfig.resolved(dataset="mine", mirrored="on", text_encoder="tiny", n_labels=5)
