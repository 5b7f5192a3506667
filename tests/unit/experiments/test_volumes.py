"""From a configuration to a record in 3D: every model, every task's file layout, and what the record holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from volume_layouts import write_layout

from textdiff import TextDiffSeg
from textdiff.data.registry import DATASETS, names
from textdiff.experiments import volumes as experiments3d
from textdiff.experiments.config import SCRATCH_3D, SHIPPED_3D, TEXTDIFFSEG, TextDiffSegConfig

QUICK = {
    "mode": "full",
    "text_encoder": "tiny",
    "iterations": 1,
    "validate_every": 1,
    "max_val": 1,
    "max_test": 1,
    "steps": 1,
    "patch": "32,32,24",
    "latent_channels": 4,
    "precision": "float32",
    "device": "cpu",
}
TUMOURS = ("liver_tumour", "pancreas_tumour", "colon_tumour", "kits21")


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    for name in ("DATA", "CACHE", "RESULTS"):
        monkeypatch.setenv(f"TEXTDIFF_{name}", str(tmp_path / name.lower()))


def written(tmp_path, task: str, n: int = 10) -> None:
    """A data set in the layout of ``task``, small, on the grid that the task works on."""
    spacing = DATASETS[task].spacing or (1.0, 1.0, 1.0)
    folder = tmp_path / "data" / DATASETS[task].folders[0]
    write_layout(folder, task, n, shape=(32, 32, 24), spacing=spacing)


def config(dataset: str = "hippocampus", **changes) -> TextDiffSegConfig:
    sides = {"patch": "40,56,40"} if dataset == "hippocampus" else {}
    return TextDiffSegConfig.from_params(dataset=dataset, **QUICK | sides | changes)


@pytest.mark.parametrize("task", TUMOURS)
def test_a_tumour_task_loads_trains_a_step_and_predicts_from_its_own_files(tmp_path, task):
    written(tmp_path, task)
    settings = config(task)
    run = experiments3d.run_textdiffseg(settings)
    metrics, data = run.metrics(), experiments3d.load_data(settings)
    assert run.finished and metrics["test/n"] == 1 and 0 <= metrics["test/dice"] <= 1
    model = experiments3d.load_trained(settings, data)
    case = data.test[0]
    found = model.predict(case.image_path, f"the {data.class_names[-1]}", steps=1, progress=False)
    assert found.labels.shape == case.image().shape
    assert np.allclose(found.labels.affine, case.image().affine)
    assert set(np.unique(found.labels.array)) <= set(range(len(data.class_names)))


@pytest.mark.parametrize("model", [*TEXTDIFFSEG[1:], *SCRATCH_3D])
def test_every_model_is_built_trains_a_step_and_is_loaded_again(tmp_path, model):
    written(tmp_path, "hippocampus")
    settings = config(model=model)
    data = experiments3d.load_data(settings)
    trained = experiments3d.build_model(settings, data)
    history = experiments3d.train_model(trained, settings, data, data.train[:2])
    assert len(history) == 1 and np.isfinite(history[0]["loss"])
    experiments3d.keep_model(trained, settings)
    again = experiments3d.load_trained(settings, data)
    case, text = data.test[:1], ["anterior hippocampus"]
    scores = [experiments3d.test_model(m, settings, data, case, text, surfaces=False) for m in (trained, again)]
    assert scores[0]["dice"][0] == pytest.approx(scores[1]["dice"][0], abs=0.05)  # float16 on disk


def test_a_record_says_what_was_found_under_which_prompt_and_is_not_made_twice(tmp_path):
    written(tmp_path, "hippocampus")
    settings = config(max_test=2, prompts="mixed")
    run = experiments3d.run_textdiffseg(settings)
    metrics, table = run.metrics(), run.per_case()
    for a in ("anterior_hippocampus", "posterior_hippocampus"):
        for b in ("anterior_hippocampus", "posterior_hippocampus"):
            name = f"dice_{b}_asked_for_{a}"
            assert metrics[f"test/{name}"] == pytest.approx(table[name].astype(float).mean())
    assert {f"test/dice_prompt_{kind}" for kind in ("class", "anatomy", "report")} <= set(metrics)
    assert {"test/dice", "test/hd95_mm", "test/assd_mm", "test/dice_ci_low", "val/dice"} <= set(metrics)
    stamp = (run.folder / "metrics.json").stat().st_mtime_ns
    again = experiments3d.run_textdiffseg(settings)
    assert (again.folder / "metrics.json").stat().st_mtime_ns == stamp


def test_every_task_that_can_be_read_can_be_asked_for():
    from textdiff.experiments.config import VOLUMES

    assert set(VOLUMES) == set(names("volumes"))


def test_few_labels_are_drawn_by_the_seed(tmp_path):
    written(tmp_path, "hippocampus")
    data = experiments3d.load_data(config())
    draws = [[case.name for case in experiments3d.labelled_cases(config(n_labels=3, seed=s), data)] for s in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2] and len(draws[0]) == 3
    assert len(experiments3d.labelled_cases(config(), data)) == len(data.train)


def test_chosen_structures_are_numbered_anew(tmp_path):
    written(tmp_path, "liver_tumour")
    data = experiments3d.load_data(config("liver_tumour", structures="liver tumour"))
    assert data.class_names == ("background", "liver tumour")


def test_a_model_that_is_not_there_says_how_to_make_it():
    with pytest.raises(FileNotFoundError, match="run it again"):
        experiments3d.load_trained(config(), None)


def test_the_large_preset_is_larger_and_the_small_one_fits_a_small_file(tmp_path):
    written(tmp_path, "hippocampus")
    counts = {}
    for size in ("small", "large"):
        settings = config(size=size)
        model = experiments3d.build_model(settings, experiments3d.load_data(settings))
        assert isinstance(model, TextDiffSeg)
        counts[size] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counts["large"] > 3 * counts["small"] and 2 * counts["small"] < 16e6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_small_preset_trains_on_a_gpu(tmp_path):
    written(tmp_path, "hippocampus")
    run = experiments3d.run_textdiffseg(config(device="cuda", precision="bfloat16"))
    assert run.finished and torch.cuda.max_memory_allocated() < 16e9


def test_training_goes_on_from_given_weights(tmp_path):
    written(tmp_path, "hippocampus")
    first, changed = config(), {"learning_rate": 1e-3, "autoencode": 0.1}
    data = experiments3d.load_data(first)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        experiments3d.build_model(config(start_from="nowhere", **changed), data)
    trained = experiments3d.build_model(first, data)
    torch.nn.init.constant_(trained.decoder.classify.bias, 0.5)
    folder = experiments3d.keep_model(trained, first)
    for start in (str(folder), first.run_id):
        again = experiments3d.build_model(config(start_from=start, **changed), data)
        assert (again.decoder.classify.bias == 0.5).all() and again.autoencode == 0.1
    other = config(start_from=first.run_id, latent_channels=8)
    with pytest.raises(ValueError, match="of another shape"):
        experiments3d.build_model(other, data)


@pytest.mark.parametrize(("dataset", "name"), SHIPPED_3D.items())
def test_the_shipped_models_find_what_the_sentence_names(dataset, name, data_root, monkeypatch):
    """On a test volume, which they were not trained on; skipped where it is real and there is none."""
    model = TextDiffSeg.from_pretrained(name)
    settings = config(dataset, structures=",".join(model.class_names[1:]))
    if dataset == "hippocampus":
        if not (data_root / "Task04_Hippocampus").is_dir():
            pytest.skip(f"no Task04_Hippocampus in {data_root}")
        monkeypatch.setenv("TEXTDIFF_DATA", str(data_root))
    image, truth = experiments3d.load_data(settings).test[0].pair()
    for asked, structure in enumerate(model.class_names[1:], start=1):
        found = model.predict(image, structure, steps=2, progress=False).labels.array
        overlap = 2 * ((found == asked) & (truth.array == asked)).sum()
        assert overlap / ((found == asked).sum() + (truth.array == asked).sum()) > 0.8
        assert ((found > 0) & (found != asked)).sum() < 0.02 * (found == asked).sum()
