"""Coverage-guided fuzzing of one reader, by atheris: what lies in a corpus and a healthy file in, a file that no reader may meet out.

    python tests/fuzz/fuzz.py KIND [libFuzzer's options and corpora]

KIND is one of `hostile_files.kinds`; without one they are listed. What is found wrong ends the process, is told, and lies in
`crash-...` in the folder of the call: it belongs, as small as it can be made, into a test.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

try:
    import atheris
except ImportError:
    sys.exit("this needs atheris: pip install atheris")

with atheris.instrument_imports(include=["textdiff.data", "textdiff.base", "pydicom", "nibabel", "openpyxl", "PIL"]):
    from hostile_files import kinds, outcome, watch

    KNOWN = kinds()


def main() -> None:
    """Fuzzes until libFuzzer's options say that it is enough."""
    if len(sys.argv) < 2 or sys.argv[1] not in KNOWN:
        sys.exit(f"give one of {', '.join(KNOWN)}")
    kind = sys.argv.pop(1)
    warnings.simplefilter("ignore")
    make, read = KNOWN[kind]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as corpus:
        path = make(Path(folder))
        Path(corpus, "healthy").write_bytes(path.read_bytes())

        def one(content: bytes) -> None:
            path.write_bytes(content)
            if (came := outcome(read, path, Path(folder))) not in ("read", "refused"):
                raise AssertionError(f"{kind}: {came}")

        watch()
        atheris.Setup([*sys.argv, corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
