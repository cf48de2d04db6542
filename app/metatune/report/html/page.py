"""The page as one file of HTML: Plotly's library, the figures and the words in it."""

import json
from pathlib import Path
from typing import Any, Final

from metatune.report.html.parts import Figure
from metatune.report.html.sources import Sources
from metatune.report.html.story import Story, story

TEMPLATES: Final = Path(__file__).parent / "templates"


def page(found: Sources) -> str:
    """The whole page: no file besides it is needed, no network, and it comes out the same again.

    Args:
        found: what is known of the run.
    """
    # Here, as they take long to import.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sentence"] = sentence
    told = story(found)
    return environment.get_template("page.html").render(
        story=told,
        figures=script_safe({figure.name: _plotly(figure) for figure in figures(told)}),
        library=get_plotlyjs(),
        style=_text("page.css"),
        script=_text("page.js"),
    )


def figures(told: Story) -> list[Figure]:
    """All figures of a page, in their order."""
    return [figure for chapter in told.chapters for row in chapter.rows for figure in row.figures]


def sentence(text: str) -> Any:
    """A line as it is read: with a capital, an end, and what stands in backticks as code."""
    from markupsafe import Markup, escape

    ended = text if text.endswith((".", ":", "?")) else f"{text}."
    pieces = f"{ended[:1].upper()}{ended[1:]}".split("`")
    if len(pieces) % 2 == 0:  # a backtick that has no other
        return escape("`".join(pieces))
    code = [
        Markup("<code>{}</code>").format(piece) if at % 2 else escape(piece)
        for at, piece in enumerate(pieces)
    ]
    return Markup("").join(code)


def script_safe(value: Any) -> str:
    """JSON that nothing in it can end the script of, or begin a comment in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _plotly(figure: Figure) -> dict[str, Any]:
    return {"data": figure.traces, "layout": figure.layout}


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
