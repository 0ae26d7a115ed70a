"""The documentation's tables say what the catalogues say."""

from __future__ import annotations

import runpy

from tests.architecture.tree import ROOT


def test_the_catalogue_page_is_generated_from_the_code():
    made = runpy.run_path(str(ROOT / "docs" / "make_tables.py"))
    assert (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8") == made["page"](), "run `make tables`"


def test_the_zoo_page_is_generated_from_what_its_tests_measured():
    made = runpy.run_path(str(ROOT / "docs" / "make_zoo.py"))
    assert (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8") == made["page"](), "run docs/make_zoo.py"
