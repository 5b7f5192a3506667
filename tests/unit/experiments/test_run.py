"""The one way to make a run: every model of images and of volumes trains, is tested, recorded once, and comes back."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import entries
from volume_layouts import write_layout

from textdiff.data.splits import draw_labelled
from textdiff.experiments import images, run, volumes
from textdiff.experiments.images import TextDiffConfig, training_figure
from textdiff.experiments.pages import DataConfig
from textdiff.experiments.places import kept_model
from textdiff.experiments.pretraining import PretrainConfig, new_backbone, pretrained, unlabelled_images
from textdiff.experiments.volumes import TextDiffSegConfig
from textdiff.models.store import own_state
from textdiff.training import teaching
from textdiff.training.weights import trained_state

QUICK = {"iterations": 2, "validate_every": 1, "max_val": 1, "max_test": 2, "device": "cpu", "precision": "float32"}
TUMOURS = ("liver_tumour", "pancreas_tumour", "colon_tumour", "kits21")


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    for name in ("DATA", "CACHE", "RESULTS"):
        monkeypatch.setenv(f"TEXTDIFF_{name}", str(tmp_path / name.lower()))


def of_images(**changes) -> TextDiffConfig:
    small = {"dataset": "nuclei_phantoms", "image_size": 32, "batch_size": 2, **QUICK}
    frozen = {"blocks": "0,1", "noise_steps": "50"} if not changes.get("model", "").endswith("unet") else {}
    return TextDiffConfig.from_params(**small | frozen | changes)


def of_volumes(dataset: str = "abdomen_phantoms", **changes) -> TextDiffSegConfig:
    small = {"mode": "full", "text_encoder": "tiny", "latent_channels": 4, "sampling_steps": 1}
    if dataset == "abdomen_phantoms":
        small |= {"structures": "liver,left kidney", "n_labels": 2}
    else:
        small |= {"patch": "32,32,24"}
    return TextDiffSegConfig.from_params(dataset=dataset, **small | QUICK | {"iterations": 1, "max_test": 1} | changes)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Whether what is not frozen is the same to the bit."""
    theirs = own_state(b)
    return all(torch.equal(value, theirs[key]) for key, value in own_state(a).items())


@pytest.mark.parametrize("model", ["textdiff", "textdiff_no_text", "textdiff_concat", "unet", "text_unet"])
def test_a_run_of_images_is_recorded_once_and_its_model_comes_back(monkeypatch, model):
    config = of_images(model=model)
    made = run.make_run(config)
    metrics, table = made.metrics(), made.per_case()
    assert metrics["test/n"] == len(table) == 2 and 0 <= metrics["val/dice"] <= 1 and metrics["train/n"] == 5
    readings = {"shuffled", "same_count", "empty", "swapped"}
    found = {key.removeprefix("dice_") for key in table if key.startswith("dice_")} & readings
    assert found == (readings if config.reads else set())
    assert all(made.figure(name) for name in ("training", "best", "worst"))
    again = images.score(run.trained_model(config), config, data := images.load_data(config), data.test[:2])
    assert again["dice"].tolist() == pytest.approx(table["dice"].tolist(), abs=1e-5)
    monkeypatch.setattr(images, "train", None)
    assert run.make_run(config).folder == made.folder
    assert not (run.scratch_dir() / config.run_id).exists(), "the checkpoint goes when the record is whole"


@pytest.mark.parametrize("model", ["textdiffseg", "textdiffseg_no_text", "textdiffseg_no_label_encoder", "segresnet"])
def test_a_run_of_volumes_is_recorded_and_its_model_comes_back(model):
    config = of_volumes(model=model)
    made = run.make_run(config)
    metrics, data = made.metrics(), volumes.load_data(config)
    assert metrics["test/n"] == 1 and 0 <= metrics["test/dice"] <= 1 and "test/hd95_mm" in metrics
    assert ("test/dice_one_by_one" in metrics) == config.reads
    again = volumes.score(run.trained_model(config, data), config, data, data.test[:1], surfaces=False)
    # TextDiffSeg is kept in float16
    assert again["dice"].tolist() == pytest.approx(made.per_case()["dice"].tolist(), abs=1e-3)


@pytest.mark.parametrize("task", TUMOURS)
def test_a_tumour_task_loads_trains_a_step_and_is_tested_on_its_own_files(tmp_path, task):
    entry = TextDiffSegConfig.from_params(dataset=task, mode="full").entry
    spacing = entry.spacing or (1.0, 1.0, 1.0)
    write_layout(tmp_path / "data" / entry.folders[0], task, 12, 0, shape=(32, 32, 24), spacing=spacing)
    metrics = run.make_run(of_volumes(task)).metrics()
    assert metrics["test/n"] == 1 and 0 <= metrics["test/dice"] <= 1


