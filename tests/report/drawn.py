"""Reads pictures back from their SVG."""

import re
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

SVG = "{http://www.w3.org/2000/svg}"


class Path(NamedTuple):
    """A path: its points [n, 2] in points of the page, downwards, and how it is painted."""

    points: np.ndarray
    stroke: str | None
    fill: str | None
    dashed: bool


def parsed(document: str) -> ElementTree.Element:
    return ElementTree.fromstring(document)


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def paths(root: ElementTree.Element) -> list[Path]:
    """What is drawn inside plots, in its order: there a path is clipped."""
    found = []
    for element in root.iter(f"{SVG}path"):
        if "clip-path" not in element.attrib:
            continue
        style = dict(re.findall(r"([\w-]+): ([^;]+)", element.get("style", "")))
        numbers = re.findall(r"-?[\d.]+(?:e-?\d+)?", element.get("d", ""))
        points = np.array(numbers, float).reshape(-1, 2)
        fill = None if style.get("fill") == "none" else style.get("fill")
        stroke = style.get("stroke")
        found.append(Path(points, stroke, fill, "stroke-dasharray" in style))
    return found


def lines(root: ElementTree.Element) -> list[Path]:
    """The curves: lines of more points than one of the grid has."""
    return [path for path in paths(root) if path.fill is None and len(path.points) > 2]


def areas(root: ElementTree.Element) -> list[Path]:
    return [path for path in paths(root) if path.fill is not None]
