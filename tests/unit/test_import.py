"""Importing is reading: no module of the package, nor what it imports, opens a connection or writes a file by that."""

import os
import subprocess
import sys

CODE = """
import pkgutil, socket, sys

def refuse(*given, **more):
    raise AssertionError(f"a connection at import: {given}")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import textdiff
import importlib
# Where an optional package is missing, its module says so when it is used
for found in pkgutil.walk_packages(textdiff.__path__, "textdiff."):
    if found.name != "textdiff.__main__":
        importlib.import_module(found.name)
print(sum(name.startswith("textdiff") for name in sys.modules))
"""


def test_no_module_speaks_to_the_network_or_writes_when_it_is_imported(tmp_path):
    env = {
        **os.environ,
        "HOME": str(tmp_path),
        "TEXTDIFF_CACHE": str(tmp_path / "cache"),
        "MPLCONFIGDIR": str(tmp_path / "m"),
    }
    env |= {"XDG_CACHE_HOME": str(tmp_path / "x"), "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 100
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "m" not in path.relative_to(tmp_path).parts]
    assert not left, left