def test_the_model_and_the_record_know_the_training_cases():
    config = of_images()
    made = run.make_run(config)
    model, data = run.trained_model(config), images.load_data(config)
    drawn = [case.fingerprint() for case in images.labelled_cases(config, data)]
    env = json.loads((made.folder / "env.json").read_text())
    assert model.trained_on == {"dataset": "nuclei_phantoms", "cases": drawn} and env["training_cases"] == drawn


def test_testing_on_a_training_case_is_an_error(monkeypatch):
    """As it happened where another copy of the data came with another split."""
    config = of_images()
    data = images.load_data(config)
    leaking = type(data)(**{**vars(data), "test": [data.test[0], *images.labelled_cases(config, data)]})
    monkeypatch.setattr(images, "load_data", lambda config: leaking)
    with pytest.raises(ValueError, match="the model was trained on 1 of the 2 test cases"):
        run.make_run(config)


def test_validation_and_test_are_cut_each_by_its_own_number():
    config = of_images(max_val=3, max_test=1)
    data = images.load_data(config)
    assert len(images.validation_cases(config, data)) == 3 and len(images.test_cases(config, data)) == 1
    table = run.make_run(config).metrics()
    assert table["val/n"] == 3 and table["test/n"] == 1


def test_the_audit_chooses_on_all_test_images_that_are_tested(monkeypatch):
    config, seen = of_images(select_on="test", max_val=1, max_test=3), []
    score = images.score

    def watched(model, config, data, cases, *args, **kwargs):
        seen.append([case.name for case in cases])
        return score(model, config, data, cases, *args, **kwargs)

    monkeypatch.setattr(images, "score", watched)
    run.make_run(config)
    data = images.load_data(config)
    assert seen[0] == [case.name for case in data.test[:3]]


def test_an_interrupted_training_goes_on(monkeypatch):
    config = of_images(iterations=4)
    data = images.load_data(config)
    cases, checkpoint = images.labelled_cases(config, data), run.scratch_dir() / "a" / "checkpoint.safetensors"
    expected = images.build_model(config, data)
    images.train(expected, config, data, cases, checkpoint.with_name("other.safetensors"))
    score, calls = images.score, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(*args, **kwargs)

    monkeypatch.setattr(images, "score", interrupted)
    stopped = images.build_model(config, data)
    with pytest.raises(KeyboardInterrupt):
        images.train(stopped, config, data, cases, checkpoint)
    assert checkpoint.is_file() and stopped.features.cache is not None
    continued = images.build_model(config, data)
    history = images.train(continued, config, data, cases, checkpoint)
    assert [row["step"] for row in history] == [1, 2, 3, 4] and same(continued.head, expected.head)


@pytest.mark.parametrize(("augmentation", "count"), [("affine", 1), ("official", 9), ("none", 6)])
def test_views_that_never_come_twice_are_not_cached(tmp_path, augmentation, count):
    """The validation image is cached, training views only where they come again."""
    config = of_images(augmentation=augmentation, views=0, iterations=4)
    run.make_run(config)
    assert len(entries(tmp_path / "cache" / "features")) == count + 2  # the test images


def slow_run(config: TextDiffConfig, made) -> None:
    made.put(str(run.make_run(config).folder))


def test_two_processes_do_not_make_the_same_run(tmp_path):
    config = of_images(iterations=1)
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    children = [spawn.Process(target=slow_run, args=(config, queue)) for _ in range(2)]
    for child in children:
        child.start()
    folders = {queue.get(timeout=120) for _ in children}
    for child in children:
        child.join()
    assert len(folders) == 1 and len(list((tmp_path / "results" / "textdiff2d").iterdir())) == 1


def test_a_folder_that_takes_no_record_is_named_before_the_work(monkeypatch, tmp_path):
    (tmp_path / "results").write_text("a file where a folder should be")
    monkeypatch.setattr(images, "load_data", None)
    with pytest.raises(OSError, match=r"no record can be written to .*choose another folder \(TEXTDIFF_RESULTS\)"):
        run.make_run(of_images())


def test_what_is_no_run_is_refused():
    with pytest.raises(
        ValueError, match=r"DataConfig describes no run .*`papermill notebooks/10_data_and_sentences.ipynb .*` makes it"
    ):
        run.make_run(DataConfig.from_params())


