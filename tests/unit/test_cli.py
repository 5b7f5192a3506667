"""The command line: what it passes on, and that every wrong input ends in one readable line and exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import nibabel
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from textdiff import cli

LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
PARAMETERS = 'mode = "demo"  # @param ["demo", "full"]\nn_labels = 0\nlearning_rate = 0.0\nshow = False\n'


def invoke(*words: object):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def assert_one_line(result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    text = result.stderr
    assert text.startswith("textdiff: ") and text.count("\n") == 1 and "Traceback" not in text
    for part in parts:
        assert part in text


@pytest.fixture
def notebook(tmp_path, monkeypatch) -> Path:
    """notebooks/13_textdiff.ipynb below a fresh current folder."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    return write_notebook(folder / "13_textdiff.ipynb", PARAMETERS, "print(n_labels)", config="TextDiffConfig")


def write_notebook(path: Path, parameters: str, code: str, config: str | None = None) -> Path:
    cells = [
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code),
    ]
    metadata = {"textdiff": {"config": config}} if config else {}
    metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


@pytest.fixture
def model(monkeypatch) -> dict:
    """Stands in for a trained model; keeps what it was called with."""
    from textdiff import TextDiff

    calls = {}

    class Trained:
        def predict(self, image, text):
            calls.update(image=image, text=text)
            return LABELS

    def from_pretrained(name, device):
        calls.update(name=name, device=device)
        return Trained()

    monkeypatch.setattr(TextDiff, "from_pretrained", staticmethod(from_pretrained))
    return calls


def test_predict_writes_the_labels_themselves(tmp_path, model):
    image = tmp_path / "slide.png"
    Image.new("RGB", (4, 3)).save(image)
    result = invoke(
        "predict", "--model", "m", "--image", image, "--text", "dense", "--out", tmp_path / "o.png", "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    assert model == {"name": "m", "device": "cpu", "image": image, "text": "dense"}
    with Image.open(tmp_path / "o.png") as written:
        assert written.mode == "L"
        assert np.array_equal(np.asarray(written), LABELS)


def test_predict_leaves_the_old_file_and_no_rest_when_it_fails(tmp_path, model, monkeypatch):
    image, out = tmp_path / "slide.png", tmp_path / "o.png"
    Image.new("RGB", (4, 3)).save(image)
    out.write_bytes(b"old")
    monkeypatch.setattr("textdiff.base.checkpoints.os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    result = invoke("predict", "--model", "m", "--image", image, "--text", "t", "--out", out)
    assert_one_line(result, "disk full")
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.png", "slide.png"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--image": "none.png"}, "no image file none.png"),
        ({"--out": "mask.jpg"}, "must end in .png"),
        ({"--out": "nowhere/mask.png"}, "no folder nowhere"),
        ({"--model": "no/such/model"}, "no/such/model"),
    ],
)
def test_predict_says_what_is_wrong(tmp_path, monkeypatch, changed, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Image.new("RGB", (4, 3)).save("slide.png")
    options = {"--model": "m", "--image": "slide.png", "--text": "t", "--out": "mask.png"} | changed
    assert_one_line(invoke("predict", *(word for pair in options.items() for word in pair)), said)


def test_predict_of_an_image_takes_no_settings_of_volumes(tmp_path):
    image = tmp_path / "slide.png"
    Image.new("RGB", (4, 3)).save(image)
    words = ("predict", "--model", "m", "--text", "t", "--image", image, "--out", tmp_path / "o.png")
    assert_one_line(invoke(*words, "--steps", 3), "--steps is of volumes")
    assert_one_line(invoke(*words, "--uncertainty", "u.nii.gz"), "--uncertainty is of volumes")


@pytest.fixture
def ct(tmp_path, monkeypatch) -> Path:
    """ct.nii.gz in a fresh current folder: 6 x 5 x 4 voxels, LPS, one bright block."""
    monkeypatch.chdir(tmp_path)
    array = np.zeros((6, 5, 4), np.int16)
    array[4:, 1:3, 2:] = 100
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-0.8, -0.8, 2.5, 1])), "ct.nii.gz")
    return Path("ct.nii.gz")


