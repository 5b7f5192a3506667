"""Build the book: notebooks and prose come in, executed notebooks and _build/html/index.html go out.

    python tools/build_book.py               # what `make book` does
    python tools/build_book.py --force       # run every notebook, also those that have not changed

The package is installed as a user's pip would do it (sdist, wheel, folder _build/site), and every notebook runs in
demo mode through papermill with that copy alone, one process each, in an empty folder outside the checkout: the
pages are the proof that an installed package runs every notebook. A notebook's reads of the package are recorded
(site_recorder.py); its result is kept in _build/executed and used again until its code, the lock, or something that
it read changes. The tests of the notebooks and of the book use the same copies. Then prose and executed notebooks
are put side by side in _build/source and Jupyter Book builds them with warnings as errors; finish_pages.py makes
the pages lighter and mends them for screen readers.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

import nbformat
from filelock import FileLock
from finish_pages import finish
from notebook_cells import BADGE_IMAGE
from parameters_page import with_costs
from reading_path import LIST_MARK, listed, read_path, signposted

ROOT = Path(__file__).resolve().parents[1]
LOCAL_BADGE = "/book/_static/open-in-colab.svg"
TABLE_MARK = "<!-- this-build -->"
CELL_SECONDS = 900
# What Sphinx reads beside pages; it writes the index in place of the third.
WHOLE = ("_config.yml", "_toc.yml", "genindex.md")
LOCK = "env/requirements-cpu.txt"
# A small process between: on Linux a process begins with its parent's memory as its largest, which may be a test run's.
MEASURED = """\
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""
# What the installed package is made of.
PACKAGED = (
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "tools/site_recorder.py",
    "textdiff/**/*",
    "weights/**/*",
    "results/published/**/*",
    "notebooks/*.ipynb",
    "book/paper_tables.csv",
)


class NotebookFailed(RuntimeError):
    """A notebook did not run to its end; the message names it, its error and its log."""


class BookFailed(RuntimeError):
    """Jupyter Book did not build, or its table of contents names a page that is not there."""


class PackageFailed(RuntimeError):
    """The package could not be installed; the message ends with the reason."""


@dataclass(frozen=True)
class Reads:
    """What a notebook read of the installed package, as paths below it: modules, folders of data files, listings.

    A data file stands for its folder: compiled libraries open the weights beside a config.json unseen.
    """

    modules: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()

    @classmethod
    def from_log(cls, log: Path) -> "Reads":
        """The lines that site_recorder.py wrote."""
        lines = set(log.read_text(encoding="utf-8").splitlines()) if log.is_file() else set()
        found = [line.split("\t", 1) for line in sorted(lines)]
        return cls(
            tuple(name for kind, name in found if kind == "module"),
            tuple(sorted({os.path.dirname(name) for kind, name in found if kind == "file"})),
            tuple(name for kind, name in found if kind == "folder"),
        )

    def digest(self, package: Path) -> bytes:
        """Digest of all that was read, as it is now."""
        files = {package / name for name in self.modules}
        files |= {file for name in self.folders for file in (package / name).glob("*") if file.is_file()}
        digest = hashlib.sha256()
        for file in sorted(files):
            content = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "gone"
            digest.update(f"{file.relative_to(package).as_posix()} {content}\n".encode())
        for name in self.listed:
            entries = os.listdir(package / name) if (package / name).is_dir() else ["gone"]
            digest.update(f"{name}: {sorted(set(entries) - {'__pycache__'})}\n".encode())
        return digest.digest()


@dataclass(frozen=True)
class Executed:
    """An executed notebook: where it is, how long it took, its largest process, and whether it ran just now."""

    path: Path
    seconds: float
    memory_mb: int
    fresh: bool


def sources(root: Path = ROOT) -> list[Path]:
    """All notebooks that the book may hold."""
    return sorted([*(root / "notebooks").glob("*.ipynb"), *(root / "book").glob("*.ipynb")])


def fingerprint(path: Path, root: Path, reads: Reads) -> str:
    """Digest of all that the notebook's outputs depend on: code cells, lock, what it read of the package."""
    digest = hashlib.sha256((root / LOCK).read_bytes())
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            digest.update(cell.source.encode() + b"\0")
    digest.update(reads.digest(site(root) / "textdiff"))
    return digest.hexdigest()


def site(root: Path = ROOT) -> Path:
    """Folder that the package is installed into."""
    return root / "_build" / "site"