def test_weights_that_another_machine_made():
    with pytest.raises(FileNotFoundError, match="no trained weights of nuclei_phantoms-textdiff.*make the run again$"):
        run.trained_model(of_images())


def test_lost_weights_whose_record_is_there_come_back_as_the_error_says():
    config = of_images(model="unet", iterations=1)
    folder = run.make_run(config).folder
    shutil.rmtree(kept_model(config.run_id))
    run.make_run(config)
    with pytest.raises(FileNotFoundError, match=f"remove its record {folder} first, or give another out_dir"):
        run.trained_model(config)
    shutil.rmtree(folder)
    run.make_run(config)
    assert not run.trained_model(config).training


def test_a_model_goes_on_from_the_weights_of_another_run():
    first = of_volumes()
    run.make_run(first)
    onward = of_volumes(start_from=first.run_id, seed=1)
    data = volumes.load_data(onward)
    assert same(volumes.build_model(onward, data), run.trained_model(first, data))
    assert onward.start_from_weights != "none" and kept_model(first.run_id).is_dir()


@pytest.mark.parametrize("model", ["textdiffseg", "segresnet"])
def test_weights_to_go_on_from_bring_the_cases_that_they_were_trained_on(monkeypatch, model):
    """A network's weights are kept without a config.json: the record of its run knows."""
    monkeypatch.setattr(volumes, "PHANTOM_SPLITS", (4, 1, 1))
    data = volumes.load_data(of_volumes())
    old, new = [case.fingerprint() for case in data.train[:2]], data.train[2].fingerprint()
    first = of_volumes(model=model)
    monkeypatch.setattr(volumes, "labelled_cases", lambda config, data: data.train[2 * config.seed :][:2])
    monkeypatch.setattr(volumes, "measure", lambda *work: ({}, pd.DataFrame({"case": ["a"]})))
    monkeypatch.setattr(volumes, "figures", lambda *work: {})
    monkeypatch.setattr(volumes, "domain", lambda *work: None)
    monkeypatch.setattr(volumes, "load_data", lambda config: data)
    untrained = [{"step": 1, "loss": 0.0, "score": 0.5, "seconds": 0.0}]
    monkeypatch.setattr(volumes, "train", lambda *work: untrained)
    run.make_run(first)
    onward = of_volumes(model=model, start_from=first.run_id, seed=1)
    env = json.loads((run.make_run(onward).folder / "env.json").read_text())["training_cases"]
    assert env[:2] == old and env[2] == new and len(env) == 4
    assert run.trained_model(onward, data).trained_on == {"dataset": "abdomen_phantoms", "cases": env}
    leaking = replace(data, test=data.train[:1])
    monkeypatch.setattr(volumes, "load_data", lambda config: leaking)
    monkeypatch.setattr(volumes, "train", lambda *work: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match="the model was trained on 1 of the 1 test cases"):
        run.make_run(of_volumes(model=model, start_from=first.run_id, seed=2))


def test_pre_training_follows_its_configuration_and_goes_on_from_a_backbone(tmp_path):
    small = {"channel_mult": "1,2", "attention_resolutions": "2", "num_res_blocks": 1, "crop": 16, "image_size": 32}
    config = PretrainConfig.from_params(**small, iterations=2, batch_size=2, precision="float32", device="cpu")
    unet, history = pretrained(config)
    assert unet.config["channel_mult"] == [1, 2] and unet.config["image_size"] == 16 and history[-1]["step"] == 2
    unet.save_pretrained(tmp_path / "first", torch.float32)
    onward = PretrainConfig.from_params(**small, seed=1, start_from=str(tmp_path / "first"))
    assert same(new_backbone(onward), unet)
    other = PretrainConfig.from_params(**small | {"channel_mult": "1,3"}, start_from=str(tmp_path / "first"))
    with pytest.raises(ValueError, match="first"):
        new_backbone(other)
    found = unlabelled_images(config)
    assert len(found) == 40 and not any(case.labelled for case in found) and found[0].image().shape == (32, 32, 3)


