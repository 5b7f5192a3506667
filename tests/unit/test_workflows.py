"""Files for GitHub: they can be read, name make's targets and files that exist, and one version stands everywhere."""

from __future__ import annotations

import hashlib
import re
import subprocess
from types import SimpleNamespace

import pytest
import release_files
import tomllib
import yaml
from notebook_cells import PLACEHOLDER, ROOT

import textdiff
from textdiff.data import fetch

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
# What a run makes before it names it
MADE = ("_build/", ".venv/", "fresh/", "dist")


def read(path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path) -> list[dict]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def test_there_are_four_of_them():
    assert [path.stem for path in WORKFLOWS] == ["book", "release", "tests", "weekly"]


@every_workflow
def test_a_workflow_says_when_what_it_may_and_for_how_long(path):
    workflow = read(path)
    assert workflow[True], "`on`, which YAML reads as true"
    assert "permissions" in workflow
    for name, job in workflow["jobs"].items():
        assert job["runs-on"] == "ubuntu-latest" and 0 < job["timeout-minutes"] <= 90, name
        assert job["steps"] and all(("run" in step) != ("uses" in step) for step in job["steps"]), name


@every_workflow
def test_actions_are_githubs_own_in_a_known_version(path):
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used and [name for name in used if not re.fullmatch(r"actions/[a-z-]+@(v\d+|[0-9a-f]{40})", name)] == []


