"""The page as a browser shows it: all figures, right names, no errors, and no network."""

import math
from pathlib import Path

import numpy as np
import optional_packages
import pytest
from playwright.sync_api import sync_playwright
from report.html.examples import NASTY, stored, whole

from metatune.report.html.page import figures, page
from metatune.report.html.story import story

pytestmark = pytest.mark.needs("chromium")

PHONE = 390  # px
PAPER = 680  # px between the margins of A4 and of Letter

PLACE = """([name, x, y]) => {
  const plot = document.getElementById(name), {xaxis, yaxis} = plot._fullLayout;
  plot.scrollIntoView({block: "center"});
  const box = plot.getBoundingClientRect();
  return [box.left + xaxis._offset + xaxis.c2p(x), box.top + yaxis._offset + yaxis.c2p(y)];
}"""
"""Where a value of a figure is on the screen."""

SIZES = """() => Object.fromEntries([...document.querySelectorAll(".plot")].map(plot => {
  const svg = plot.querySelector(".main-svg").getBoundingClientRect();
  const drawn = plot.querySelectorAll(".trace, .bars, .heatmaplayer image, .hm image").length;
  return [plot.id, [svg.width, svg.height, drawn]];
}))"""
"""Width, height and marks of each figure."""

TOLD = """name => [...document.querySelectorAll(`#${name} .hoverlayer text`)].flatMap(text => {
  const lines = [...text.querySelectorAll("tspan.line")];
  return (lines.length ? lines : [text]).map(line => line.textContent).filter(Boolean);
})"""
"""The lines of what is told."""

WIDTHS = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"


class Opened:
    """A page in a browser, and what it said and asked for."""

    def __init__(self, browser, file: Path, width: int):
        self.tab = browser.new_page(viewport={"width": width, "height": 900})
        self.said, self.asked = [], []
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(file.as_uri())

    def hover(self, name: str, x: float, y: float) -> str:
        """What is told at a value of a figure."""
        across, down = self.tab.evaluate(PLACE, [name, x, y])
        self.tab.mouse.move(across - 3, down)
        self.tab.mouse.move(across, down)
        self.tab.locator(f"#{name} .hoverlayer text").first.wait_for(timeout=5000)
        return " ".join(self.tab.evaluate(TOLD, name))


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=optional_packages.chromium())
        yield started
        started.close()


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    """`(sources, width)` to a page of them."""
    tabs = []

    def open_page(sources, width):
        written = tmp_path_factory.mktemp("page") / "report.html"
        written.write_text(page(sources), encoding="utf-8")
        tabs.append(Opened(browser, written, width))
        return tabs[-1]

    yield open_page
    for each in tabs:
        each.tab.close()


@pytest.fixture(scope="module")
def desktop(opened):
    return opened(whole(), 1280)


@pytest.fixture(scope="module")
def phone(opened):
    return opened(whole(layers=5), PHONE)


def test_every_figure_is_drawn_without_an_error_or_a_network(desktop):
    sizes = desktop.tab.evaluate(SIZES)
    assert list(sizes) == [figure.name for figure in figures(story(whole()))]
    assert len(sizes) > 20
    for name, (width, height, drawn) in sizes.items():
        assert width > 100 and height > 100 and drawn, name
    assert desktop.said == []
    assert desktop.asked == [desktop.tab.url]


def test_what_one_points_at_is_named(desktop):
    found = whole().artefact
    assert found is not None and found.learning_rates.multipliers is not None
    name, groups = (
        "model.layers.17.self_attn.k_proj.weight",
        found.learning_rates.multipliers.groups,
    )
    told = desktop.hover("learning-rates-factors-1", 50.0, 17.0)
    assert told == f"{name} window 3 of 5, steps 40 to 60 × {groups[name][2]:.3g}"
    # The highest curve of all in the fourth window.
    rates = {name: found.learning_rate(name, 70, 100) for name in groups}
    highest = max(rates, key=lambda name: float(np.max(rates[name])))
    told = desktop.hover("learning-rates-curves", 70.0, float(np.max(rates[highest])))
    assert told == f"{highest} step 70: {rates[highest]:.3g}"
    # Names are neither markup, nor formulas, nor templates.
    assert NASTY in desktop.hover("mixture-curves", 25.0, 0.3)
    assert NASTY in desktop.tab.locator("table").nth(1).inner_text()


def test_a_phone_scrolls_down_alone(phone):
    shown, wide = phone.tab.evaluate(WIDTHS)
    assert shown == wide == PHONE
    sizes = phone.tab.evaluate(SIZES)
    assert list(sizes) == [figure.name for figure in figures(story(whole(layers=5)))]
    for name, (width, _, drawn) in sizes.items():
        assert 100 < width <= PHONE and drawn, name
    assert phone.said == []


def test_it_is_printed_as_wide_as_paper(phone):
    before = phone.tab.evaluate(SIZES)
    phone.tab.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    on_paper = phone.tab.evaluate(SIZES)
    assert max(width for width, _, _ in on_paper.values()) == PAPER
    assert all(drawn for _, _, drawn in on_paper.values())
    phone.tab.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert {name: size[0] for name, size in phone.tab.evaluate(SIZES).items()} == {
        name: size[0] for name, size in before.items()
    }
    printed = phone.tab.pdf(format="A4")
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") > 5
    assert phone.said == []


def test_every_section_of_a_stored_artefact_is_drawn(opened):
    several = opened(stored("several"), 1280)
    sizes = several.tab.evaluate(SIZES)
    assert len(sizes) >= 7 and all(math.prod(size) for size in sizes.values())
    assert several.said == [] and several.asked == [several.tab.url]