@pytest.mark.parametrize("model", ["textdiff", "text_unet"])
def test_a_run_learns_from_images_without_masks_and_its_teacher_is_trained_once(monkeypatch, model):
    phantoms = {"dataset": "chest_phantoms", "n_labels": 4, "mirrored": "on", "unlabelled": 6}
    config, seen = of_images(model=model, **phantoms), []
    # Two steps teach nothing that could be marked
    monkeypatch.setattr(teaching, "_label_map", lambda probabilities, size: np.ones(size, np.uint8))
    fitted, marking = images._fitted, images._marked
    monkeypatch.setattr(images, "_fitted", lambda *how: seen.append(how[4].name) or fitted(*how))
    monkeypatch.setattr(images, "_marked", lambda *how: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.make_run(config)
    monkeypatch.setattr(images, "_marked", marking)
    made = run.make_run(config)
    assert seen == ["checkpoint.safetensors", "student.safetensors"]
    assert 0 <= made.metrics()["test/dice"] <= 1
    assert (made.metrics()["train/n"], made.metrics()["train/unlabelled"]) == (4, 6)
    about = json.loads((made.folder / "env.json").read_text())["training_cases"]
    others = images.unlabelled_cases(config, data := images.load_data(config))
    assert {case.fingerprint() for case in others} < set(about) and len(about) == 10 and data.train
    assert not (run.scratch_dir() / config.run_id).exists()
    # One that was trained as a run of its own teaches too
    run.make_run(of_images(model=model, **phantoms | {"unlabelled": 0, "seed": 1}))
    seen.clear()
    run.make_run(of_images(model=model, **phantoms | {"seed": 1}))
    assert seen == ["student.safetensors"]
    with pytest.raises(ValueError, match="unlabelled=6: all 60 training images of chest_phantoms are labelled"):
        run.make_run(of_images(model=model, **phantoms | {"n_labels": 60}))
    with pytest.raises(ValueError, match="unlabelled=6 needs mirrored='on'"):
        of_images(model=model, **phantoms | {"mirrored": "off"})


def test_the_words_for_a_training_that_was_not_validated_name_no_score():
    history = [{"step": 2, "loss": 1.0, "score": float("nan"), "seconds": 1.0}]
    told = training_figure(history, of_images()).textdiff_description
    assert told["alt"].startswith("Training loss over") and told["caption"] == "Training loss."


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_of_a_run_draws_its_labelled_cases(seed):
    config = of_images(n_labels=3, seed=seed)
    data = images.load_data(config)
    assert images.labelled_cases(config, data) == draw_labelled(data.train, 3, seed)


@pytest.mark.parametrize(
    ("structures", "prompts", "mirror"),
    [
        ("liver", "class", True),
        ("liver,left kidney", "class", False),
        ("left kidney", "class", False),
        ("liver", "report", False),
    ],
)
def test_left_and_right_are_exchanged_only_where_neither_structure_nor_sentence_has_a_side(structures, prompts, mirror):
    config = of_volumes(structures=structures, prompts=prompts, augmentation="affine")
    data = volumes.load_data(config)
    assert volumes.training_volumes(config, data, data.train[:1]).mirror == mirror


def test_of_a_structure_the_cases_that_have_it_tell_whether_it_is_read(monkeypatch):
    """The second patient has no left kidney: unmarked, it scores 1 whatever is asked for."""
    config = of_volumes()
    data = volumes.load_data(config)
    table = pd.DataFrame(
        {"dice_liver": [0.8, 0.6], "actual_liver": [9, 9], "dice_left_kidney": [0.4, 1.0], "actual_left_kidney": [9, 0]}
    )
    monkeypatch.setattr(volumes, "score", lambda *what, **how: table)
    metrics, _ = volumes.reading_test(None, config, data, data.test[:2])
    assert metrics["test/dice_left_kidney_asked_for_left_kidney"] == pytest.approx(0.4)
    assert metrics["test/dice_one_by_one"] == pytest.approx((0.6 + 0.6) / 2)


def test_the_student_begins_as_its_teacher_did(monkeypatch, tmp_path):
    config = of_images(model="text_unet", dataset="chest_phantoms", n_labels=4, mirrored="on", unlabelled=6)
    begun, fitted = [], images._fitted

    def followed(model, *how):
        begun.append({name: value.detach().clone() for name, value in trained_state(model).items()})
        return fitted(model, *how)

    monkeypatch.setattr(images, "_fitted", followed)
    monkeypatch.setattr(teaching, "_label_map", lambda probabilities, size: np.ones(size, np.uint8))
    data = images.load_data(config)
    model = images.build_model(config, data)
    images.train(model, config, data, images.labelled_cases(config, data), tmp_path / "checkpoint.safetensors")
    teacher, student = begun
    assert all(torch.equal(value, teacher[name]) for name, value in student.items())
