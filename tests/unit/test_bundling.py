"""A bundle: what runs on a machine without network, from its folder alone; whole, checked and going on where it was stopped."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from textdiff import bundling, cli
from textdiff.base import paths
from textdiff.bundling import Parts

ROOT = Path(__file__).resolve().parents[2]
RUN = ["comparison", "-p", "dataset=chest_phantoms", "--rows", "U-Net", "--seeds", "0"]
SHORT = ["--set", "iterations=1", "--set", "image_size=32"]
ALONE = ["unshare", "--map-root-user", "--net"]  # a network with nobody in it


def can_be_alone():
    return bool(shutil.which("unshare")) and subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 35])
def test_parts_are_the_whole_in_pieces_with_their_sums(tmp_path, length):
    data = bytes(range(length))
    with Parts(tmp_path / "b", 10) as parts:
        parts.write(data[:3])
        parts.write(data[3:])
    files = sorted(tmp_path.iterdir())
    assert b"".join(file.read_bytes() for file in files) == data
    assert all(file.stat().st_size <= 10 for file in files) and len(files) == max(1, -(-length // 10))
    assert parts.sums == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A clone of the last commit: a bundle is of a commit."""
    place = tmp_path_factory.mktemp("clone") / "textdiff"
    done = subprocess.run(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(place)], capture_output=True)
    if done.returncode:
        pytest.skip(f"this folder is no git checkout: {done.stderr.decode()}")
    return place


def command(checkout, *words, **more):
    env = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    asked = [sys.executable, "-m", "textdiff", "bundle", *map(str, words)]
    return subprocess.run(asked, cwd=checkout, env=env, capture_output=True, text=True, **more)


@pytest.fixture(scope="module")
def bundle(checkout, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "packed"
    done = command(checkout, *RUN, *SHORT, "--part-mb", 40, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def run_here(folder, home):
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    words = [*(ALONE if can_be_alone() else []), "bash", str(folder / "run_here.sh")]
    return subprocess.run(words, env=env, cwd=home, capture_output=True, text=True, timeout=600)


def test_a_bundle_runs_from_its_folder_alone_and_goes_on(bundle, checkout, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "on the node")
    done = run_here(folder, tmp_path)
    assert done.returncode == 0 and "1 done" in done.stdout, done.stdout + done.stderr
    again = run_here(folder, tmp_path)
    assert again.returncode == 0 and "1 recorded" in again.stdout and "checking" not in again.stderr
    with tarfile.open(folder / "records.tar.gz") as packed:
        packed.extractall(tmp_path / "results", filter="data")
    (record,) = (tmp_path / "results").glob("runs/textdiff2d/chest_phantoms-unet-*")
    about = json.loads((record / "env.json").read_text())
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True).stdout.strip()
    assert (about["commit"], about["dirty"]) == (head, False)


def test_the_package_of_a_bundle_is_the_commits_and_nothing_that_an_earlier_build_left(checkout, tmp_path):
    stale = checkout / "build" / "lib" / "textdiff" / "gone.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    (wheel,) = bundling._code(checkout, tmp_path)["code"].iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert "textdiff/cli.py" in names and "textdiff/gone.py" not in names
    assert [path.name for path in (checkout / "build").iterdir()] == ["lib"]
    shutil.rmtree(checkout / "build")


def test_parts_are_joined_in_the_order_of_their_list(tmp_path):
    """Beside what a copying program left, and more parts than three digits count; one that runs nothing stands in for python."""
    (tmp_path / "sweep.txt").write_text("".join(f"word {n}\n" for n in range(100_000)))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "package.whl").touch()
    node = tmp_path / "node"
    node.mkdir()
    sums = bundling._pack(
        {n: tmp_path / n for n in ("code", "sweep.txt")}, node / "bundle.tar", 1000, lambda text: None
    )
    assert len(sums) > 1000
    (node / "SHA256SUMS").write_text("".join(f"{found}  {name}\n" for name, found in sums.items()))
    shutil.copyfile(node / "bundle.tar.003", node / "bundle.tar.003 (copy)")
    shutil.copyfile(paths.assets_dir() / "run_here.sh", node / "run_here.sh")
    (node / "work" / "site").mkdir(parents=True)
    words = {**os.environ, "PYTHON": "true"}
    done = subprocess.run(["bash", node / "run_here.sh"], env=words, capture_output=True, text=True)
    assert (node / "work" / "content" / "sweep.txt").read_bytes() == (tmp_path / "sweep.txt").read_bytes(), done.stderr


