"""Every notebook with its parameters: notebooks and config classes come in, book/parameters.md goes out.

    python tools/parameters_page.py            # write it
    python tools/parameters_page.py --check    # change nothing, fail when it is out of date

What a notebook costs is not known before it ran: the page holds a mark for each, which tools/build_book.py replaces by what
it measured itself (demo mode) and by what the published records say (full mode).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from notebook_cells import notebooks

if TYPE_CHECKING:
    from textdiff.experiments.config import Parameter

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book/parameters.md"
COST = re.compile(r"<!-- cost of (\w+) -->")
SHARED = ("mode", "dataset", "seed", "device", "workers", "out_dir")
HEAD = """\
# Notebooks and their parameters

What each notebook asks, what it takes, what it writes and what it costs. This page is written by `python tools/parameters_page.py` from the
notebooks and from the classes that check their parameters.

Two commands run a notebook, and both refuse a name or a value that is wrong: `textdiff run` before anything starts, papermill in the notebook's
first cells.

```bash
textdiff run 13 -p seed 1 --out mine.ipynb
papermill notebooks/13_textdiff.ipynb mine.ipynb -p seed 1
```

All notebooks have these six. What has the default `auto` is filled in by the preset of mode and data set; the table *every parameter in effect* near the top of
each notebook says what came out. The lists below give each parameter's default, then its values.

| parameter | default | values | |
|---|---|---|---|
| `mode` | `demo` | `demo`, `full` | drawn data and a short run, or the real thing |
| `dataset` | differs | [Data](data.md) | images for 00 to 1b, 30 and 31, volumes for 20 to 29 |
| `seed` | `0` | a whole number, at least 0 | labelled cases, first weights, order of the steps |
| `device` | `auto` | text | `cpu`, `cuda`, `cuda:1`; `auto` takes a GPU where there is one |
| `workers` | `auto` | a whole number, at least 0 | processes that prepare batches; the result is the same |
| `out_dir` | empty | text | folder of the results, instead of `TEXTDIFF_RESULTS` |

Seconds and memory in demo mode are those of the build of this book ([hardware](this_build.md)), in full mode those of the published records.
"""


def values_of(parameter: Parameter) -> str:
    """What a parameter may be, in words."""
    names = next((check.names for check in parameter.checks if hasattr(check, "names")), parameter.choices)
    if names:
        return ", ".join(f"`{name}`" for name in names)
    kinds = {int: "a whole number", float: "a number", bool: "`true` or `false`", str: "text"}
    said = [kinds[parameter.kind]]
    for check in parameter.checks:
        if hasattr(check, "count"):
            many = f"{check.count} numbers" if check.count else "numbers"
            said = [f"{many} with commas between them, each {check.bounds}"]
            said += [f"multiples of {check.multiple}"] if check.multiple > 1 else []
            said += [f"or `{word}`" for word in check.words]
        else:
            said.append("not empty" if parameter.kind is str else str(check))
    said += [f"or `{word}`" for word in parameter.words if word != "auto"]
    return ", ".join(said)


def question(notebook: nbformat.NotebookNode) -> str:
    """The question in bold at the notebook's top."""
    return re.sub(r"\s+", " ", re.findall(r"\*\*(.+?)\*\*", notebook.cells[0].source, re.DOTALL)[0])


