"""Badge and setup cell of every notebook: _config.yml's repository comes in, refreshed notebooks go out.

    python tools/notebook_cells.py            # write them
    python tools/notebook_cells.py --check    # change nothing, fail when one is out of date

The badge is one line of the first markdown cell; the setup cell carries the tag "setup" and stands right
below. Outputs and execution counts are removed on the way, because notebooks are committed without them.
"""

import argparse
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
BADGE_IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"
BADGE_START = "[![Open in Colab]("

SETUP = """\
try:
    import textdiff
except ImportError:  # not installed yet, as in Colab: install it beside the packages that are already loaded
    import subprocess
    import sys
    import tempfile
    from importlib import metadata
    from pathlib import Path

    def versions():
        return {{d.metadata["Name"].lower(): d.version for d in metadata.distributions()}}

    before, providers = versions(), metadata.packages_distributions()
    loaded = {{d.lower() for module in list(sys.modules) for d in providers.get(module, [])}}
    kept = [f"{{name}}=={{before[name]}}" for name in {kept} if name in before]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("\\n".join(kept))
        package = "textdiff @ git+{url}@{branch}"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints), package]
        if subprocess.run(pip).returncode:
            raise SystemExit(f"pip could not install {{package}}; its reason stands above.") from None
    after = versions()
    changed = sorted(name for name in loaded if name in before and after.get(name) != before[name])
    if changed:
        raise SystemExit(
            f"These packages were loaded and have changed: {{', '.join(changed)}}. "
            "Restart the session (Runtime > Restart session) and run this cell again."
        ) from None
    import textdiff
print(f"textdiff {{textdiff.__version__}}")"""


def setting(root: Path) -> tuple[str, str]:
    """Address and branch of the repository as _config.yml has them."""
    repository = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]
    return repository["url"].rstrip("/"), repository["branch"]


def badge(root: Path, notebook: Path) -> str:
    """The badge's markdown line for one notebook."""
    url, branch = setting(root)
    page = f"{urlsplit(url).path}/blob/{branch}/{notebook.relative_to(root).as_posix()}"
    return f"{BADGE_START}{BADGE_IMAGE})](https://colab.research.google.com/github{page})"


def setup_code(root: Path) -> str:
    """Source of the setup cell; what Colab must keep is listed in env/colab-constraints.txt."""
    url, branch = setting(root)
    lines = (root / "env/colab-constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = tuple(line for line in lines if line and not line.startswith("#"))
    return SETUP.format(url=url, branch=branch, kept=repr(kept).replace("'", '"'))


def refreshed(root: Path, path: Path) -> nbformat.NotebookNode:
    """The notebook with its badge, its setup cell and no outputs.

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

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
            cell.metadata.pop("papermill", None)
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    return notebook


def notebooks(root: Path) -> list[Path]:
    """The committed notebooks that follow the house layout."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def main(root: Path, check: bool) -> list[str]:
    """Refresh (or check) every notebook; returns the names of those that were out of date."""
    stale = []
    for path in notebooks(root):
        text = nbformat.writes(refreshed(root, path)) + "\n"
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
    parser.add_argument("--check", action="store_true", help="change nothing, fail when a notebook is out of date")
    check_only = parser.parse_args().check
    out_of_date = main(ROOT, check_only)
    for name in out_of_date:
        print(f"{name}: {'out of date, run `python tools/notebook_cells.py`' if check_only else 'refreshed'}")
    sys.exit(1 if check_only and out_of_date else 0)
