"""Notebooks from outside and from within: found, their parameters checked and run; and `configure`, what their first cell calls.

In: a number, a name or a path, and parameters. Out: an executed notebook; within a notebook: its checked configuration.
"""

from __future__ import annotations

import ast
import hashlib
import html
import inspect
import re
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from textdiff.base import paths
from textdiff.base.parsing import did_you_mean
from textdiff.experiments.catalogue import CONFIGS
from textdiff.experiments.config import AUTO, Config, Parameter, parameters_of, unknown_parameter

Scalar = bool | int | float | str
C = TypeVar("C", bound=Config)
INJECTED = "# Parameters"  # the first line of the cell that papermill puts in


def find_notebook(name: str) -> Path:
    """The notebook behind a path, a name (13_textdiff) or a number (13).

    A name or a number is looked up in the book's own notebooks: those of the checkout, or those that came with the package.

    Raises:
        FileNotFoundError: no such notebook; there are the ones listed.
        ValueError: a number that stands for several.
    """
    if name.endswith(".ipynb"):
        if not Path(name).is_file():
            raise FileNotFoundError(f"no notebook {name}")
        return Path(name)
    known = sorted(paths.shipped("notebooks").glob("*.ipynb"))
    found = [path for path in known if path.stem == name or path.stem.split("_")[0] == name]
    if len(found) > 1:
        raise ValueError(f"{name} stands for several notebooks: {', '.join(path.stem for path in found)}")
    if not found:
        raise FileNotFoundError(f"no notebook {name}; there are {', '.join(path.stem for path in known)}")
    return found[0]


