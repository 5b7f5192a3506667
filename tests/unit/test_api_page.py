"""The page of the package: what it shows of each parameter is that parameter's own description."""

import inspect
import pydoc
import re

import pytest

from textdiff.base.paths import PACKAGE

NAMES = re.findall(r"auto(?:class|function):: (\S+)", (PACKAGE.parent / "book" / "api.md").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_no_parameter_is_described_on_the_line_of_another(name):
    shown = pydoc.locate(name)
    text = inspect.getdoc(shown)
    second = re.findall(r"^ {4}\w[\w, ]*: .*?[.;] (\w+)(?:, \w+)*: ", text, flags=re.MULTILINE)
    assert not set(second) & set(inspect.signature(shown).parameters), second