@every_workflow
def test_what_a_workflow_runs_is_there(path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    code = "\n".join(step.get("run", "") for step in steps(path))
    wanted = {name for line in re.findall(r"^make ([a-z ]+)$", code, re.MULTILINE) for name in line.split()}
    assert wanted and wanted <= targets
    files = re.findall(r"(?<![\w./-])(?:tools|env|weights|notebooks|book)/[\w./-]*\w", code)
    assert [name for name in files if not (ROOT / name).exists()] == []
    numbers = re.findall(r"for number in ([\w ]+);", code)
    assert all(list((ROOT / "notebooks").glob(f"{one}_*.ipynb")) for line in numbers for one in line.split())
    kept = [
        step["with"][key]
        for step in steps(path)
        for key in ("path", "cache-dependency-path")
        if key in step.get("with", {})
    ]
    assert [name for name in kept if not name.startswith(MADE) and not list(ROOT.glob(name))] == []


@pytest.mark.parametrize(
    "name",
    [".github/dependabot.yml", ".pre-commit-config.yaml", "_config.yml", "_toc.yml", "CITATION.cff", "environment.yml"],
)
def test_other_settings_can_be_read(name):
    assert read(ROOT / name)


def test_hooks_before_a_commit_run_what_is_there():
    for hook in read(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]:
        assert all((ROOT / word).is_file() for word in hook["entry"].split() if word.endswith(".py"))


def test_one_version_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert read(ROOT / "CITATION.cff")["version"] == version == textdiff.__version__
    assert re.search(
        rf"^## \[{re.escape(version)}\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )


# --- a release -----------------------------------------------------------------------------------------


def step(workflow: str, words: str) -> str:
    """The code of a workflow's one step whose code holds these words."""
    (found,) = (one["run"] for one in steps(ROOT / f".github/workflows/{workflow}.yml") if words in one.get("run", ""))
    return found


def test_a_release_holds_under_its_name_and_hash_all_that_fetch_asks_for(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setenv("TEXTDIFF_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(fetch, "download", lambda url, to, sums, most: asked.update({url: sums["sha256"]}))
    monkeypatch.setattr(fetch, "swap", lambda stage, target: None)
    for name in fetch.released():
        fetch.fetch_release(name, "https://release", say=lambda text: None)
    uploaded = {f"https://release/{name}": path for name, path in release_files.weights_of_a_release().items()}
    assert asked and asked == {url: hashlib.sha256(path.read_bytes()).hexdigest() for url, path in uploaded.items()}
    assert "tools/release_files.py dist" in step("release", "dist/book.tar.gz")
    assert step("release", "gh release upload").strip() == 'gh release upload "$TAG" dist/* --clobber'


def test_the_weights_of_a_release_are_copied_beside_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(release_files, "released", lambda: {"monuseg_small": SimpleNamespace()})
    (tmp_path / "package.whl").touch()
    release_files.main(tmp_path)
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"package.whl", "LICENSES.md", "monuseg_small.config.json", "monuseg_small.model.safetensors"}


@pytest.mark.parametrize(
    ("left", "said"),
    [(PLACEHOLDER, "repository.url"), ("  - name: the textdiff authors", "name the authors"), ("", "")],
)
def test_a_release_with_a_placeholder_is_refused(tmp_path, left, said):
    first = steps(ROOT / ".github/workflows/release.yml")[2]["run"]
    for name in ("_config.yml", "pyproject.toml", "CITATION.cff"):
        text = (ROOT / name).read_text(encoding="utf-8").replace("github.com/OWNER/", "github.com/somebody/")
        (tmp_path / name).write_text(text.replace("name: the textdiff authors", "family-names: Somebody"))
    with (tmp_path / "CITATION.cff").open("a") as file:
        file.write(f"{left}\n")
    done = subprocess.run(["bash", "-e", "-c", first], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode == 1) == bool(said) and said in done.stdout


def test_a_wheel_shows_its_models_outside_the_checkout():
    left, _, outside = step("release", "pip wheel").partition('cd "$(mktemp -d)"')
    assert left and all(f'textdiff" example {name}_small --out' in outside for name in ("qata", "hippocampus"))


def test_the_package_names_the_licence_of_every_weight_that_it_holds():
    """As the card of each, the list of all and the package's own metadata say it."""
    listed = (ROOT / "weights/LICENSES.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {"MIT"}
    for card in sorted(ROOT.glob("weights/*/README.md")):
        licence = card.read_text(encoding="utf-8").partition("**Licence.**")[2]
        name = re.search(r"CC BY[A-Z-]* [\d.]+(?: IGO)?", licence)
        (row,) = (line for line in listed.split("\n") if line.startswith("|") and f"`{card.parent.name}`" in line)
        identifier = name[0].replace(" ", "-") if name else "MIT"
        assert f"(`{identifier}`)" in row and (name[0] if name else "as the code") in row, card
        found.add(identifier)
    assert set(project["license"].split(" AND ")) == found and "weights/LICENSES.md" in project["license-files"]
    assert "weights/LICENSES.md" in (ROOT / "env/Dockerfile").read_text(encoding="utf-8")


# --- once a week ---------------------------------------------------------------------------------------


def test_every_pin_is_audited_in_a_job_of_its_own(tmp_path):
    jobs = read(ROOT / ".github/workflows/weekly.yml")["jobs"]
    (audit,) = (
        [one["run"] for one in job["steps"] if "run" in one] for job in jobs.values() if "pip-audit" in str(job)
    )
    assert len(audit) == 2 and "--requirement all.txt" in audit[1]
    text = (ROOT / "env/requirements-cpu.txt").read_text(encoding="utf-8")
    (tmp_path / "env").mkdir()
    (tmp_path / "env/requirements-cpu.txt").write_text(text)
    subprocess.run(["bash", "-e", "-c", audit[0]], cwd=tmp_path, check=True)
    pins = re.findall(r"^(?:# no-deps: )?(\S+==\S+)$", text, re.MULTILINE)
    found = (tmp_path / "all.txt").read_text().split("\n")
    assert "timm" in text and set(pins) <= set(found)


def test_the_report_of_links_is_kept_from_where_jupyter_book_writes_it():
    (kept,) = (
        one["with"]
        for one in steps(ROOT / ".github/workflows/weekly.yml")
        if "links" == one.get("with", {}).get("name")
    )
    assert kept == {"name": "links", "path": "_build/links/_build/html/output.*"}
    assert "--path-output _build/links --builder linkcheck" in step("weekly", "linkcheck")


def test_the_newest_and_the_oldest_versions_are_tried():
    assert step("weekly", "make lock") == "make lock LATEST=1"
    assert "--resolution lowest-direct" in step("weekly", "uv pip install")


# --- what pages say ------------------------------------------------------------------------------------


def test_pages_install_a_clone_for_a_cluster_in_place():
    """Its jobs run the package in the clone; the planner must not have another copy."""
    pages = [path for pattern in ("*.md", "book/*.md", "book/*.ipynb", "workflow/*.md") for path in ROOT.glob(pattern)]
    found = [line for path in pages for line in path.read_text(encoding="utf-8").split("\n") if "[cluster]" in line]
    assert len(found) >= 4 and [line for line in found if "install -e '.[cluster]'" not in line] == []


def test_what_a_person_must_switch_on_is_listed():
    publishing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Publishing")[2]
    listed = re.findall(r"^\d\. (.*)", publishing, re.MULTILINE)
    assert "Four things are for a person" in publishing and len(listed) == 4
    for page, words in (("SECURITY.md", "Private vulnerability reporting"), ("CITATION.cff", "authors")):
        assert any(page in step and words in step for step in listed)
