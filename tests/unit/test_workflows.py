"""Files for GitHub: they can be read, name make's targets and files that exist, and one version stands everywhere."""

from __future__ import annotations

import re

import pytest
import tomllib
import yaml
from notebook_cells import ROOT

import textdiff

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
