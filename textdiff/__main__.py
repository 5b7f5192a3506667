"""``python -m textdiff`` is the command ``textdiff``."""

from textdiff.cli import app

app()
