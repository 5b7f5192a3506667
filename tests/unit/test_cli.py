"""The command line: what it passes on, and that every wrong input ends in one readable line and exit code 2."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import textdiff
from textdiff import cli, notebooks
from textdiff.base import paths
from textdiff.data.volumes.volume import Volume
from textdiff.experiments import publish, run, sweep
from textdiff.experiments.pages import DataConfig, VolumePredictConfig
from textdiff.experiments.publish import Verdict
from textdiff.models.diffusion import Sampling

LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
PARAMETERS = 'mode = "demo"\nn_labels = "auto"\nlearning_rate = "auto"\nnoise_steps = "auto"\n'


def invoke(*words: object):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def assert_one_line(result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    text = result.stderr
    assert text.startswith("textdiff: ") and text.count("\n") == 1 and "Traceback" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize("words", [(sys.executable, "-m", "textdiff"), (Path(sys.executable).with_name("textdiff"),)])
def test_the_version(words):
    done = subprocess.run([*words, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"textdiff {textdiff.__version__}\n", "")


def test_beside_a_clone_called_textdiff_the_package_is_found(tmp_path):
    """There, `import textdiff` was an empty namespace package although textdiff was installed."""
    pytest.importorskip("setuptools", "77")
    clone, site = tmp_path / "textdiff", tmp_path / "site"
    (clone / "textdiff").mkdir(parents=True)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "textdiff/__init__.py"):
        (clone / name).write_bytes((paths.PACKAGE.parent / name).read_bytes())
    code = {
        clone: f"from setuptools.build_meta import build_editable as build; build({str(site)!r})",
        site: "import glob, zipfile; zipfile.ZipFile(*glob.glob('*.whl')).extractall()",
        tmp_path: f"import site; site.addsitedir({str(site)!r}); import textdiff; print(textdiff.__version__)",
    }
    site.mkdir()
    for place, words in code.items():
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run([sys.executable, "-c", words], cwd=place, capture_output=True, text=True, env=plain)
        assert done.returncode == 0, done.stderr
    assert done.stdout == f"{textdiff.__version__}\n"


def disk_full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- predict -----------------------------------------------------------------------------------------------


@pytest.fixture
def model(monkeypatch) -> dict:
    """Stands in for a trained model; keeps what it was called with."""
    from textdiff import TextDiff

    calls = {}

    class Trained:
        class_names = ("background", "nuclei")

        def predict(self, image, text, strict=False):
            calls.update(image=image, text=text)
            return LABELS

    def from_pretrained(name, device):
        calls.update(name=name, device=device)
        return Trained()

    monkeypatch.setattr(TextDiff, "from_pretrained", staticmethod(from_pretrained))
    return calls


@pytest.mark.parametrize("fails", [False, True])
def test_predict_writes_the_labels_themselves_or_leaves_the_old_file(tmp_path, model, monkeypatch, fails):
    image, out = tmp_path / "slide.png", tmp_path / "o.png"
    Image.new("RGB", (4, 3)).save(image)
    out.write_bytes(b"old")
    if fails:
        monkeypatch.setattr("textdiff.base.files.os.replace", disk_full)
    words = ("--model", "m", "--image", image, "--text", "dense", "--out", out, "--device", "cpu", "--force")
    result = invoke("predict", *words)
    assert model == {"name": "m", "device": torch.device("cpu"), "image": image, "text": "dense"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.png", "slide.png"]
    if fails:
        assert_one_line(result, "o.png: No space left on device; free some space")
        assert out.read_bytes() == b"old"
    else:
        assert result.exit_code == 0, result.output
        with Image.open(out) as written:
            assert written.mode == "L" and np.array_equal(np.asarray(written), LABELS)


@pytest.mark.takes("Sentences", "a text without a word", "refused")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--image": "none.png"}, "no image file none.png"),
        ({"--out": "mask.jpg"}, "must end in .png"),
        ({"--out": "nowhere/mask.png"}, "no folder nowhere"),
        ({"--model": "no/such/model"}, "no/such/model"),
        ({"--steps": 3}, "--sampling-steps is of volumes"),
        ({"--overlap": 0.1}, "--overlap is of volumes"),
        ({"--uncertainty": "u.nii.gz"}, "--uncertainty is of volumes"),
        ({"--volume": "ct.nii.gz"}, "either --image FILE or --volume FILE"),
        ({"--device": "cuda:99"}, "device='cuda:99'"),
        ({"--series": "1"}, "--series is of volumes"),
        ({"--trust": "sform"}, "--trust is of volumes"),
        ({"--text": " "}, "--text is empty: give a sentence"),
        ({"--text": "?!"}, "has no words: give a sentence"),
        ({"--image": "ct.nii.gz"}, "ct.nii.gz is a volume: use --volume"),
        ({"--image": "slices"}, "it is a folder: of a volume's slices? use --volume"),
        ({"--out": "old.png"}, "old.png is there already: choose another name, or replace it with --force"),
        ({"--out": "linked.png"}, "would replace slide.png itself"),
        ({"--model": "abdomen_small"}, "use --volume"),
    ],
)
def test_predict_says_what_is_wrong(tmp_path, monkeypatch, changed, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Image.new("RGB", (4, 3)).save("slide.png")
    Path("linked.png").hardlink_to("slide.png")
    Path("slices").mkdir()
    for name in ("ct.nii.gz", "old.png"):
        Path(name).touch()
    options = {"--model": "m", "--image": "slide.png", "--text": "t", "--out": "mask.png"} | changed
    assert_one_line(invoke("predict", *(word for pair in options.items() for word in pair)), said)


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
    settings = {"--sampling-steps": 7, "--samples": 2, "--seed": 5, "--sampler": "ddpm", "--overlap": 0.25}
    result = predict_with({"--uncertainty": "u.nii", **settings})
    assert result.exit_code == 0, result.output
    asked = {"sampling": Sampling(7, "ddpm", 2, 5), "uncertainty": True, "progress": True, "overlap": 0.25}
    assert volume_model == {"name": "m", "device": torch.device("cpu"), "volume": ct, "text": "right kidney", **asked}
    image, mask, doubt = (nibabel.load(name) for name in (ct, "mask.nii.gz", "u.nii"))
    assert np.array_equal(np.asarray(mask.dataobj), 2 * (np.asarray(image.dataobj) > 50))
    assert mask.get_data_dtype() == np.uint8 and doubt.get_data_dtype() == np.float32
    assert np.array_equal(mask.affine, image.affine) and np.array_equal(doubt.affine, image.affine)
    assert 0 < doubt.get_fdata().min() < doubt.get_fdata().max() < 1
    assert result.stdout == "mask.nii.gz\n"
    comparison, reading, *said = result.stderr.splitlines()
    assert comparison.startswith("textdiff: the model does not say what its training was like")
    assert reading == "textdiff: asked for: right kidney"
    assert "textdiff: ct.nii.gz is 6 x 5 x 4 voxels, smaller than the model's window of 8 x 8 x 8" in said[0]
    assert said[1].startswith("textdiff: ct.nii.gz: 6 x 5 x 4 voxels of 0.8 x 0.8 x 2.5 mm in 1 window of 8 x 8 x 8")
    assert said[2:] == [
        "1 left kidney: 0.00 ml (0.00 to 0.00 in 2 samples)",
        "2 right kidney: 0.01 ml (0.01 to 0.01 in 2 samples)",
    ]


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX systems")
def test_a_mask_is_as_private_as_its_volume(ct, volume_model):
    ct.chmod(0o600)
    assert predict_with({"--uncertainty": "u.nii"}).exit_code == 0
    assert [Path(name).stat().st_mode & 0o777 for name in ("mask.nii.gz", "u.nii")] == [0o600, 0o600]


@pytest.mark.takes("DICOM SEG (output)", "--out mask.dcm for an image that is no DICOM series", "refused")
def test_a_name_that_ends_in_dcm_asks_for_a_dicom_object(ct, volume_model, monkeypatch):
    """Only of a DICOM series, not among its slices, and with what it takes to write one: all known before the model."""
    written = []
    monkeypatch.setitem(sys.modules, "textdiff.data.volumes.dicom", SimpleNamespace(is_dicom=Path.is_dir))
    seg = SimpleNamespace(need_highdicom=lambda path: None, write_dicom_seg=lambda *given: written.append(given))
    monkeypatch.setitem(sys.modules, "textdiff.data.volumes.dicom_seg", seg)
    assert_one_line(predict_with({"--out": "o.dcm"}), "belong to a DICOM series, and ct.nii.gz is none")
    Path("series").mkdir()
    assert_one_line(
        predict_with({"--volume": "series", "--out": "series/o.dcm"}), "would lie among the slices of series"
    )
    assert not volume_model
    monkeypatch.setattr(sys.modules["textdiff.data.volumes.dicom"], "is_dicom", lambda path: True)
    for name in ("1.dcm", "2.dcm"):
        Path("series", name).touch()
    assert_one_line(
        predict_with({"--volume": "series/1.dcm", "--out": "series/o.dcm"}), "would lie among the slices of series"
    )
    monkeypatch.setattr("textdiff.data.volumes.volume.read_image", lambda path, series: whole)
    whole = Volume(np.arange(120.0, dtype=np.float32).reshape(6, 5, 4), np.eye(4))
    result = predict_with({"--volume": "series", "--out": "o.dcm", "--series": "2"})
    assert result.exit_code == 0, result.output
    (out, labels, names, source, series) = written[0]
    assert (out, source, series) == (Path("o.dcm"), Path("series"), "2")
    assert labels.shape == whole.shape and names == ("background", "left kidney", "right kidney")


def test_predict_warns_in_one_line_of_a_text_about_nothing_known(ct, volume_model):
    result = predict_with({"--text": "the moon"})
    assert result.exit_code == 0
    said = "ct.nii.gz: the text 'the moon' names nothing that this model knows; it knows left kidney, right kidney"
    assert f"textdiff: {said}" in result.stderr.splitlines()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--image": "slide.png"}, "either --image FILE or --volume FILE"),
        ({"--volume": None}, "either --image FILE or --volume FILE"),
        ({"--volume": "none.nii.gz"}, "no volume none.nii.gz"),
        ({"--out": "mask.png"}, "--out must end in .nii, .nii.gz or .dcm; got mask.png"),
        ({"--out": "nowhere/mask.nii.gz"}, "no folder nowhere for --out"),
        ({"--out": "ct.nii.gz"}, "--out ct.nii.gz would replace ct.nii.gz itself"),
        ({"--uncertainty": "u.png"}, "--uncertainty must end in .nii"),
        ({"--uncertainty": "mask.nii.gz"}, "the same file mask.nii.gz"),
        ({"--steps": 0}, "sampling_steps=0: at least 1"),
        ({"--samples": 0}, "samples=0: at least 1"),
        ({"--sampler": "euler"}, "sampler='euler'"),
        ({"--text": ""}, "--text is empty: give a sentence"),
        ({"--trust": "both"}, "--trust both: sform or qform"),
        ({"--model": "chest_phantoms_small"}, "use --image"),
    ],
)
def test_predict_of_a_volume_says_what_is_wrong_before_it_loads_the_model(ct, volume_model, changed, said):
    assert_one_line(predict_with(changed), said)
    assert not volume_model and [path.name for path in Path().iterdir()] == ["ct.nii.gz"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [({}, "ct.nii.gz"), ({"--overlap": 1}, "overlap=1.0"), ({"--volume": "series"}, "series")],
)
def test_predict_of_what_cannot_be_segmented_writes_nothing(ct, volume_model, changed, said):
    ct.write_bytes(ct.read_bytes()[:100])
    Path("series").mkdir()  # of DICOM slices, but there are none
    assert_one_line(predict_with(changed), said)
    assert sorted(path.name for path in Path().iterdir()) == ["ct.nii.gz", "series"]


def test_predict_with_a_full_disk_leaves_the_old_files_and_no_rest(ct, volume_model, monkeypatch):
    Path("mask.nii.gz").write_bytes(b"old")
    monkeypatch.setattr("textdiff.base.files.os.replace", disk_full)
    words = [word for pair in (VOLUME | {"--uncertainty": "u.nii.gz"}).items() for word in pair]
    result = invoke("predict", *words, "--force")
    assert result.exit_code == 2
    assert (
        result.stderr.splitlines()[-1]
        == "textdiff: u.nii.gz: No space left on device; free some space, or write elsewhere"
    )
    assert Path("mask.nii.gz").read_bytes() == b"old"
    assert sorted(path.name for path in Path().iterdir()) == ["ct.nii.gz", "mask.nii.gz"]


@pytest.mark.takes("Model files", "a model of volumes for a picture, and the other way round", "refused")
def test_predict_says_which_input_a_model_is_for(ct, volume_model):
    for folder, kind in (("flat", "TextDiff"), ("solid", "TextDiffSeg")):
        Path(folder).mkdir()
        Path(folder, "config.json").write_text(json.dumps({"kind": kind}))
    Image.new("RGB", (4, 3)).save("slide.png")
    assert_one_line(predict_with({"--model": "flat"}), "flat", "use --image")
    changed = {"--model": "solid", "--volume": None, "--image": "slide.png", "--out": "o.png"}
    assert_one_line(predict_with(changed), "solid", "use --volume")


def test_the_mask_is_written_as_the_image_is_stored(tmp_path, model):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (3, 4)).save(tmp_path / "slide.jpg", exif=exif)  # upright 4 x 3 pixels wide and high
    words = ("--model", "m", "--image", tmp_path / "slide.jpg", "--text", "dense", "--out", tmp_path / "o.png")
    assert invoke("predict", *words).exit_code == 0
    with Image.open(tmp_path / "o.png") as written:
        assert written.getexif()[0x112] == 6 and np.array_equal(np.rot90(np.asarray(written), -1), LABELS)


# --- fetch, run, train -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "place"), [("monuseg", paths.data_dir), ("openai_256", paths.weights_dir)])
def test_fetch_passes_on_what_it_is_given(monkeypatch, tmp_path, name, place):
    seen = {}
    for variable in ("TEXTDIFF_DATA", "TEXTDIFF_WEIGHTS"):
        monkeypatch.setenv(variable, "elsewhere")
    monkeypatch.setattr("textdiff.data.fetch.fetch", lambda name, **more: seen.update(name=name, **more) or "done")
    result = invoke("fetch", name, "--source", "a.zip", "--root", tmp_path, "--as-recorded")
    assert result.exit_code == 0 and "done" in result.output
    passed = {"name": name, "source": Path("a.zip"), "force": False, "as_recorded": True}
    assert seen == passed and place() == tmp_path


def test_fetch_of_an_unknown_name():
    assert_one_line(invoke("fetch", "monuseq"), "monuseq", "monuseg, qata")


def write_notebook(path: Path, parameters: str, code: str, config: str | None = None) -> Path:
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(code)]
    metadata = {"textdiff": {"config": config}} if config else {}
    metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


@pytest.fixture
def notebook(tmp_path) -> Path:
    return write_notebook(tmp_path / "13.ipynb", PARAMETERS, "pass", config="TextDiffConfig")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-p", "steps", 50), "parameter 'steps' is called 'noise_steps' now"),
        (("-p", "n_labels", "many"), "n_labels must be a whole number"),
        (("-p", "n_labels", -3), "n_labels=-3: at least 1"),
        (("-p", "n_labels", 1, "-p", "n_labels=2"), "n_labels is given twice"),
        (("-p", "n_labels"), "-p NAME VALUE"),
        (("--n_labels", 5), "-p NAME VALUE"),
    ],
)
def test_run_checks_before_it_starts(notebook, monkeypatch, words, said):
    monkeypatch.setattr(notebooks, "execute_notebook", lambda *a: pytest.fail("it was started"))
    assert_one_line(invoke("run", notebook, *words), said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "copy.txt"), "--out must end in .ipynb; got copy.txt"),
        (("--out", "old.ipynb"), "old.ipynb is there already: choose another name, or replace it with --force"),
        (("--out", "13.ipynb", "--force"), "would replace"),
        (("--out", "old.ipynb", "--force"), "old.ipynb is there and no executed copy of 13.ipynb"),
        (("--out", "12.ipynb", "--force"), "12.ipynb is there and no executed copy of 13.ipynb"),
        (("-p", "dataset=monuseg"), "data set 'monuseg' not found"),
        (("-p", "text_encoder=/nope"), "no text encoder folder at /nope"),
        (("-p", "image_size=98"), "the nearest is 96"),
    ],
)
def test_run_looks_for_what_it_needs_before_it_starts(notebook, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEXTDIFF_DATA", str(tmp_path))
    monkeypatch.setattr(notebooks, "execute_notebook", lambda *a: pytest.fail("it was started"))
    Path("old.ipynb").touch()
    write_notebook(Path("12.ipynb"), "n = 0", "pass")
    parameters = PARAMETERS + 'dataset = "nuclei_phantoms"\ntext_encoder = "auto"\nimage_size = "auto"\n'
    write_notebook(notebook, parameters, "pass", config="TextDiffConfig")
    assert_one_line(invoke("run", notebook, *words), said)
    assert sorted(path.name for path in Path().iterdir()) == ["12.ipynb", "13.ipynb", "old.ipynb"]


@pytest.mark.parametrize("module", ["nbformat", "papermill"])
def test_run_without_the_extra_says_which(notebook, monkeypatch, tmp_path, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert_one_line(invoke("run", notebook, "--out", tmp_path / "o.ipynb"), "pip install 'textdiff[book]'")


def test_run_passes_typed_values_on(notebook, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(notebooks, "execute_notebook", lambda *a: seen.append(a))
    out = tmp_path / "new" / "o.ipynb"
    result = invoke(
        "run", notebook, "-p", "n_labels", 3, "-p", "learning_rate=1e-4", "-p", "mode", "full", "--out", out
    )
    assert result.exit_code == 0, result.output
    assert seen == [(notebook, out, {"n_labels": 3, "learning_rate": 1e-4, "mode": "full"})]


def test_copies_of_runs_that_differ_do_not_share_a_file(notebook, monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTDIFF_RESULTS", str(tmp_path))
    plain, seen = write_notebook(tmp_path / "n.ipynb", "n = 0", "pass"), []
    monkeypatch.setattr(notebooks, "execute_notebook", lambda path, out, values: seen.append(out.name))
    for one, word in ((notebook, "n_labels"), (plain, "n")):
        for value in (1, 2, 1):
            assert invoke("run", one, "-p", word, value).exit_code == 0
    assert seen[0] == seen[2] and seen[3] == seen[5] and len(set(seen)) == 4
    assert all(name.startswith(("13-", "n-")) for name in seen)


def test_an_earlier_copy_is_replaced_and_stays_until_there_is_a_new_one(tmp_path, monkeypatch):
    path = write_notebook(tmp_path / "n.ipynb", "n = 0", "print(n + 1)")
    assert invoke("run", path, "--out", (out := tmp_path / "o.ipynb")).exit_code == 0
    before = out.read_bytes()
    assert_one_line(invoke("run", path, "-p", "n", 5, "--out", out), "is there already")

    with monkeypatch.context() as patched:
        patched.setattr(
            "papermill.execute_notebook", lambda *a, **k: pytest.fail("written over") if a[1] == out else None
        )
        assert invoke("run", path, "-p", "n", 5, "--out", out, "--force").exit_code == 0
    assert out.read_bytes() == before
    assert invoke("run", path, "-p", "n", 5, "--out", out, "--force").exit_code == 0
    assert "n = 5" in out.read_text() and sorted(tmp_path.glob(".*")) == []


def test_a_failing_notebook_is_one_line_and_a_copy_to_look_at(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", "n = 0", "raise KeyError(f'n is {n}')")
    result = invoke("run", path, "-p", "n", 7, "--out", tmp_path / "o.ipynb")
    assert_one_line(result, "n.ipynb stopped: KeyError: 'n is 7'", str(tmp_path / "o.ipynb"))
    assert "n = 7" in (tmp_path / "o.ipynb").read_text()


def test_a_kernel_that_dies_is_one_line_and_a_copy_to_look_at(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", "n = 0", "import os; os._exit(137)")
    result = invoke("run", path, "-p", "n", 7, "--out", tmp_path / "o.ipynb")
    assert_one_line(result, "n.ipynb stopped: its kernel died: killed, or memory ran short", str(tmp_path / "o.ipynb"))
    assert "unexpected" not in result.output and "n = 7" in (tmp_path / "o.ipynb").read_text()


def test_copies_for_two_files_of_one_name_do_not_share_a_file(monkeypatch, tmp_path):
    path = notebooks.find_notebook("28")
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ct.nii.gz").touch()
    one, other = (notebooks.copy_name(path, {"volume": str(tmp_path / place / "ct.nii.gz")}) for place in "ab")
    monkeypatch.chdir(tmp_path / "a")
    assert one != other and notebooks.copy_name(path, {"volume": "ct.nii.gz"}) == one
    assert notebooks.copy_name(path, {}) == f"{path.stem}-{VolumePredictConfig.from_params().run_id}.ipynb"


def test_parameters_come_as_two_words_or_as_one():
    words = ["-p", "seed", "1", "--parameter", "mode=demo", "-p", "text", "a=b", "-p", "out_dir="]
    assert cli.read_pairs(words) == {"seed": "1", "mode": "demo", "text": "a=b", "out_dir": ""}
    for wrong in (["-p"], ["-p", "seed"], ["seed=1"], ["-p", "seed", "1", "2"]):
        with pytest.raises(ValueError, match="do not understand"):
            cli.read_pairs(wrong)


def test_train_makes_the_run_of_a_file(monkeypatch, tmp_path):
    config = DataConfig.from_params(seed=3)
    (tmp_path / "run.json").write_text(json.dumps(config.to_record()))
    monkeypatch.setattr(run, "make_run", lambda config, out: run.Run.open(config, out))
    result = invoke("train", "--config", tmp_path / "run.json", "--out-dir", tmp_path)
    assert result.exit_code == 0 and result.stdout == f"{tmp_path / 'data' / config.run_id}\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "run.json"),
        ("{", "run.json is damaged"),
        ("[]", "holds a list where an object was expected"),
        ("{}", "run.json says no experiment: one of data, pretraining"),
        ('{"experiment": "data", "seed": -1}', "seed=-1: at least 0"),
        ('{"experiment": "data", "seed": 1.5}', "seed=1.5 is float"),
        ('{"experiment": "textdiff2d", "steps": "50"}', "'steps' is called 'noise_steps' now"),
        ('{"experiment": "textdiff2d", "backbone_weights": "0123"}', "has other weights here"),
        ('{"experiment": "data"}', "DataConfig describes no run"),
    ],
)
def test_train_says_what_is_wrong(tmp_path, content, said):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    assert_one_line(invoke("train", "--config", path), said)


@pytest.mark.parametrize("words", [("fetch", "monuseg", "--debug"), ("--debug", "fetch", "monuseg")])
def test_a_defect_of_the_program_is_a_line_too_and_a_traceback_for_those_who_ask(monkeypatch, words):
    monkeypatch.setattr("textdiff.data.fetch.fetch", lambda *a, **k: {}["defect"])
    assert_one_line(invoke("fetch", "monuseg"), "unexpected KeyError: 'defect'", "--debug shows where")
    result = invoke(*words)
    assert result.exit_code == 2 and "Traceback" in result.stderr and "unexpected KeyError" in result.stderr
    monkeypatch.setenv("TEXTDIFF_DEBUG", "1")
    assert "Traceback" in invoke("fetch", "monuseg").stderr


def test_every_command_has_the_option():
    for name in ("fetch", "predict", "run", "train", "sweep", "publish"):
        assert "--debug" in invoke(name, "--help").output


# --- sweep, publish ----------------------------------------------------------------------------------------


@pytest.fixture
def swept(monkeypatch, tmp_path):
    """Keeps what a sweep is asked for; its runs end as `ends` says."""
    monkeypatch.setenv("TEXTDIFF_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(sweep, "published_dir", lambda: tmp_path / "published")
    monkeypatch.setattr(cli, "_end_as_ctrl_c", lambda *names: None)  # the tests' own process
    seen = {"ends": "done"}

    def stand_in(planned, jobs, report, retries, table):
        seen.update(planned=planned, jobs=jobs, retries=retries, table=table)
        if seen["ends"] == "stopped":
            raise KeyboardInterrupt
        return [sweep.Outcome(one, seen["ends"]) for one in planned]

    monkeypatch.setattr(sweep, "sweep", stand_in)
    return seen


SWEEP = ("sweep", "comparison", "-p", "dataset=nuclei_phantoms", "--rows", "TextDiff")


def test_sweep_passes_on_what_it_is_given(swept):
    result = invoke(
        *SWEEP, "--seeds", "3,4", "--set", "iterations=7", "--set", "weight_decay=1e-4", "--jobs", 2, "--retries", 3
    )
    assert result.exit_code == 0, result.output
    assert "2 done, 0 skipped, 0 failed" in result.output and (swept["jobs"], swept["retries"]) == (2, 3)
    assert swept["table"].parent.name == "tables" and str(swept["table"]) in result.output
    assert re.fullmatch(r"comparison-nuclei_phantoms-[0-9a-f]{8}\.csv", swept["table"].name), (
        "other runs than the whole"
    )
    configs = [one.config for one in swept["planned"]]
    assert [(c.seed, c.iterations, c.weight_decay, c.model) for c in configs] == [
        (3, 7, 1e-4, "textdiff"),
        (4, 7, 1e-4, "textdiff"),
    ]


def test_sweep_with_a_failed_run_ends_in_one(swept):
    swept["ends"] = "failed"
    result = invoke(*SWEEP)
    assert result.exit_code == 1 and swept["retries"] == 1
    assert f"failed: {swept['planned'][0].config.run_id}" in result.output and "again:  textdiff train" in result.output


def test_sweep_looks_for_what_all_runs_read_first(swept, monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTDIFF_DATA", str(tmp_path / "nowhere"))
    result = invoke("sweep", "ablation", "-p", "dataset=monuseg")
    assert result.exit_code == 2 and "fetch monuseg" in result.stderr and "planned" not in swept


def test_a_stopped_sweep_says_how_to_go_on(swept):
    swept["ends"] = "stopped"
    result = invoke(*SWEEP)
    assert result.exit_code == 130 and "goes on from here" in result.stderr


@pytest.mark.parametrize(("grid", "runs"), [("comparison", 105), ("label_efficiency", 100)])
def test_a_dry_run_lists_the_runs(swept, grid, runs):
    result = invoke("sweep", grid, "-p", "dataset=monuseg", "--dry-run")
    lines = result.output.splitlines()
    assert result.exit_code == 0 and "planned" not in swept and len(lines) == runs + 2
    assert lines[-1] == f"{runs} runs: 0 recorded, 0 published, {runs} to run"
    assert all(line.startswith("to run ") and "monuseg-" in line for line in lines[1:-1])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("comparson", "-p", "dataset=monuseg"), ["did you mean 'comparison'", "ablation"]),
        (("comparison",), ["-p dataset=", "monuseg, qata"]),
        (("comparison", "-p", "dataset=hippocampus"), ["about images, and hippocampus holds volumes"]),
        (("comparison", "-p", "dataset=monuseg", "-p", "n_labels=3"), ["--set NAME=VALUE"]),
        (("comparison", "-p", "monuseg"), ["'monuseg'", "NAME=VALUE"]),
        (("comparison", "-p", "dataset=qata", "-p", "dataset=monuseg"), ["given twice"]),
        (("comparison", "-p", "dataset=monuseg", "--rows", "TextDif"), ["did you mean 'TextDiff'", "U-Net"]),
        (("comparison", "-p", "dataset=monuseg", "--seeds", ","), ["--seeds"]),
        (("comparison", "-p", "dataset=monuseg", "--seeds", "one"), ["'one'"]),
        (("comparison", "-p", "dataset=monuseg", "--set", "iteration=3"), ["did you mean 'iterations'"]),
        (("comparison", "-p", "dataset=monuseg", "--set", "steps=50"), ["called 'noise_steps' now"]),
        (("comparison", "-p", "dataset=monuseg", "--set", "iterations=few"), ["whole number"]),
        (("comparison", "-p", "dataset=monuseg", "--set", "iterations=-1"), ["iterations=-1: at least 1"]),
        (("comparison", "-p", "dataset=monuseg", "--set", "lr_schedule=cosin"), ["'cosin'", "constant"]),
        (("comparison", "-p", "dataset=monuseg", "--set", "model=unet"), ["differ in model"]),
        (("comparison", "-p", "dataset=monuseg", "--set", "mode=demo"), ["all are in full mode"]),
        (("comparison", "-p", "dataset=monuseg", "--set", "backbone_weights=0"), ["unknown parameter"]),
    ],
)
def test_sweep_says_what_is_wrong(swept, words, said):
    assert_one_line(invoke("sweep", *words), *said)
    assert "planned" not in swept


def test_publish_says_what_it_did(monkeypatch):
    asked = []

    def stand_in(*args):
        asked.append(args)
        return [Verdict("a-1", "published"), Verdict("b-2", "refused", "it is of a demo run")]

    monkeypatch.setattr(publish, "publish", stand_in)
    result = invoke("publish", "--all", "--allow-dirty")
    assert result.exit_code == 0 and asked == [([], True, True)]
    assert result.output.splitlines() == ["published  a-1", "refused    b-2: it is of a demo run"]
    assert invoke("publish", "a-1", "b-2").exit_code == 1


def test_publish_of_nothing_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTDIFF_RESULTS", str(tmp_path))
    monkeypatch.setattr(publish, "publish", lambda *args: [])
    assert f"no finished record in {tmp_path}" in invoke("publish", "--all").stderr


def test_publish_needs_to_be_told_what():
    assert_one_line(invoke("publish"), "run ids, or --all")