def install(root: Path = ROOT) -> Path:
    """Install the package from its sdist into `site(root)`, unless the copy there is of the present sources.

    Raises PackageFailed.
    """
    digest = hashlib.sha256()
    files = {file for pattern in PACKAGED for file in root.glob(pattern) if file.is_file()}
    for file in sorted(file for file in files if "__pycache__" not in file.parts):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    target, record = site(root), root / "_build" / "site.sha256"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=target.parent) as folder:
        if target.is_dir() and record.is_file() and record.read_text() == digest.hexdigest():
            return target
        record.unlink(missing_ok=True)
        sdist = [
            sys.executable,
            "-c",
            "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])",
        ]
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--target"]
        for command in ([*sdist, folder], [*pip, f"{folder}/site"]):
            done = subprocess.run(
                [*command, *map(str, Path(folder).glob("*.tar.gz"))], cwd=root, capture_output=True, text=True
            )
            if done.returncode:
                raise PackageFailed(f"the package could not be installed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        shutil.copyfile(root / "tools/site_recorder.py", f"{folder}/site/sitecustomize.py")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(f"{folder}/site", target)
        record.write_text(digest.hexdigest())
    return target


def execute(path: Path, root: Path = ROOT, force: bool = False, threads: int = 0) -> Executed:
    """Run a notebook in demo mode with the installed package, unless an executed copy of its present state is there.

    `threads`: processor threads for the numerical libraries, 0 for all. Raises NotebookFailed.
    """
    folder = root / "_build" / "executed"
    folder.mkdir(parents=True, exist_ok=True)
    output, record = folder / path.name, folder / f"{path.stem}.json"
    with FileLock(folder / f"{path.stem}.lock"):
        if not force and output.is_file() and record.is_file():
            known = json.loads(record.read_text(encoding="utf-8"))
            same = known["fingerprint"] == fingerprint(path, root, Reads(*map(tuple, known["reads"])))
            if same and "memory_mb" in known:
                return Executed(output, known["seconds"], known["memory_mb"], fresh=False)
        record.unlink(missing_ok=True)
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="textdiff-") as work:
            reads, memory = _papermill(path, output, root, Path(work).resolve(), threads)
        if "__init__.py" not in reads.modules:
            raise NotebookFailed(f"{path.name}: it did not import the textdiff that is installed in {site(root)}")
        seconds = round(time.monotonic() - start, 1)
        kept = {"fingerprint": fingerprint(path, root, reads), "seconds": seconds, "memory_mb": memory}
        _write_if_changed(record, json.dumps(kept | {"reads": astuple(reads)}).encode())
        return Executed(output, seconds, memory, fresh=True)


