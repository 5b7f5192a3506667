"""Configurations: names and types are checked, presets filled in, hashes mean the result."""

from __future__ import annotations

from dataclasses import fields

import pytest

from textdiff.base.parsing import numbers
from textdiff.experiments.config import (
    CONFIGS,
    DATASETS,
    PROTOCOLS,
    BlocksConfig,
    Config,
    DataConfig,
    FeaturesConfig,
    PredictConfig,
    PretrainConfig,
    PromptsConfig,
    SamplingConfig,
    TextDiffConfig,
    config_from_record,
)
from textdiff.experiments.records import portable

ALL = list(CONFIGS.values())


@pytest.mark.parametrize("cls", ALL)
def test_defaults_run_anywhere(cls):
    config = cls.from_params()
    assert config.mode == "demo" and config.dataset.endswith("_phantoms") and config.device == "auto"
    assert config.experiment and config.notebook


@pytest.mark.parametrize("cls", ALL)
def test_nothing_is_left_to_presets(cls):
    left = [name for name, value in cls.from_params().to_dict().items() if value == "auto" and name != "device"]
    assert not left


@pytest.mark.parametrize(
    ("name", "hint"), [("n_label", "n_labels"), ("datset", "dataset"), ("learning_rat", "learning_rate")]
)
def test_a_misspelt_name_is_refused_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match=rf"unknown parameter '{name}'; did you mean '{hint}'\? TextDiffConfig has: "):
        TextDiffConfig.from_params(**{name: 1})


def test_a_name_like_no_other_is_refused_with_the_list():
    with pytest.raises(ValueError, match=r"unknown parameter 'xyzzy' DataConfig has: mode, dataset, seed"):
        DataConfig.from_params(xyzzy=1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", "3", "seed='3' is str, but must be int"),
        ("seed", 3.0, "seed=3.0 is float, but must be int"),
        ("seed", True, "seed=True is bool, but must be int"),
        ("seed", None, "seed=None is NoneType, but must be int"),
        ("learning_rate", "0.1", "learning_rate='0.1' is str, but must be float"),
        ("learning_rate", True, "learning_rate=True is bool"),
        ("dataset", True, "dataset=True is bool, but must be str"),
        ("blocks", (1, 2), r"blocks=\(1, 2\) is tuple, but must be str"),
        ("blocks", ["1"], "is list, but must be str"),
    ],
)
def test_values_of_another_type_are_refused(name, value, message):
    with pytest.raises(TypeError, match=message):
        TextDiffConfig.from_params(**{name: value})


def test_what_asks_a_model_of_volumes_takes_the_one_that_ships():
    assert SamplingConfig.from_params().model_folder == PromptsConfig.from_params().model_folder == "abdomen_small"
    assert SamplingConfig.from_params(mode="full", dataset="hippocampus").model_folder == "hippocampus_small"
    assert PromptsConfig.from_params(mode="full", dataset="hippocampus", model_folder="mine").model_folder == "mine"
    assert PromptsConfig.from_params(mode="full", dataset="liver_tumour").model_folder == ""
    with pytest.raises(ValueError, match="steps='5,0', sample_steps=5: at least one denoising step"):
        SamplingConfig.from_params(steps="5,0")


def test_what_papermill_guesses_is_understood():
    config = TextDiffConfig.from_params(learning_rate=1, blocks=6, steps=50)
    assert config.learning_rate == 1.0 and isinstance(config.learning_rate, float)
    assert config.blocks == "6" and config.steps == "50"


@pytest.mark.parametrize(
    ("cls", "name", "value", "allowed"),
    [
        (DataConfig, "mode", "fast", "demo, full"),
        (DataConfig, "dataset", "cifar", "monuseg, qata, nuclei_phantoms, chest_phantoms"),
        (PretrainConfig, "precision", "float16", "float32, bfloat16"),
        *[(TextDiffConfig, name, "wrong", ", ".join(allowed)) for name, allowed in TextDiffConfig.choices.items()],
    ],
)
def test_choices(cls, name, value, allowed):
    with pytest.raises(ValueError, match=f"{name}='{value}': choose one of {allowed}"):
        cls.from_params(**{name: value})


def test_choices_name_real_fields_and_hold_the_defaults():
    for cls in ALL:
        known = {field.name: field.default for field in fields(cls)}
        assert all(known[name] in allowed for name, allowed in cls.choices.items())


def test_devices():
    for device in ("auto", "cpu", "cuda", "cuda:1", "mps"):
        assert DataConfig.from_params(device=device).device == device
    with pytest.raises(ValueError, match="device='gpu': 'auto', 'cpu', 'cuda'"):
        DataConfig.from_params(device="gpu")


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
    assert (config.blocks, config.steps, config.noise_seed) == (blocks, "50,150,250", 40)
    assert (config.n_labels, config.batch_size, config.iterations) == (n_labels, 1, iterations)
    assert (config.learning_rate, config.caption_tokens) == (1e-4, 10)
    assert config.text_encoder == "emilyalsentzer/Bio_ClinicalBERT"


