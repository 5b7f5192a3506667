"""From a configuration to a result: backbones are found or their absence explained, and every model trains."""

from __future__ import annotations

import pytest
import torch
from tiny_models import ARCHITECTURE, cases, tiny_unet

from textdiff.base.precision import resolve_device
from textdiff.experiments import images as experiments
from textdiff.experiments.config import BACKBONES, SCRATCH, PretrainConfig, TableConfig, TextDiffConfig
from textdiff.experiments.images import (
    build_model,
    build_text,
    load_backbone,
    load_data,
    new_backbone,
    train_model,
    unlabelled_images,
)

CLASSES = ("background", "nucleus")


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TEXTDIFF_WEIGHTS", str(tmp_path / "weights"))


def small(**changes: object) -> TextDiffConfig:
    defaults = dict(
        image_size=16, blocks="0,1", steps="50", iterations=4, batch_size=2, validate_every=2, max_val=1, max_test=2
    )
    return TextDiffConfig.from_params(**{**defaults, "device": "cpu", "precision": "float32", **changes})


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items())


# --- devices and backbones ------------------------------------------------------------------------------


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == resolve_device("cpu").type == "cpu"
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=f"device='{name}', but torch sees no CUDA device here; use device='cpu'"):
            resolve_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"


def test_the_shipped_backbone_is_there_and_frozen_to_one_answer():
    a, b = load_backbone("phantoms_32"), load_backbone("phantoms_32")
    assert not a.training and equal(a, b)