def execute_all(
    paths: Iterable[Path], root: Path = ROOT, force: bool = False, jobs: int = 0
) -> dict[Path, Executed | NotebookFailed]:
    """Run several notebooks, `jobs` at a time (0: two where there are two cores). A failure is a value.

    Raises PackageFailed.
    """
    install(root)
    cores = os.cpu_count() or 1
    jobs = jobs or min(2, cores)

    def one(path: Path) -> Executed | NotebookFailed:
        try:
            result = execute(path, root, force, threads=max(1, cores // jobs))
        except NotebookFailed as error:
            return error
        print(
            f"{path.stem}: {'ran in' if result.fresh else 'unchanged, ran before in'} {result.seconds:.0f} s",
            flush=True,
        )
        return result

    paths = list(paths)
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(paths, pool.map(one, paths), strict=True))


def build(root: Path = ROOT, force: bool = False, jobs: int = 0) -> Path:
    """Execute what has changed, build the book, and return the path of its first page.

    Raises PackageFailed, NotebookFailed or BookFailed; the book of an earlier build stays in place then.
    """
    _check_contents(root)
    outcomes = execute_all(sources(root), root, force, jobs)
    done = {path: outcome for path, outcome in outcomes.items() if isinstance(outcome, Executed)}
    if len(done) < len(outcomes):
        raise NotebookFailed("\n".join(str(one) for one in outcomes.values() if isinstance(one, NotebookFailed)))
    with FileLock(root / "_build" / "book.lock"):
        source = stage(done, root)
        final, fresh, mark = (root / "_build" / name for name in ("html", "html.new", "html.sha256"))
        finisher = Path(__file__).with_name("finish_pages.py").read_bytes()
        digest = _digest(source) + _digest(site(root) / "textdiff", "*.py") + hashlib.sha256(finisher).hexdigest()
        # Who reads the pages meanwhile keeps them: the same sources make no new ones
        if not force and final.is_dir() and mark.is_file() and mark.read_text(encoding="utf-8") == digest:
            return final / "index.html"
        mark.unlink(missing_ok=True)
        html = _jupyter_book(source, root / "_build" / "jupyter-book", site(root))
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(html, fresh)
        finish(fresh)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(fresh, final)
        mark.write_text(digest, encoding="utf-8")
    return final / "index.html"


def stage(outcomes: dict[Path, Executed], root: Path = ROOT) -> Path:
    """Put prose and executed notebooks side by side in _build/source; an unchanged file keeps its time."""
    target = root / "_build" / "source"
    files = {name: (root / name).read_bytes() for name in WHOLE if (root / name).is_file()}
    for file in sorted((root / "book").rglob("*")):
        if file.is_file() and file.suffix != ".ipynb":
            files[file.relative_to(root).as_posix()] = file.read_bytes()
    page = files.get("book/this_build.md")
    if page:
        table = build_table(outcomes)
        files["book/this_build.md"] = page.replace(TABLE_MARK.encode(), table.encode())
    stops = read_path(root)
    for name in [name for name in files if name.endswith(".md")]:
        text = signposted(name.removesuffix(".md"), files[name].decode(), stops)
        files[name] = text.replace(LIST_MARK, listed(stops)).encode()
    page = files.get("book/parameters.md")
    if page:
        measured = {path.stem: (executed.seconds, executed.memory_mb) for path, executed in outcomes.items()}
        files["book/parameters.md"] = with_costs(page.decode(), measured, root).encode()
    for path, executed in outcomes.items():
        notebook = readable(nbformat.read(path, as_version=4), nbformat.read(executed.path, as_version=4))
        name = path.relative_to(root).as_posix()
        notebook.cells[0].source = signposted(name.removesuffix(".ipynb"), notebook.cells[0].source, stops)
        files[name] = nbformat.writes(notebook).encode()

    for file in target.rglob("*"):
        if file.is_file() and file.relative_to(target).as_posix() not in files:
            file.unlink()
    for name, content in files.items():
        _write_if_changed(target / name, content)
    return target


def readable(notebook: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The committed notebook with the outputs of its executed copy, made ready for the book.

    The cell that papermill injects is left out, that of the parameters is folded (the page shows what came of them), the
    badge's picture comes from the book, and alt text and caption that a figure carries go where Jupyter Book looks.
    """
    ran = [cell for cell in executed.cells if cell.cell_type == "code"]
    ran = [cell for cell in ran if "injected-parameters" not in cell.metadata.get("tags", [])]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, done in zip(code, ran, strict=True):
        cell.outputs = done.outputs
        cell.execution_count = done.execution_count
        _describe_figures(cell)
        if "parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags = [*cell.metadata.tags, "hide-input"]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace(BADGE_IMAGE, LOCAL_BADGE)
    notebook.metadata.pop("widgets", None)
    return notebook


def _describe_figures(cell: nbformat.NotebookNode) -> None:
    """Move a figure's own alt text and caption (output metadata) to the cell's, where they are read."""
    for output in cell.outputs:
        about = output.get("metadata", {}).get("image/png", {})
        mystnb = cell.metadata.setdefault("mystnb", {})
        if about.get("alt"):
            mystnb.setdefault("image", {}).setdefault("alt", about["alt"])
        if about.get("caption"):
            mystnb.setdefault("figure", {}).setdefault("caption", about["caption"])


def _digest(folder: Path, pattern: str = "*") -> str:
    """Of the names and contents of the files below a folder whose names fit a pattern."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob(pattern) if path.is_file()):
        digest.update(f"{file.relative_to(folder)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def build_table(outcomes: dict[Path, Executed]) -> str:
    """Versions, processor, seconds and memory a notebook, as markdown for the page about this build."""
    from textdiff.experiments.records import processor

    names = ("torch", "transformers", "monai", "numpy", "pandas", "papermill", "jupyter-book")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    seconds = sum(executed.seconds for executed in outcomes.values())
    lines = [
        f"Built on {date.today().isoformat()} with Python {platform.python_version()} on {platform.system()} "
        f"{platform.machine()}, {processor()}, {os.cpu_count()} cores. {versions}.",
        "",
        "| notebook | seconds | memory, MB |",
        "|---|---:|---:|",
    ]
    lines += [f"| {path.stem} | {one.seconds:.0f} | {one.memory_mb} |" for path, one in outcomes.items()]
    lines += [f"| all | {seconds:.0f} | |"]
    return "\n".join(lines)


def _papermill(path: Path, output: Path, root: Path, work: Path, threads: int) -> tuple[Reads, int]:
    """Run a copy of one notebook in the empty folder `work`, with the installed package and nothing of the checkout.

    This machine's folders are cut from its outputs. Returns what it read, and the MB of memory of its largest process.
    """
    log, reads, memory = output.with_suffix(".log"), work / "reads.txt", work / "memory.txt"
    copy, done = work / path.name, work / "done.ipynb"
    shutil.copyfile(path, copy)
    command = [sys.executable, "-m", "papermill", str(copy), str(done), "--kernel", "python3", "--cwd", str(work)]
    command += ["--no-progress-bar", "--execution-timeout", str(CELL_SECONDS)]
    if _has_mode(path):
        command += ["-r", "mode", "demo"]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYTHONPATH": str(site(root)),
        "TEXTDIFF_READS": str(reads),
        "TEXTDIFF_RESULTS": str(work / "results"),
        "TEXTDIFF_WEIGHTS": str(work / "weights"),
        "TEXTDIFF_DATA": str(work / "data"),
        # One each: two notebooks that make the same run would wait for each other
        "TEXTDIFF_CACHE": str(root / "_build" / "cache" / path.stem),
    }
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    with open(log, "w", encoding="utf-8") as stream:
        measured = [sys.executable, "-c", MEASURED, str(memory), *command]
        ended = subprocess.run(measured, env=environment, cwd=work, stdout=stream, stderr=subprocess.STDOUT)
    if ended.returncode:
        raise NotebookFailed(f"{path.name}: {_last_error(log)} (log: {log})")
    text = done.read_text(encoding="utf-8")
    for folder in (work, site(root), root):
        text = text.replace(f"{folder}/", "")
    _write_if_changed(output, text.replace(str(Path.home()), "~").encode())
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return Reads.from_log(reads), int(memory.read_text()) * unit // 10**6


def _has_mode(path: Path) -> bool:
    cells = nbformat.read(path, as_version=4).cells
    return any(
        "parameters" in cell.metadata.get("tags", []) and re.search(r"^mode\s*=", cell.source, re.MULTILINE)
        for cell in cells
    )


def _last_error(log: Path) -> str:
    """The last line of a log that names an error, else its last line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8", errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt|Exit)\b", line)]
    return (named or lines or ["no output"])[-1]


def _check_contents(root: Path) -> None:
    """Every page of the table of contents exists, and every notebook is in it."""
    toc = (root / "_toc.yml").read_text(encoding="utf-8")
    entries = re.findall(r"(?:file|root):\s*(\S+)", toc)
    missing = [name for name in entries if not any((root / f"{name}{end}").is_file() for end in (".md", ".ipynb"))]
    if missing:
        raise BookFailed(f"_toc.yml names pages that are not there: {', '.join(missing)} (.md or .ipynb)")
    unlisted = [
        path.relative_to(root).as_posix()
        for path in sources(root)
        if path.relative_to(root).with_suffix("").as_posix() not in entries
    ]
    if unlisted:
        raise BookFailed(f"not in _toc.yml: {', '.join(unlisted)}")


def _jupyter_book(source: Path, target: Path, package: Path) -> Path:
    """Build `source` with warnings as errors; returns the folder of the pages. Described is the copy in `package`.

    Raises BookFailed with the warnings.
    """
    target.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(source), "--path-output", str(target)]
    command += ["--warningiserror", "--keep-going"]
    log = target / "build.log"
    with open(log, "w", encoding="utf-8") as stream:
        environment = os.environ | {"PYTHONPATH": str(package)}
        done = subprocess.run(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    pages = target / "_build" / "html"
    if done.returncode:
        # Sphinx would skip the pages it has read, and with them their warnings, the next time.
        shutil.rmtree(target / "_build", ignore_errors=True)
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8", errors="replace"))
        found = [line for line in text.splitlines() if "WARNING" in line or "ERROR" in line]
        raise BookFailed("\n".join([f"Jupyter Book failed (log: {log})", *(found or text.splitlines()[-20:])]))
    # Sphinx copies these only where a page has changed, too
    if (source / "book/_static").is_dir():
        shutil.copytree(source / "book/_static", pages / "_static", dirs_exist_ok=True)
    return pages


def _write_if_changed(path: Path, content: bytes) -> None:
    """Write a file in one step, or leave it with its time when it holds `content` already."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--force", action="store_true", help="run every notebook, also those that have not changed")
    parser.add_argument(
        "--jobs", type=int, default=0, help="notebooks at a time (default: two, where there are two cores)"
    )
    arguments = parser.parse_args()
    try:
        first_page = build(force=arguments.force, jobs=arguments.jobs)
    except (PackageFailed, NotebookFailed, BookFailed) as error:
        sys.exit(str(error))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    minutes = sum(one.ru_utime + one.ru_stime for one in used) / 60
    print(f"The book is built, in {minutes:.1f} minutes of processor time. Open {first_page.as_uri()}")