def writes(notebook: nbformat.NotebookNode, experiment: str) -> str:
    """What a notebook leaves behind, by the functions that it calls."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    files = sorted(set(re.findall(r'write_\w+\(out / "([^"]+)"', code)))
    left = []
    if re.search(r"\b(make_run|record)\(", code):
        left.append(f"a [record](reruns.md) in `{experiment}/RUN_ID`")
    if re.search(r"\b(make_run|kept_model)\(", code):
        left.append("a trained model in the cache")
    left += [", ".join(f"`{name}`" for name in files)] if files else []
    return " and ".join(left) or "nothing but the executed copy"


def comments(source: str) -> dict[str, str]:
    """Parameter -> the comment above it in the parameters cell, for the first one below each comment."""
    found, said = {}, ""
    for line in source.splitlines():
        if line.startswith("#"):
            words = line.lstrip("# ")
            ended = said and words[:1].isupper()  # a line that goes on starts small
            said = "" if line.startswith("# fmt") else f"{said}{'.' * bool(ended)} {words}".strip()
        elif assigned := re.match(r"(\w+) *=", line):
            found[assigned.group(1)], said = said, ""
    return found


def section(path: Path) -> str:
    """One notebook's part of the page."""
    from textdiff.notebooks import notebook_config, notebook_parameters

    notebook, config, parameters = nbformat.read(path, as_version=4), notebook_config(path), notebook_parameters(path)
    if config is None:
        raise ValueError(f"{path.name} names no config class in its metadata")
    source = next(cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    dataset = re.findall(r'^dataset = "(\w+)"', source, re.MULTILINE)[0]
    number, title = path.stem.split("_")[0], notebook.cells[0].source.splitlines()[0].removeprefix("# ")
    said, lines = comments(source), []
    for name, parameter in parameters.items():
        if name not in SHARED:
            lines += ["", f"{said[name]}:", ""] if said[name] else []
            default = f"`{parameter.default}`" if parameter.default != "" else "empty"
            lines.append(f"- `{name}`, {default}: {values_of(parameter)}")
    listed = "\n".join(lines).strip()
    return (
        f"\n## {number} [{title}](../notebooks/{path.name})\n\n"
        f"{question(notebook)} Writes {writes(notebook, config.experiment)}. Its data set, unless told otherwise: `{dataset}`.\n\n"
        f"<!-- cost of {path.stem} -->\n\n"
        f"```bash\ntextdiff run {number} -p seed 1\npapermill notebooks/{path.name} out.ipynb -p seed 1\n```\n\n"
        f"{listed}\n"
    )


def page(root: Path = ROOT) -> str:
    """The page without its costs."""
    return HEAD + "".join(map(section, notebooks(root)))


def with_costs(text: str, demo: Mapping[str, tuple[float, int]], root: Path = ROOT) -> str:
    """The page with its marks replaced. ``demo``: notebook -> seconds and MB of this build's run, 0 where not known."""
    full = full_costs(root)

    def cost(mark: re.Match[str]) -> str:
        seconds, memory = demo.get(mark.group(1), (0.0, 0))
        rows = [f"| demo | {_range([seconds], 1, 's')} | {_range([memory], 1000, 'GB')} | this build |"]
        runs = full.get(mark.group(1), [])
        where = f"{len(runs)} published record{'s' * (len(runs) > 1)}; {runs[0][2]}" if runs else "none published"
        times = _range([run[0] for run in runs], 60, "min")
        rows.append(f"| full | {times} | {_range([run[1] for run in runs], 1000, 'GB')} | {where} |")
        return "\n".join(["| mode | time | memory | from |", "|---|---:|---:|---|", *rows])

    return COST.sub(cost, text)


def full_costs(root: Path) -> dict[str, list[tuple[float, int, str]]]:
    """Notebook -> seconds, MB and machine of every published record in full mode that its papermill command made."""
    found: dict[str, list[tuple[float, int, str]]] = {}
    for file in sorted((root / "results/published").glob("*/*/env.json")):
        about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        notebook = re.search(r"^papermill \S*?(\w+)\.ipynb", about["command"])
        if notebook and " mode full" in about["command"]:
            machine = about["gpu"] or f"{about['processor']}, {about['cores']} cores"
            found.setdefault(notebook.group(1), []).append((about["seconds"], about["peak_memory_mb"] or 0, machine))
    return found


def _range(values: list[Any], unit: float, name: str) -> str:
    """Smallest to largest in a unit; a dash where none is known."""
    known = sorted(value / unit for value in values if value)
    if not known:
        return "–"
    ends = [f"{value:.1f}" if value < 10 and unit > 1 else f"{value:.0f}" for value in (known[0], known[-1])]
    return f"{' to '.join(dict.fromkeys(ends))} {name}"


def main(check: bool) -> int:
    """0, or 1 with `check` when the page is not that of the notebooks."""
    wanted = page()
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == wanted:
        return 0
    if check:
        print(f"{PAGE.relative_to(ROOT)} is out of date: python tools/parameters_page.py")
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
