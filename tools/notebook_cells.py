"""What is generated in every notebook: _config.yml and the config classes come in, refreshed notebooks go out.

    python tools/notebook_cells.py            # write them
    python tools/notebook_cells.py --check    # change nothing, fail when one is out of date

Generated are the badge (a line of the first markdown cell), the setup cell (tag "setup", right below), and in the
parameters cell the lists of choices after `# @param`. Outputs and execution counts are removed on the way, because
notebooks are committed without them. Every other file that names the repository (`FOLLOWING`) gets the address of
_config.yml too, in the place of the one that pyproject.toml has, or of `PLACEHOLDER`.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
BADGE_IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"
BADGE_START = "[![Open in Colab]("
PLACEHOLDER = "https://github.com/OWNER/textdiff"
FOLLOWING = ("*.md", "CITATION.cff", "book/**/*.md", "book/*.ipynb", "weights/*/*.md", ".github/**/*.yml")
Choices = Mapping[str, tuple[str, ...]]

SETUP = """\
from importlib.util import find_spec

if not getattr(find_spec("textdiff"), "origin", None):  # in Colab; {kept} stay
    %pip list --format freeze | grep -E "^({pattern})=" > kept.txt
    %pip install -q -c kept.txt "textdiff @ git+{url}@{branch}"
%load_ext textdiff.colab"""


def setting(root: Path) -> tuple[str, str]:
    """Address and branch of the repository as _config.yml has them."""
    repository = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]
    return repository["url"].rstrip("/").removesuffix(".git"), repository["branch"]


def badge(root: Path, notebook: Path) -> str:
    """The badge's markdown line for one notebook."""
    url, branch = setting(root)
    page = f"{urlsplit(url).path}/blob/{branch}/{notebook.relative_to(root).as_posix()}"
    return f"{BADGE_START}{BADGE_IMAGE})](https://colab.research.google.com/github{page})"


def setup_code(root: Path) -> str:
    """Source of the setup cell; what Colab must keep is listed in env/colab-constraints.txt."""
    url, branch = setting(root)
    lines = (root / "env/colab-constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    return SETUP.format(url=url, branch=branch, kept=" and ".join(kept), pattern="|".join(kept))


def choices_of(config: str) -> Choices:
    """Field names of a config class, given by its name, with the values that each may take."""
    import textdiff.notebooks
    from textdiff.experiments.catalogue import CONFIGS

    return textdiff.notebooks.choices_of(CONFIGS[config])


def with_choices(source: str, choices: Choices) -> str:
    """The source of a parameters cell with the lists that its `# @param` comments should have."""
    lines = []
    for line in source.split("\n"):
        found = re.match(r"(\w+) *=.*?  # @param", line)
        if found and found.group(1) in choices:
            line = f"{found.group()} {json.dumps(list(choices[found.group(1)]), ensure_ascii=False)}"
        lines.append(line)
    return "\n".join(lines)


def refreshed(root: Path, path: Path, choices: Callable[[str], Choices]) -> nbformat.NotebookNode:
    """The notebook with its badge, its setup cell, the lists of its parameters and no outputs.

    Raises ValueError where the first cell is no title cell.
    """
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        raise ValueError(f"{path.relative_to(root)}: the first cell must be markdown and start with '# ' and a title")

    lines = first.source.split("\n")
    old = [i for i, line in enumerate(lines) if line.startswith(BADGE_START)]
    if old:
        lines[old[0]] = badge(root, path)
    else:
        lines += ["", badge(root, path)]
    first.source = "\n".join(lines)

    setup = [cell for cell in notebook.cells if "setup" in cell.metadata.get("tags", [])]
    if not setup:
        setup = [nbformat.v4.new_code_cell(id="setup", metadata={"tags": ["setup", "hide-input"]})]
        notebook.cells.insert(1, setup[0])
    setup[0].source = setup_code(root)

    config = notebook.metadata.get("textdiff", {}).get("config")
    for cell in notebook.cells:
        if config and "parameters" in cell.metadata.get("tags", []):
            cell.source = with_choices(cell.source, choices(config))
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
            cell.metadata.pop("papermill", None)
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    return notebook


def with_address(root: Path, text: str) -> str:
    """The text with the address that _config.yml has, wherever it has the former one or the placeholder."""
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    former = re.findall(r'^Repository = "([^"]*)"', project, flags=re.MULTILINE)
    names = "|".join(map(re.escape, {*former, PLACEHOLDER}))
    return re.sub(rf"({names})(?![\w-])", lambda _: setting(root)[0], text)


def notebooks(root: Path) -> list[Path]:
    """The committed notebooks that follow the house layout."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def main(root: Path, check: bool, choices: Callable[[str], Choices] = choices_of) -> list[str]:
    """Refresh (or check) all that is generated; returns the names of the files that were out of date.

    `choices`: from the name of a config class to the values that its fields may take.
    """
    wanted = {path: nbformat.writes(refreshed(root, path, choices)) + "\n" for path in notebooks(root)}
    # pyproject.toml last: it says which address to look for, should this break off
    for path in [*(path for pattern in FOLLOWING for path in sorted(root.glob(pattern))), root / "pyproject.toml"]:
        wanted[path] = path.read_text(encoding="utf-8")
    wanted = {path: with_address(root, text) for path, text in wanted.items()}
    stale = []
    for path, text in wanted.items():
        if text == path.read_text(encoding="utf-8"):
            continue
        stale.append(path.relative_to(root).as_posix())
        if not check:
            temporary = path.with_suffix(".tmp")
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
    return stale


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, fail when a file is out of date")
    check_only = parser.parse_args().check
    out_of_date = main(ROOT, check_only)
    for name in out_of_date:
        print(f"{name}: {'out of date, run `python tools/notebook_cells.py`' if check_only else 'refreshed'}")
    sys.exit(1 if check_only and out_of_date else 0)
