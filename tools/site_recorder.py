"""Which files of the package a process reads: file accesses come in, lines of a log go out.

tools/build_book.py puts this file as sitecustomize.py beside an installed package, so that Python imports it first
in every process that has that folder on its path, child processes too. TEXTDIFF_READS names the log; each line is
"module", "file" or "folder" (listed), a tab, and the path below the package. The modules are seen as they are
imported, from source or from compiled copies.
"""

import os
import sys

PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "textdiff")
IMPORT_SYSTEM = "<frozen importlib._bootstrap_external>"


def line(event: str, arguments: tuple) -> str:
    """What to log for an audit event, or "" when it reads nothing of the package."""
    if event not in ("open", "os.listdir", "os.scandir") or not isinstance(arguments[0], (str, bytes, os.PathLike)):
        return ""
    path = os.path.abspath(os.fsdecode(arguments[0]))
    if path != PACKAGE and not path.startswith(PACKAGE + os.sep):
        return ""
    name = os.path.relpath(path, PACKAGE)
    if event != "open":
        return f"folder\t{name}"
    if (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        return ""
    folder, file = os.path.split(name)
    if file.endswith(".pyc"):
        return f"module\t{os.path.join(os.path.dirname(folder), file.split('.')[0] + '.py')}"
    return f"{'module' if file.endswith('.py') else 'file'}\t{name}"


def importing() -> bool:
    """Whether the import system lists a folder: what else lies beside a module does not matter."""
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename == IMPORT_SYSTEM


def watch(log: str) -> None:
    """From now on, append what this process and its forks read of the package to `log`, each thing once."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    seen = {""}

    def hook(event: str, arguments: tuple) -> None:
        found = line(event, arguments)
        if found not in seen and not (found.startswith("folder") and importing()):
            seen.add(found)
            os.write(descriptor, f"{found}\n".encode())

    sys.addaudithook(hook)


if os.environ.get("TEXTDIFF_READS"):
    watch(os.environ["TEXTDIFF_READS"])
