"""Vega-Lite specifications as static SVG, drawn without a browser, a network or a script.

Colours are CSS variables of the page, so one picture serves light, dark and paper.
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import vl_convert
from markupsafe import Markup

from steepest.basis.errors import ContractError
from steepest.report.contract import Chart, Table

Spec = dict[str, Any]

WIDE, NARROW = 760, 340

_ALLOWED = {"svg", "g", "path", "line", "text", "tspan", "rect", "title", "desc"}
_AXIS = {
    "labelColor": "var(--soft)",
    "titleColor": "var(--soft)",
    "gridColor": "var(--line)",
    "domainColor": "var(--soft)",
    "tickColor": "var(--soft)",
    "labelFontSize": 12,
    "titleFontSize": 12.5,
    "titleFontWeight": "normal",
    "titlePadding": 10,
    "labelPadding": 5,
    "labelLimit": 180,
    "labelFlush": False,
}
_CONFIG: Spec = {"font": "sans-serif", "view": {"stroke": None}, "axis": _AXIS, "legend": {"disable": True}}
_PADDING = {"left": 4, "right": 12, "top": 20, "bottom": 4}


def chart(key: str, title: str, story: str, table: Table, spec: Spec, heights: tuple[int, int]) -> Chart:
    """Return a specification drawn for wide and for narrow screens (`heights` in CSS pixels), named for all readers.

    Raises:
        ContractError: the drawing holds anything but shapes and text.
    """
    wide, narrow = _draw(spec, WIDE, heights[0]), _draw(spec, NARROW, heights[1])
    return Chart(
        key=key,
        title=title,
        wide=_accessible(wide, f"{key}-wide", title, story),
        narrow=_accessible(narrow, f"{key}-narrow", title, story),
        table=table,
    )


def _draw(spec: Spec, width: int, height: int) -> str:
    frame = {"autosize": {"type": "fit", "contains": "padding"}, "padding": _PADDING, "background": None}
    whole = {**spec, **frame, "width": width, "height": height, "config": _CONFIG}
    return str(vl_convert.vegalite_to_svg(whole, allowed_base_urls=[]))


def _accessible(svg: str, key: str, title: str, story: str) -> Markup:
    """Name the picture for those who do not see it, and let nothing but shapes and text through."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.get("display") == "none" or (child.get("opacity") == "0" and child.tag.endswith("text")):
                parent.remove(child)
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
        if node.tag not in _ALLOWED or any("href" in name or name.startswith("on") for name in node.attrib):
            raise ContractError(
                f"the chart {key!r} was drawn with <{node.tag}>, but only shapes and text may enter a page. "
                "Install the version of vl-convert-python that constraints.txt names."
            )
        for name in [n for n in node.attrib if n.startswith("aria") or n in ("role", "pointer-events")]:
            del node.attrib[name]
    root.set("role", "img")
    root.set("aria-label", f"{title}. {story}")
    for place, (tag, text) in enumerate((("title", title), ("desc", f"{story} The table below has every number."))):
        node = ElementTree.Element(tag)
        node.text = text
        root.insert(place, node)
    return Markup(ElementTree.tostring(root, encoding="unicode"))