def test_random_weights_of_a_known_architecture_follow_the_seed_alone():
    before = torch.random.get_rng_state()
    a, b, other = (load_backbone("random:phantoms_32", seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert a.config == load_backbone("phantoms_32").config and not a.training
    assert equal(a, b) and not equal(a, other) and not equal(a, load_backbone("phantoms_32"))


def test_redrawn_weights_have_no_branch_that_adds_nothing():
    asleep, awake = load_backbone("random:phantoms_32", 1), load_backbone("redrawn:phantoms_32", 1)
    assert not asleep.output_blocks[0][0].out_layers[-1].weight.any()
    silent = [name for name, value in awake.named_parameters() if name.endswith("weight") and not value.any()]
    assert silent == []
    assert torch.equal(awake.input_blocks[0][0].weight, asleep.input_blocks[0][0].weight)


def test_a_backbone_from_a_folder(tmp_path):
    unet = tiny_unet()
    unet.save_pretrained(tmp_path / "mine", torch.float32)
    assert equal(load_backbone(str(tmp_path / "mine")), unet)


@pytest.mark.parametrize("name", ["nothing", "random:nothing"])
def test_a_backbone_that_is_not_there(name):
    with pytest.raises(
        FileNotFoundError, match="no backbone 'nothing': looked in nothing. Known names: openai_256, he"
    ):
        load_backbone(name)


def test_a_known_backbone_whose_files_are_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("textdiff.base.paths.assets_dir", lambda: tmp_path / "assets")
    with pytest.raises(FileNotFoundError) as error:
        load_backbone("he_32")
    for part in (str(tmp_path / "assets" / "he_32"), str(tmp_path / "weights" / "he_32"), "TEXTDIFF_WEIGHTS"):
        assert part in str(error.value)


def test_openais_checkpoint(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_backbone("openai_256")
    for part in (str(tmp_path / "weights"), "`textdiff fetch openai_256`", "TEXTDIFF_WEIGHTS", "he_32"):
        assert part in str(error.value)
    monkeypatch.setattr(experiments, "OPENAI_256", ARCHITECTURE)
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / experiments.OPENAI_256_FILE
    torch.save(tiny_unet().state_dict(), path)
    assert equal(load_backbone("openai_256"), tiny_unet())
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=f"(?s){path.name} do not fit this UNet.*unexpected .1.: a"):
        load_backbone("openai_256")


def test_the_known_backbones_can_be_tapped_where_the_configuration_says():
    """As far as the networks are here."""
    for name, about in BACKBONES.items():
        try:
            unet = load_backbone(name)
        except FileNotFoundError:
            continue
        assert about["image_size"] % unet.divisor == 0
        for blocks in about["blocks"].values():
            assert max(map(int, blocks.split(","))) < len(unet.output_blocks)


# --- data -----------------------------------------------------------------------------------------------


def test_phantoms_come_in_the_numbers_of_the_configuration():
    data = load_data(small(max_val=2, max_test=3), n_train=4)
    assert [len(split) for split in (data.train, data.val, data.test)] == [4, 2, 3] and data.synthetic


def test_unlabelled_images_have_no_masks():
    images = unlabelled_images(PretrainConfig.from_params(image_size=32))
    assert len(images) == 40 and not any(case.labelled for case in images)
    assert images[0].image().shape == (32, 32, 3)


# --- models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["textdiff", "textdiff_no_text", "textdiff_concat", "unet", "text_unet"])
def test_every_model_is_built_trained_and_tested(name):
    config = small(model=name, image_size=32, iterations=2, validate_every=1)
    model = build_model(config, CLASSES)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    history = train_model(model, config, cases(2, 40), cases(3, 40), CLASSES)
    assert [row["step"] for row in history] == [1, 2] and all(0 <= row["score"] <= 1 for row in history)
    changed = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert "features" not in changed and (changed == {"head"} or name in SCRATCH)
    table = experiments.test_model(model, config, cases(3, 40))
    assert list(table["case"]) == ["case0", "case1"]  # max_test
    assert table[["dice", "iou", "dice_native"]].notna().all().all()


def test_the_seed_decides_the_first_weights():
    a, b, other = (build_model(small(seed=seed), CLASSES) for seed in (1, 1, 2))
    assert equal(a.head, b.head) and not equal(a.head, other.head) and equal(a.features.unet, other.features.unet)


def test_the_configuration_reaches_the_model():
    model = build_model(small(protocol="official", head="compact", steps="1,2", noise_seed=7), ("a", "b", "c"))
    assert (model.channel_order, model.resize, model.text_mask) == ("BGR", "bilinear", False)
    assert model.features.settings["noise_seed"] == 7 and model.features.steps == (1, 2)
    assert model.class_names == ("a", "b", "c") and model.head.config["num_classes"] == 3
    assert model.head.config["merge"] == "sum" and model.head.cross.place is None


def test_ten_padded_tokens_in_the_official_protocol_whole_captions_otherwise():
    captions = ["The nuclei density in the upper left is high."]
    official, corrected = (
        build_text(small(protocol=name, head="compact"))(captions) for name in ("official", "corrected")
    )
    assert official[0].shape[1] == 10 and corrected[1].all()


def test_other_captions_can_be_put_in_the_place_of_the_cases_own():
    config = small()
    model = build_model(config, CLASSES)
    table = experiments.test_model(model, config, cases(2), ["The nuclei are sparsely distributed."] * 2)
    assert set(table["caption"]) == {"The nuclei are sparsely distributed."}


def test_an_interrupted_training_goes_on_and_cleans_up(monkeypatch, tmp_path):
    config = small(iterations=6)
    expected = build_model(config, CLASSES)
    train_model(expected, config, cases(2), cases(1), CLASSES)

    evaluate, calls = experiments._evaluate, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(experiments, "_evaluate", interrupted)
    stopped = build_model(config, CLASSES)
    with pytest.raises(KeyboardInterrupt):
        train_model(stopped, config, cases(2), cases(1), CLASSES)
    assert stopped.features.cache is not None
    (left,) = (tmp_path / "cache" / "training").rglob("*.safetensors")
    continued = build_model(config, CLASSES)
    history = train_model(continued, config, cases(2), cases(1), CLASSES)
    assert [row["step"] for row in history] == [2, 4, 6] and equal(continued.head, expected.head)
    assert not left.parent.exists() and len(calls) == 4


def test_views_that_never_come_twice_are_not_cached(tmp_path):
    for augmentation, count in (("official", 0), ("none", 2)):
        config = small(augmentation=augmentation, max_val=1, iterations=4)
        model = build_model(config, CLASSES)
        train_model(model, config, cases(2), [], CLASSES)
        assert len(list((tmp_path / "cache" / "features").rglob("*.safetensors"))) == count
        assert model.features.cache is not None


def test_pre_training_goes_on_from_a_backbone(tmp_path):
    config = PretrainConfig.from_params(channel_mult="1,2", attention_resolutions="2", num_res_blocks=1, crop=16)
    new_backbone(config).save_pretrained(tmp_path / "first", torch.float32)
    onward = PretrainConfig.from_params(**{**config.to_dict(), "seed": 1, "start_from": str(tmp_path / "first")})
    assert equal(new_backbone(onward), new_backbone(config))
    other = PretrainConfig.from_params(**{**onward.to_dict(), "channel_mult": "1,3"})
    with pytest.raises(ValueError, match="first"):
        new_backbone(other)


def test_a_new_backbone_follows_its_configuration():
    config = PretrainConfig.from_params(channel_mult="1,2", attention_resolutions="2", num_res_blocks=1, crop=16)
    a, b, other = (
        new_backbone(c) for c in (config, config, PretrainConfig.from_params(**{**config.to_dict(), "seed": 1}))
    )
    assert a.config["channel_mult"] == [1, 2] and a.config["image_size"] == 16 and a.config["out_channels"] == 3
    assert equal(a, b) and not equal(a, other)


# --- whole runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["textdiff", "unet"])
def test_a_run_is_recorded_once_and_its_model_comes_back(monkeypatch, tmp_path, name):
    config = small(model=name, image_size=32, max_test=3)
    run = experiments.run_textdiff(config, tmp_path / "results")
    metrics, table = run.metrics(), run.per_case()
    assert metrics["test/n"] == len(table) == 3 and 0 <= metrics["val/dice"] <= 1
    readings = {"shuffled", "same_count", "empty", "swapped"}
    assert {key.removeprefix("dice_") for key in table if key.startswith("dice_")} & readings == (
        readings if config.reads else set()
    )
    model = experiments.load_trained(config, CLASSES)
    again = experiments.test_model(model, config, load_data(config).test)
    assert again["dice"].tolist() == pytest.approx(table["dice"].tolist())
    monkeypatch.setattr(experiments, "train_model", None)
    assert experiments.run_textdiff(config, tmp_path / "results").folder == run.folder


def test_weights_that_another_machine_made():
    with pytest.raises(FileNotFoundError, match="no trained weights of nuclei_phantoms-textdiff.*run it again"):
        experiments.load_trained(small(), CLASSES)


def test_the_audit_may_choose_on_the_test_images():
    data = load_data(small(max_val=2, max_test=3))
    assert experiments.choosing_cases(small(max_val=2), data) == data.val[:2]
    assert experiments.choosing_cases(small(select_on="test", max_test=3), data) == data.test[:3]


def test_a_table_is_made_in_demo_mode_and_only_drawn_in_full_mode(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(experiments, "run_grid", lambda grid, out_dir: made.append((grid, out_dir)))
    here = {"dataset": "chest_phantoms", "out_dir": str(tmp_path), "seed": 3, "device": "cpu"}
    table, records = experiments.table_of("ablation", TableConfig.from_params(**here))
    assert made == [(table, str(tmp_path))] and table.seeds == (3,) and table.common["device"] == "cpu"
    assert set(records["source"]) <= {"published"}
    some, _ = experiments.table_of("ablation", TableConfig.from_params(**here, mode="full"), 2, ("TextDiff",))
    assert len(made) == 1 and some.seeds == (3, 4) and [row.label for row in some.rows] == ["TextDiff"]