@pytest.fixture
def volume_model(monkeypatch) -> dict:
    """Stands in for a trained TextDiffSeg that finds bright voxels; keeps what it was called with."""
    import torch

    import textdiff
    from textdiff.data.volumes.patches import Preprocessing
    from textdiff.models.inference import predict_volume

    calls = {}

    class Trained:
        class_names = ("background", "left kidney", "right kidney")
        device = torch.device("cpu")
        preprocessing = Preprocessing(None, (0, 100), (8, 8, 8))

        def predict(self, volume, text, sampling, **options):
            calls.update(volume=volume, text=text, sampling=sampling, **options)
            return predict_volume(self, volume, text, sampling, **options)

        def segment(self, images, prompts, sampling):
            bright = (images[:, 0] > 0).float() * 0.8
            return torch.stack([0.9 - bright, torch.full_like(bright, 0.1), bright], dim=1)

        def draws(self, images, prompts, sampling):
            return (self.segment(images, prompts, sampling) for _ in range(sampling.samples))

    class Stored:
        @staticmethod
        def from_pretrained(name, device):
            calls.update(name=name, device=device)
            return Trained()

    monkeypatch.setattr(textdiff, "TextDiffSeg", Stored, raising=False)
    return calls


VOLUME = {"--model": "m", "--volume": "ct.nii.gz", "--text": "right kidney", "--out": "mask.nii.gz", "--device": "cpu"}


def predict_with(changed: dict[str, object]):
    options = {name: value for name, value in (VOLUME | changed).items() if value is not None}
    return invoke("predict", *(word for pair in options.items() for word in pair))


def test_predict_of_a_volume_writes_aligned_labels_and_uncertainty(ct, volume_model):
    result = predict_with({"--uncertainty": "u.nii", "--steps": 7, "--samples": 2, "--seed": 5})
    assert result.exit_code == 0, result.output
    asked = {"steps": 7, "samples": 2, "seed": 5, "uncertainty": True, "progress": False}
    assert volume_model == {"name": "m", "device": "cpu", "volume": ct, "text": "right kidney", **asked}
    image, mask, doubt = (nibabel.load(name) for name in (ct, "mask.nii.gz", "u.nii"))
    assert np.array_equal(np.asarray(mask.dataobj), 2 * (np.asarray(image.dataobj) > 50))
    assert mask.get_data_dtype() == np.uint8 and doubt.get_data_dtype() == np.float32
    assert np.array_equal(mask.affine, image.affine) and np.array_equal(doubt.affine, image.affine)
    assert 0 < doubt.get_fdata().min() < doubt.get_fdata().max() < 1
    assert result.stdout == "mask.nii.gz\n"
    said = result.stderr.splitlines()
    assert "textdiff: ct.nii.gz is 6 x 5 x 4 voxels, smaller than the model's window of 8 x 8 x 8" in said[0]
    assert said[1:] == [
        "1 left kidney: 0.00 ml (0.00 to 0.00 in 2 samples)",
        "2 right kidney: 0.01 ml (0.01 to 0.01 in 2 samples)",
    ]


def test_predict_takes_a_folder_of_dicom_slices(ct, volume_model):
    sitk = pytest.importorskip("SimpleITK")
    Path("series").mkdir()
    array = np.zeros((4, 5, 6), np.int16)
    array[2:, 1:3, 4:] = 100
    for k, plane in enumerate(array):
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing((0.8, 0.8, 2.5))
        image.SetOrigin((0, 0, 2.5 * k))
        tags = {
            "0008|0060": "CT",
            "0020|000e": "1.2.3.4",
            "0020|000d": "1.2.3",
            "0020|0013": str(k),
            "0020|0032": f"0\\0\\{2.5 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(f"series/{k}.dcm")
        writer.Execute(image)
    result = predict_with({"--volume": "series"})
    assert result.exit_code == 0, result.output
    mask = nibabel.load("mask.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), 2 * (array.transpose() > 50))
    assert nibabel.aff2axcodes(mask.affine) == ("L", "P", "S") and np.allclose(mask.header.get_zooms(), (0.8, 0.8, 2.5))


def test_predict_warns_in_one_line_of_a_text_about_nothing_known(ct, volume_model):
    result = predict_with({"--text": "the moon"})
    assert result.exit_code == 0
    said = "textdiff: the text 'the moon' names nothing that this model knows; it knows left kidney, right kidney"
    assert said in result.stderr.splitlines()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--image": "slide.png"}, "either --image FILE or --volume FILE"),
        ({"--volume": None}, "either --image FILE or --volume FILE"),
        ({"--volume": "none.nii.gz"}, "no volume none.nii.gz"),
        ({"--out": "mask.png"}, "--out must end in .nii or .nii.gz; got mask.png"),
        ({"--out": "nowhere/mask.nii.gz"}, "no folder nowhere for --out"),
        ({"--out": "ct.nii.gz"}, "--out ct.nii.gz would replace the volume itself"),
        ({"--uncertainty": "u.png"}, "--uncertainty must end in .nii"),
        ({"--uncertainty": "mask.nii.gz"}, "the same file mask.nii.gz"),
        ({"--steps": 0}, "steps=0: at least 1"),
        ({"--sampler": "euler"}, "sampler='euler'"),
        ({"--overlap": 1}, "overlap=1.0"),
    ],
)
def test_predict_of_a_volume_says_what_is_wrong_before_it_loads_the_model(ct, volume_model, changed, said):
    assert_one_line(predict_with(changed), said)
    assert not volume_model and [path.name for path in Path().iterdir()] == ["ct.nii.gz"]


