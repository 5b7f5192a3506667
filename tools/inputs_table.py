"""What it takes and what it refuses: marks on tests come in, the table of the book's page (book/inputs.csv) goes out.

    python tools/inputs_table.py            # write it
    python tools/inputs_table.py --check    # change nothing, fail when it is out of date

A test that shows how an input is met carries `@pytest.mark.takes(input, what is with it, answer)`, or has it as `marks` of
one of its parameters. The answer is one of `ANSWERS`. So a row stands for a test, which fails when the row is no longer true.
"""

import ast
import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "book/inputs.csv"
ANSWERS = ("taken", "taken, and said", "refused")
HEADER = ("Input", "What is with it", "Answer", "Test")


def marked(source: str) -> Iterator[tuple[str, str, str, str]]:
    """Input, what, answer and test of every mark in the text of a test file, in its order.

    Raises ValueError for a mark that is not three texts, an unknown answer, or one that stands outside a test.
    """
    for node in ast.parse(source).body:
        for call in (found for found in ast.walk(node) if isinstance(found, ast.Call)):
            if not (isinstance(call.func, ast.Attribute) and call.func.attr == "takes"):
                continue
            values = [value.value for value in call.args if isinstance(value, ast.Constant)]
            if len(call.args) != 3 or not all(isinstance(value, str) for value in values) or len(values) != 3:
                raise ValueError(f"line {call.lineno}: takes(input, what, answer) goes with three texts")
            if values[2] not in ANSWERS:
                raise ValueError(f"line {call.lineno}: answer {values[2]!r}, expected one of {', '.join(ANSWERS)}")
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                raise ValueError(f"line {call.lineno}: the mark stands on no test function")
            yield values[0], values[1], values[2], node.name


def table(root: Path) -> str:
    """All rows of the tests under `root`/tests as CSV, by input, in the order of the files."""
    rows = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        try:
            found = list(marked(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path.relative_to(root)}: {error}") from error
        rows += [(kind, what, answer, f"{path.name}: {test}") for kind, what, answer, test in found]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(sorted(dict.fromkeys(rows), key=lambda row: (row[0].lower(), ANSWERS.index(row[2]))))
    return text.getvalue()


def main() -> int:
    """0, or 1 with --check when the table is not that of the tests."""
    wanted = table(ROOT)
    if "--check" in sys.argv[1:]:
        same = TABLE.is_file() and TABLE.read_text(encoding="utf-8") == wanted
        if not same:
            print(f"{TABLE.relative_to(ROOT)} is out of date: python tools/inputs_table.py")
        return int(not same)
    TABLE.write_text(wanted, encoding="utf-8")
    print(f"{TABLE.relative_to(ROOT)}: {wanted.count(chr(10)) - 1} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