def test_small_backbones_bring_their_blocks_and_size():
    config = TextDiffConfig.from_params(mode="full", dataset="monuseg", backbone="he_32")
    assert (config.head, config.blocks, config.image_size) == ("decoder", "1,4,7,10", 256)
    assert (config.augmentation, config.views) == ("affine", 8)
    same = TextDiffConfig.from_params(mode="full", dataset="monuseg", backbone="random:he_32")
    assert same.blocks == config.blocks and same.hash != config.hash


def test_a_folder_as_backbone_needs_blocks():
    with pytest.raises(ValueError, match="backbone='my/net' is not a known name: say which blocks to tap"):
        TextDiffConfig.from_params(backbone="my/net")
    assert TextDiffConfig.from_params(backbone="my/net", blocks="1,2").blocks == "1,2"


def test_chest_films_are_flipped_only():
    assert PretrainConfig.from_params(dataset="chest_phantoms").symmetries == "0,4"
    assert PretrainConfig.from_params(dataset="nuclei_phantoms").symmetries == "0,1,2,3,4,5,6,7"


def test_the_hash_means_the_result():
    base = TextDiffConfig.from_params()
    same = [TextDiffConfig.from_params(device="cpu"), TextDiffConfig.from_params(out_dir="elsewhere")]
    assert {base.hash} == {config.hash for config in same} and base.run_id == same[0].run_id
    others = [TextDiffConfig.from_params(**p) for p in ({"seed": 1}, {"learning_rate": 3e-3}, {"blocks": "0"})]
    assert len({base.hash, *(config.hash for config in others)}) == 4
    assert len(base.hash) == 8 and base.run_id.endswith(f"-{base.hash}") and "nuclei_phantoms-textdiff-n" in base.run_id


def test_a_preset_and_its_value_spelt_out_are_the_same_run():
    config = TextDiffConfig.from_params()
    assert TextDiffConfig.from_params(iterations=config.iterations, positions="on").hash == config.hash


def test_the_folder_in_which_a_model_lies_is_not_part_of_the_result():
    a, b = (PredictConfig.from_params(model_folder=f"{root}/model") for root in ("/home/a", "/data"))
    assert a.hash == b.hash != PredictConfig.from_params(model_folder="/data/other").hash


def test_experiments_of_equal_values_have_different_hashes():
    class Other(DataConfig):
        experiment = "other"

    assert Other.from_params().hash != DataConfig.from_params().hash


@pytest.mark.parametrize("cls", ALL)
def test_records_give_the_configuration_back(cls):
    config = cls.from_params(seed=3, dataset=cls.choices.get("dataset", DATASETS)[-1])
    again = config_from_record(portable(config.to_dict()))
    assert type(again) is cls and again.run_id == config.run_id


def test_records_of_another_version_are_refused():
    record = portable(TextDiffConfig.from_params().to_dict())
    with_more, with_less = {**record, "dropout": 0.1}, {k: v for k, v in record.items() if k != "schedule"}
    for stale in (with_more, with_less, {}):
        with pytest.raises(ValueError, match="no configuration class here"):
            config_from_record(stale)
    with pytest.raises(ValueError, match="seed='one' is str"):
        config_from_record({**record, "seed": "one"})
    with pytest.raises(ValueError, match="protocol='older'"):
        config_from_record({**record, "protocol": "older"})
    changed = config_from_record({**record, "iterations": record["iterations"] + 1})
    assert changed.run_id != TextDiffConfig.from_params().run_id


def test_no_two_classes_have_the_same_fields():
    assert len({frozenset(field.name for field in fields(cls)) for cls in ALL}) == len(ALL)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(AttributeError):
        DataConfig.from_params().seed = 1
    assert isinstance(FeaturesConfig.from_params(), Config)


def test_numbers():
    assert numbers("6,8,12") == (6, 8, 12) and numbers(" 6, ") == (6,) and numbers("") == ()
    assert numbers("0.5,1", float) == (0.5, 1.0) and numbers(7) == (7,)
    with pytest.raises(ValueError, match="'6;8' is not a comma-separated list of int numbers"):
        numbers("6;8")


def test_a_backbone_in_a_folder_does_not_make_folders_of_records(tmp_path):
    config = BlocksConfig.from_params(backbone=str(tmp_path / "mine"), blocks="1", sets="1@50")
    assert config.run_id.startswith("nuclei_phantoms-mine-n5") and "/" not in config.run_id
    elsewhere = BlocksConfig.from_params(backbone="/other/mine", blocks="1", sets="1@50")
    assert elsewhere.run_id == config.run_id