def test_predict_of_a_damaged_volume_writes_nothing(ct, volume_model):
    ct.write_bytes(ct.read_bytes()[:100])
    assert_one_line(predict_with({}), "ct.nii.gz")
    assert [path.name for path in Path().iterdir()] == ["ct.nii.gz"]


def test_predict_with_a_full_disk_leaves_the_old_files_and_no_rest(ct, volume_model, monkeypatch):
    Path("mask.nii.gz").write_bytes(b"old")
    monkeypatch.setattr("textdiff.base.checkpoints.os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    result = predict_with({"--uncertainty": "u.nii.gz"})
    assert result.exit_code == 2 and result.stderr.splitlines()[-1] == "textdiff: disk full"
    assert Path("mask.nii.gz").read_bytes() == b"old"
    assert sorted(path.name for path in Path().iterdir()) == ["ct.nii.gz", "mask.nii.gz"]


def test_predict_says_which_input_a_model_is_for(ct, volume_model):
    for folder, content in (("flat", {"features": {}}), ("solid", {"preprocessing": {}})):
        Path(folder).mkdir()
        Path(folder, "config.json").write_text(json.dumps(content))
    Image.new("RGB", (4, 3)).save("slide.png")
    assert_one_line(predict_with({"--model": "flat"}), "flat", "try --image")
    changed = {"--model": "solid", "--volume": None, "--image": "slide.png", "--out": "o.png"}
    assert_one_line(predict_with(changed), "solid", "try --volume")


def test_labels_that_are_no_label_map_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two dimensions"):
        cli.write_labels(np.zeros((1, 3, 4)), tmp_path / "o.png")
    with pytest.raises(ValueError, match="0 to 255"):
        cli.write_labels(np.full((3, 4), 256), tmp_path / "o.png")


def test_fetch_passes_on_what_it_is_given(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setenv("TEXTDIFF_DATA", "elsewhere")
    monkeypatch.setattr(
        "textdiff.data.fetch.fetch", lambda name, **options: seen.update(name=name, **options) or "done"
    )
    result = invoke("fetch", "monuseg", "--source", "a.zip", "--root", tmp_path)
    assert result.exit_code == 0 and "done" in result.output
    assert seen == {"name": "monuseg", "source": Path("a.zip"), "force": False}
    from textdiff.base.paths import data_dir

    assert data_dir() == tmp_path


def test_fetch_of_an_unknown_name(monkeypatch):
    assert_one_line(invoke("fetch", "monuseq"), "monuseq", "monuseg, qata")


def test_run_checks_before_it_starts(notebook, monkeypatch):
    monkeypatch.setattr(cli, "execute_notebook", lambda *a: pytest.fail("it was started"))
    known = "mode, n_labels, learning_rate, show"
    assert_one_line(invoke("run", 13, "-p", "n_label", 1), "no parameter n_label", "Did you mean n_labels?", known)
    assert_one_line(invoke("run", 13, "-p", "n_labels", "many"), "n_labels must be a whole number, not 'many'")
    assert_one_line(invoke("run", 13, "-p", "show", "perhaps"), "show must be true or false")
    assert_one_line(invoke("run", 13, "-p", "n_labels", 1, "-p", "n_labels", 2), "given twice")
    assert_one_line(invoke("run", 13, "-p", "n_labels"), "-p NAME VALUE")
    assert_one_line(invoke("run", 13, "--n_labels", 5), "-p NAME VALUE")


def test_run_lets_the_config_refuse_a_value(notebook):
    parameters = 'mode = "demo"\nprotocol = "corrected"\n'
    write_notebook(notebook, parameters, "pass", config="TextDiffConfig")
    assert_one_line(invoke("run", 13, "-p", "protocol", "corect"), "protocol='corect'", "corrected")


def test_run_passes_typed_values_on(notebook, monkeypatch, tmp_path):
    seen = []
    write_notebook(notebook, PARAMETERS, "pass")
    monkeypatch.setattr(cli, "execute_notebook", lambda *a: seen.append(a))
    words = ["-p", "n_labels", 3, "-p", "learning_rate", "-1e-4", "-p", "show", "True", "-p", "mode", "full"]
    result = invoke("run", "13_textdiff", *words, "--out", tmp_path / "new" / "o.ipynb")
    assert result.exit_code == 0, result.output
    values = {"n_labels": 3, "learning_rate": -1e-4, "show": True, "mode": "full"}
    assert seen == [(notebook, tmp_path / "new" / "o.ipynb", values)]
    assert [type(value) for value in seen[0][2].values()] == [int, float, bool, str]


def test_notebooks_are_found_by_number_name_and_path(notebook):
    assert cli.find_notebook("13") == cli.find_notebook("13_textdiff") == notebook
    assert cli.find_notebook(str(notebook)) == notebook
    with pytest.raises(FileNotFoundError, match="there are 13_textdiff"):
        cli.find_notebook("1")
    with pytest.raises(FileNotFoundError, match="no notebook x.ipynb"):
        cli.find_notebook("x.ipynb")
    (notebook.parent / "13_other.ipynb").touch()
    with pytest.raises(ValueError, match="13_other, 13_textdiff"):
        cli.find_notebook("13")


@pytest.mark.parametrize("line", ["sizes = (1, 2)", "a = b = 1", "import os", "n = len('x')", "x = None"])
def test_parameters_are_scalars(tmp_path, line):
    path = write_notebook(tmp_path / "n.ipynb", line, "pass")
    with pytest.raises(ValueError, match="name = scalar"):
        cli.notebook_parameters(path)


def test_a_notebook_has_one_parameters_cell(tmp_path):
    path = tmp_path / "n.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), path)
    with pytest.raises(ValueError, match="has 0 cells tagged 'parameters'"):
        cli.notebook_parameters(path)
    path.write_text("not json")
    with pytest.raises(ValueError, match="is not a notebook"):
        cli.notebook_parameters(path)


def test_parameters_come_as_two_words_or_as_one():
    words = ["-p", "seed", "1", "--parameter", "mode=demo", "-p", "text", "a=b", "-p", "out_dir="]
    assert cli.read_pairs(words) == {"seed": "1", "mode": "demo", "text": "a=b", "out_dir": ""}
    for wrong in (["-p"], ["-p", "seed"], ["seed=1"], ["-p", "seed", "1", "2"]):
        with pytest.raises(ValueError, match="do not understand"):
            cli.read_pairs(wrong)


def test_an_unknown_config_class_is_named(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", "seed = 0", "pass", config="NoSuchConfig")
    with pytest.raises(ValueError, match="NoSuchConfig.*TextDiffConfig"):
        cli.notebook_config(path)


def test_a_failing_notebook_is_one_line_and_a_copy_to_look_at(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", "n = 0", "raise KeyError(f'n is {n}')")
    result = invoke("run", path, "-p", "n", 7, "--out", tmp_path / "o.ipynb")
    assert_one_line(result, "n.ipynb stopped: KeyError: 'n is 7'", str(tmp_path / "o.ipynb"))
    assert "n = 7" in (tmp_path / "o.ipynb").read_text()


def test_a_defect_of_the_program_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("textdiff.data.fetch.fetch", lambda *a, **k: {}["defect"])
    assert isinstance(invoke("fetch", "monuseg").exception, KeyError)


@pytest.fixture
def swept(monkeypatch, tmp_path):
    """Keeps what a sweep is asked for; its runs end as `ends` says."""
    from textdiff.experiments import sweep

    monkeypatch.setenv("TEXTDIFF_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(sweep, "published_dir", lambda: tmp_path / "published")
    seen = {"ends": "done"}

    def stand_in(planned, jobs, report):
        seen.update(planned=planned, jobs=jobs)
        return [sweep.Outcome(one, seen["ends"]) for one in planned]

    monkeypatch.setattr(sweep, "sweep", stand_in)
    return seen


SWEEP = ("sweep", "comparison", "-p", "dataset=nuclei_phantoms", "-p", "mode=demo", "--rows", "TextDiff")


def test_sweep_passes_on_what_it_is_given(swept):
    result = invoke(*SWEEP, "--seeds", "3,4", "--set", "iterations=7", "--set", "weight_decay=1e-4", "--jobs", 2)
    assert result.exit_code == 0, result.output
    assert "2 done, 0 skipped, 0 failed" in result.output and swept["jobs"] == 2
    configs = [one.config for one in swept["planned"]]
    assert [(c.seed, c.iterations, c.weight_decay, c.model) for c in configs] == [
        (3, 7, 1e-4, "textdiff"),
        (4, 7, 1e-4, "textdiff"),
    ]


def test_sweep_with_a_failed_run_ends_in_one(swept):
    swept["ends"] = "failed"
    result = invoke(*SWEEP)
    assert result.exit_code == 1
    assert f"failed: {swept['planned'][0].config.run_id}" in result.output


def test_a_stopped_sweep_says_how_to_go_on(swept, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("textdiff.experiments.sweep.sweep", stop)
    result = invoke(*SWEEP)
    assert result.exit_code == 130 and "goes on from here" in result.stderr


def test_a_dry_run_runs_nothing(swept):
    result = invoke(*SWEEP, "--dry-run")
    assert result.exit_code == 0 and "planned" not in swept
    assert "to run" in result.output and "papermill " in result.output and "-r model textdiff" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("comparson", "-p", "dataset=monuseg"), ["did you mean 'comparison'", "ablation"]),
        (("comparison",), ["-p dataset=", "monuseg, qata"]),
        (("comparison", "-p", "dataset=monuseg", "-p", "n_labels=3"), ["--set n_labels="]),
        (("comparison", "-p", "dataset=monuseg", "-p", "mode=ful"), ["mode='ful'", "demo, full"]),
        (("comparison", "-p", "monuseg"), ["'monuseg'", "NAME=VALUE"]),
        (("comparison", "-p", "dataset=qata", "-p", "dataset=monuseg"), ["given twice"]),
        (("comparison", "-p", "dataset=monuseg", "--rows", "TextDif"), ["Did you mean 'TextDiff'", "U-Net"]),
        (("comparison", "-p", "dataset=monuseg", "--seeds", ","), ["--seeds"]),
        (("comparison", "-p", "dataset=monuseg", "--seeds", "one"), ["'one'"]),
        (("comparison", "-p", "dataset=monuseg", "--set", "iteration=3"), ["Did you mean iterations?"]),
        (("comparison", "-p", "dataset=monuseg", "--set", "iterations=few"), ["whole number"]),
        (("comparison", "-p", "dataset=monuseg", "--set", "schedule=cosin"), ["schedule='cosin'", "constant"]),
    ],
)
def test_sweep_says_what_is_wrong(swept, words, said):
    assert_one_line(invoke("sweep", *words), *said)
    assert "planned" not in swept


def test_publish_says_what_it_did(monkeypatch):
    from textdiff.experiments.publish import Verdict

    asked = []

    def stand_in(*args):
        asked.append(args)
        return [Verdict("a-1", "published"), Verdict("b-2", "refused", "it is of a demo run")]

    monkeypatch.setattr("textdiff.experiments.publish.publish", stand_in)
    result = invoke("publish", "--all", "--allow-dirty")
    assert result.exit_code == 0 and asked == [([], True, True)]
    assert result.output.splitlines() == ["published  a-1", "refused    b-2: it is of a demo run"]
    assert invoke("publish", "a-1", "b-2").exit_code == 1


def test_publish_needs_to_be_told_what():
    assert_one_line(invoke("publish"), "run ids, or --all")