def test_two_that_start_at_once_prepare_one_after_the_other(bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "node")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    words = ["bash", folder / "run_here.sh"]
    started = [subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    said = [one.communicate(timeout=600)[0].decode() for one in started]
    assert [one.returncode for one in started] == [0, 0], said
    assert sum("checking" in one for one in said) == 1
    assert not list(folder.glob(".records*"))


@pytest.mark.parametrize("harm", ["flip", "remove"])
def test_a_damaged_part_is_found_before_anything_is_unpacked(bundle, tmp_path, harm):
    folder = shutil.copytree(bundle, tmp_path / "node")
    part = folder / "bundle.tar.001"
    if harm == "flip":
        content = bytearray(part.read_bytes())
        content[1000] ^= 1
        part.write_bytes(content)
    else:
        part.unlink()
    done = run_here(folder, tmp_path)
    assert done.returncode == 2 and "copy it again" in done.stderr and not (folder / "work" / "content").exists()


def test_a_bundle_is_of_a_commit_and_of_runs_to_make(checkout, tmp_path):
    (checkout / "new file.txt").write_text("no commit holds this")
    done = command(checkout, *RUN, *SHORT, "--out", tmp_path / "b")
    (checkout / "new file.txt").unlink()
    assert done.returncode == 2 and ("(new file.txt, ...)" in done.stderr) and "commit them first" in done.stderr
    done = command(
        checkout, "comparison", "-p", "dataset=qata", "--rows", "U-Net", "--seeds", "0", "--out", tmp_path / "b"
    )
    assert done.returncode == 2 and "nothing to pack" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--part-mb", "0"], "--part-mb 0: at least 1"),
        (["--wheels", "nowhere"], "--wheels nowhere: a folder of wheels"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, words, said):
    monkeypatch.setattr(bundling, "_check_commit", lambda root: None)
    monkeypatch.setattr(bundling, "_code", lambda root, folder: {})
    result = CliRunner().invoke(cli.app, ["bundle", *RUN, *SHORT, "--out", str(tmp_path / "b"), *words])
    assert result.exit_code == 2 and said in result.stderr and not list(tmp_path.iterdir())


def test_data_and_weights_of_rows_are_packed_under_the_names_that_rows_use(tmp_path, monkeypatch):
    """Real names, little files: what a row reads is found by the same code that checks a run's inputs."""
    for name, place in (("TEXTDIFF_DATA", "data"), ("TEXTDIFF_WEIGHTS", "weights")):
        monkeypatch.setenv(name, str(tmp_path / place))
    (tmp_path / "data" / "MoNuSeg").mkdir(parents=True)
    (tmp_path / "data" / "MoNuSeg" / "a.txt").write_text("one")
    (tmp_path / "data" / "MoNuSeg" / ".hidden").write_text("two")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "tf_efficientnet_lite2.safetensors").write_bytes(b"three")
    rows = "U-Net,TextDiff, ImageNet network (EfficientNet-Lite2)"
    planned = [one for one in bundling_plan("monuseg", rows) if one.state == "to run"]
    members = dict(bundling._inputs(planned))
    assert members == {
        "data/MoNuSeg": tmp_path / "data" / "MoNuSeg",
        "weights/tf_efficientnet_lite2.safetensors": tmp_path / "weights" / "tf_efficientnet_lite2.safetensors",
    }
    bundling._pack(members, tmp_path / "b.tar", 10**6, lambda line: None)
    with tarfile.open(tmp_path / "b.tar.000") as packed:
        files = [member.name for member in packed if member.isfile()]
    assert files == ["data/MoNuSeg/a.txt", "weights/tf_efficientnet_lite2.safetensors"]


def test_records_and_the_own_registry_are_packed(tmp_path, monkeypatch):
    """On the node, whose results are empty, what is made here would be made again, and its data set would be unknown."""
    monkeypatch.setenv("TEXTDIFF_RESULTS", str(tmp_path / "results"))
    entry = {"kind": "images", "layout": "lvit", "class_names": ["background", "lesion"], "licence": "mine"}
    (tmp_path / "own.json").write_text(json.dumps({"datasets": {"mine": entry}}))
    monkeypatch.setenv("TEXTDIFF_REGISTRY", str(tmp_path / "own.json"))
    first, second = bundling_plan("mine", "U-Net,TextDiff")
    folder = tmp_path / "results" / first.config.experiment / first.config.run_id
    members = bundling._recorded([replace(first, state="recorded"), second])
    assert members == {f"records/textdiff2d/{first.config.run_id}": folder, "registry.json": tmp_path / "own.json"}


@pytest.mark.parametrize("name", ["../enc", "~/enc", "/enc"])
def test_weights_that_would_lie_outside_the_bundle_are_refused(tmp_path, monkeypatch, name):
    one = SimpleNamespace(config=SimpleNamespace(inputs=lambda: {"text_encoder": tmp_path}, text_encoder=name))
    with pytest.raises(ValueError, match="in a bundle weights have a name; put the folder into"):
        dict(bundling._inputs([one]))


def bundling_plan(dataset, rows):
    from textdiff.experiments.sweep import plan

    return plan(cli.read_grid("comparison", {"dataset": dataset}, "3", rows))


def test_the_script_is_the_one_that_is_packed(bundle):
    assert (bundle / "run_here.sh").read_bytes() == (paths.assets_dir() / "run_here.sh").read_bytes()
    assert subprocess.run(["bash", "-n", str(bundle / "run_here.sh")]).returncode == 0