def notebook_parameters(path: Path) -> dict[str, Parameter]:
    """Names, types and defaults in the cell tagged "parameters".

    Raises:
        ValueError: the file is no notebook, has not exactly one such cell, or a default is no scalar.
    """
    cells = [cell for cell in _read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{path.name} has {len(cells)} cells tagged 'parameters', it must have one")
    config = notebook_config(path)
    declared = parameters_of(config) if config else {}
    parameters = {}
    for line in _lines(path, cells[0].source):
        name, default = _assignment(path, line)
        parameters[name] = declared.get(name) or Parameter(name, default, type(default), (), (), ())
    return parameters


def _lines(path: Path, source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(
            f"{path.name}: the cell tagged 'parameters' holds more than Python: {error.text or error}"
        ) from error


def _assignment(path: Path, line: ast.stmt) -> tuple[str, Scalar]:
    target = line.targets[0] if isinstance(line, ast.Assign) and len(line.targets) == 1 else None
    try:
        default = ast.literal_eval(line.value) if isinstance(line, ast.Assign) else None
    except ValueError:
        default = None
    if not isinstance(target, ast.Name) or not isinstance(default, (bool, int, float, str)):
        raise ValueError(f"{path.name}: in the parameters cell, {ast.unparse(line)!r} is not `name = scalar`")
    return target.id, default


def notebook_config(path: Path) -> type[Config] | None:
    """The configuration class that the notebook's metadata names, or None where it names none."""
    name = _read(path).metadata.get("textdiff", {}).get("config")
    if name is not None and name not in CONFIGS:
        raise ValueError(f"{path.name} names the config {name}; there are {', '.join(CONFIGS)}")
    return CONFIGS[name] if name else None


def checked_parameters(path: Path, given: Mapping[str, str]) -> dict[str, Scalar]:
    """The given parameters with their types, checked against the notebook's cell and its configuration class.

    Raises:
        ValueError: an unknown name (with the new name or the nearest), a wrong type, or a value that is not possible.
    """
    known, config = notebook_parameters(path), notebook_config(path)
    values = {}
    for name, text in given.items():
        if name not in known:
            if config is not None and (name in config.renamed or name not in parameters_of(config)):
                raise ValueError(f"{path.name}: {unknown_parameter(config, name)}")
            raise ValueError(
                f"{path.name} has no parameter {name!r}{did_you_mean(name, known)}; it has: {', '.join(known)}"
            )
        values[name] = known[name].read(text)
    if config is not None:
        config.from_params(**_defaults(path) | values)
    return values


def check_inputs(path: Path, values: Mapping[str, Scalar]) -> None:
    """Whether the data set, models and encoders that a notebook reads are to be had, before a kernel is started for it.

    Raises what :meth:`textdiff.experiments.config.Config.check_inputs` raises.
    """
    config = notebook_config(path)
    if config is not None:
        config.from_params(**_defaults(path) | dict(values)).check_inputs()


def _defaults(path: Path) -> dict[str, Scalar]:
    """The defaults in the notebook's cell, which may differ from the class's (another data set)."""
    source = next(cell.source for cell in _read(path).cells if "parameters" in cell.metadata.get("tags", []))
    return dict(_assignment(path, line) for line in _lines(path, source))


def copy_name(path: Path, values: Mapping[str, Scalar]) -> str:
    """The file name of a notebook's executed copy, another one for other parameters.

    It is told by the run's id and, as that knows a file by its last part alone, the folders of the files that are named; of
    other notebooks by the values.
    """
    config = notebook_config(path)
    if config is None:
        return f"{path.stem}-{_digest(sorted((_defaults(path) | dict(values)).items()))}.ipynb"
    settings = config.from_params(**_defaults(path) | dict(values))
    named = [getattr(settings, name) for name in config.files if getattr(settings, name)]
    apart = [_digest([str(Path(one).expanduser().resolve()) for one in named])] if named else []
    return "-".join([path.stem, settings.run_id, *apart]) + ".ipynb"


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]


def check_replaced(path: Path, out: Path) -> None:
    """Raises FileExistsError where ``out`` is there and no executed copy of the notebook at ``path``."""
    if not out.exists():
        return
    try:
        source = _read(out).metadata.get("papermill", {}).get("input_path", "")
    except ValueError:
        source = ""
    if Path(source or "").name != path.name:
        raise FileExistsError(
            f"{out} is there and no executed copy of {path.name}, which is all that is replaced: choose another name, or remove it"
        )


def execute_notebook(path: Path, out: Path, values: Mapping[str, Scalar]) -> None:
    """Run a notebook through papermill. An earlier copy stays until there is a new one, of as many cells as were run.

    Raises:
        RuntimeError: naming the error and the copy that shows where it happened.
    """
    _needs_book("running notebooks", "papermill")
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    growing = out.with_name(f".{uuid.uuid4().hex[:8]}.{out.name}")
    try:
        papermill.execute_notebook(
            path, growing, parameters=dict(values), kernel_name="python3", progress_bar=sys.stderr.isatty()
        )
    except PapermillExecutionError as error:
        raise RuntimeError(f"{path.name} stopped: {error.ename}: {error.evalue} (see {out})") from None
    except DeadKernelError:
        raise RuntimeError(f"{path.name} stopped: its kernel died: killed, or memory ran short (see {out})") from None
    finally:
        if growing.exists():
            growing.replace(out)


def _read(path: Path) -> Any:
    _needs_book("reading notebooks", "nbformat")
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds, all meaning the same here
        raise ValueError(f"{path} is not a notebook: {error}") from None


def _needs_book(what: str, module: str) -> None:
    try:
        __import__(module)
    except ImportError:
        raise ImportError(f"{what} needs {module}: pip install 'textdiff[book]'") from None


def choices_of(config: type[Config]) -> dict[str, tuple[str, ...]]:
    """Field -> its choices, where they are few; "auto" first where a preset may choose. What `# @param [...]` lists."""
    found = {}
    for name, parameter in parameters_of(config).items():
        named = next((check.names for check in parameter.checks if hasattr(check, "names")), parameter.choices)
        if named:
            found[name] = (AUTO, *named) if parameter.default == AUTO else tuple(named)
    return found


# --- within a notebook -----------------------------------------------------------------------------------


def configure(cls: type[C]) -> C:
    """The configuration of the notebook that calls this: its parameters checked, shown as a folded table.

    Also gives the figures their style.

    Raises:
        ValueError: a parameter that papermill put in and the notebook does not have (papermill itself only warns), or a
            value that is not possible.
        TypeError: a value of another type than the parameter's.
    """
    from textdiff.figures.style import style

    frame = inspect.currentframe()
    space = frame.f_back.f_globals if frame and frame.f_back else {}
    own = [name for name in parameters_of(cls) if name not in cls.derived]
    for name in injected_names(space.get("In", [])):
        if name not in own:
            raise ValueError(unknown_parameter(cls, name))
    config = cls.from_params(**{name: space[name] for name in own if name in space})
    style()
    _show(config)
    return config


def injected_names(cells: list[str]) -> list[str]:
    """The names that papermill assigned, of the cells that a kernel has run; the last such cell counts.

    Somebody who opens the executed copy, corrects that cell and runs it again has put it right.
    """
    injected = [source for source in cells if source.lstrip().startswith(INJECTED)][-1:]
    return [name for source in injected for name in re.findall(r"^(\w+) *=", source, flags=re.MULTILINE)]


def _show(config: Config) -> None:
    """A folded table in a notebook; nothing elsewhere."""
    try:
        from IPython import get_ipython
        from IPython.display import HTML, display
    except ImportError:
        return
    if get_ipython() is None:
        return
    values = {name: value for name, value in config.to_dict().items() if name != "out_dir"}
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in values.items())
    head = "<thead><tr><th>parameter</th><th>value in effect</th></tr></thead>"
    summary = f"Run {config.run_id}: every parameter in effect"
    display(HTML(f"<details><summary>{summary}</summary><table>{head}<tbody>{rows}</tbody></table></details>"))
