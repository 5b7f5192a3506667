"""Contents of an EPUB whose first page lies in a folder: a Sphinx extension for print_book.py.

Sphinx puts that folder before the address of every page. Of pages in other folders "book/../notebooks/x.xhtml" comes out,
which is none of the EPUB's files: they would be missing from its reading order.
"""

import posixpath
from typing import Any

from sphinx.application import Sphinx
from sphinx.builders.epub3 import Epub3Builder


class Builder(Epub3Builder):
    """Sphinx's own, with the addresses of files."""

    def toc_add_files(self, refnodes: list[dict[str, Any]]) -> None:
        """Called with all pages of the contents, before they are used."""
        for node in refnodes:
            node["refuri"] = posixpath.normpath(node["refuri"])
        super().toc_add_files(refnodes)


def setup(app: Sphinx) -> dict[str, bool]:
    """Puts the builder in the place of Sphinx's."""
    app.add_builder(Builder, override=True)
    return {"parallel_read_safe": True}
