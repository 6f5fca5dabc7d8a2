"""The page in a real browser: it sorts, fits, follows light and dark, prints, and asks nothing of the network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import builders
import pytest

from analysis import report
from analysis.charts import charts
from analysis.read import read
from benchmarks.record import SavedBy

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "</script><script>alert(1)</script>"
LONG = "x" * 300
WIDE, PHONE = {"width": 1200, "height": 800}, {"width": 375, "height": 740}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here; apt-get install chromium")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with names that are none, long texts, a speedup that is missing, and times whose texts sort otherwise than they do."""
    modules = {"saved_bytes": 300, "saved_by_module": [SavedBy(HOSTILE, 200), SavedBy("head", 100)]}
    results = [
        builders.result("tracked", model=HOSTILE, memory=modules),
        builders.result("no_grad", model=HOSTILE),
        builders.result("tracked", model="lstm", tracked_seconds=9e-6),
        builders.result("inference_mode", None, model="lstm", tracked_seconds=2e-3),
        builders.result("detach", 0.9, model="lstm", tracked_seconds=8.1e-6),
        *builders.group(model="an_architecture_with_a_long_name", allocator="as_shipped"),
    ]
    lost = [builders.unmeasured("frozen", "crashed", LONG, model=HOSTILE)]
    run = builders.run(*results, unmeasured=lost, conditions={"command": ["pytest", LONG]})
    (written,) = report.write(run, tmp_path_factory.mktemp("page") / "report.html")
    return written


@pytest.fixture(scope="module")
def opened(path: Path) -> Iterator[Any]:
    """The page, which fails in the end where it has complained, opened a dialog or asked for anything but itself."""
    heard: list[str] = []
    offline = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=offline)
        page = browser.new_page()
        page.on("request", lambda request: heard.append(request.url))
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("dialog", lambda dialog: heard.append(dialog.message))
        page.goto(path.as_uri())
        yield page
        browser.close()
    assert heard == [path.as_uri()]


@pytest.fixture
def page(opened: Any) -> Any:
    """As it is on a wide screen in the light."""
    opened.set_viewport_size(WIDE)
    opened.emulate_media(media="screen", color_scheme="light")
    return opened


def column(page: Any, title: str) -> list[str]:
    titles = page.locator("#cases th").all_inner_texts()
    return [text.strip() for text in page.locator(f"#cases td:nth-child({titles.index(title) + 1})").all_inner_texts()]


def outside_of_boxes(page: Any) -> list[str]:
    """What runs off the right edge and is not inside a box that scrolls."""
    script = """() => [...document.querySelectorAll("body *")]
        .filter(element => !element.closest(".scroll") && element.getBoundingClientRect().right > innerWidth + 1)
        .map(element => element.outerHTML.slice(0, 200))"""
    found: list[str] = page.evaluate(script)
    return found


def lightness(page: Any, element: str, style: str) -> int:
    """The sum of red, green and blue of a style of the first such element."""
    colour: str = page.locator(element).first.evaluate(f"element => getComputedStyle(element).{style}")
    return sum(int(part) for part in colour[4:-1].split(","))


def test_charts_are_drawn_and_names_are_shown_as_text(page: Any) -> None:
    assert page.locator("#charts svg").count() >= 3
    assert column(page, "model").count(HOSTILE) == 2
    assert page.locator("script").count() == 1


CUT_OFF = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
    const box = svg.getBoundingClientRect();
    const outside = rect => rect.left < box.left || rect.right > box.right || rect.top < box.top || rect.bottom > box.bottom;
    const symbols = [...svg.querySelectorAll(".role-legend-symbol path")].map(symbol => symbol.getBoundingClientRect());
    const meets = rect => symbols.some(symbol =>
        rect.left < symbol.right && symbol.left < rect.right && rect.top < symbol.bottom && symbol.top < rect.bottom);
    return [...svg.querySelectorAll("text")]
        .filter(text => outside(text.getBoundingClientRect()) || meets(text.getBoundingClientRect()))
        .map(text => text.textContent);
})"""

SCENARIOS_MODES = (
    "no_grad", "inference_mode", "detach", "adapters", "adapters_frozen_a", "forgot_eval", "frozen", "inference_mode_clone",
    "frozen_plain_input", "item", "detached_parameters", "no_grad_decorator",
)  # fmt: skip
"""Names in a default run's chart of scenarios, and longer ones."""


@pytest.mark.parametrize(
    "modes",
    [SCENARIOS_MODES, sorted(SCENARIOS_MODES, key=len)[-3:], ("inference_mode", "checkpointed", "frozen")],
)
def test_no_text_of_a_chart_is_cut_off_or_runs_into_a_symbol(page: Any, modes: Sequence[str]) -> None:
    """Whichever font the browser takes for what charts were measured in."""
    many = builders.run(*builders.group(dict.fromkeys(modes, 1.2), scenario="frozen_backbone", model="convnet"))
    drawn = page.context.browser.new_page()
    for shown in (read(builders.REFERENCE), many):
        drawn.set_content("".join(charts(shown).values()))
        assert drawn.locator("svg text").count() > 10
        assert drawn.evaluate(CUT_OFF) == []
    drawn.close()


def test_columns_sort_by_their_figures_or_texts_also_from_the_keyboard_and_what_is_missing_stays_last(page: Any) -> None:
    header = page.locator("#cases th", has_text="per call")
    header.locator("button").click()
    assert column(page, "per call") == ["9.00 us", "9.00 us", "100 us", "100 us", "125 us", "125 us", "2.00 ms"]
    assert header.get_attribute("aria-sort") == "ascending"
    header.locator("button").click()
    assert column(page, "per call")[0] == "2.00 ms"
    assert header.get_attribute("aria-sort") == "descending"
    speedup = page.locator("#cases th button", has_text="speedup")
    for _ in range(2):
        speedup.click()
        assert column(page, "speedup")[-1] == "not known"
    assert page.locator("#cases th[aria-sort]").count() == 1
    page.locator("#cases th button", has_text="mode").last.focus()
    page.keyboard.press("Enter")
    assert column(page, "mode") == sorted(column(page, "mode"))


def test_all_cases_of_the_reference_run_fit_into_a_wide_window(page: Any) -> None:
    """Also the saved bytes of adapters, which tell their input's too."""
    shown = page.context.browser.new_page(viewport=WIDE)
    shown.set_content(report.page(read(builders.REFERENCE)))
    box = shown.locator("#cases .scroll")
    assert "(+ input" in box.inner_text()
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") == 0
    shown.close()


def test_nothing_runs_off_the_edge_and_wide_tables_scroll_inside_their_own_box_on_a_phone(page: Any) -> None:
    for viewport in (WIDE, PHONE):
        page.set_viewport_size(viewport)
        assert page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        assert outside_of_boxes(page) == []
    box = page.locator("#cases .scroll")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    assert box.evaluate("box => { box.scrollTo(9999, 0); return box.scrollLeft; }") > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_charts_follow_light_and_dark(scheme: str, page: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    paper = lightness(page, "body", "backgroundColor")
    for element, style in (("p", "color"), (".quiet", "color"), ("#charts svg text", "fill"), ("#cases td", "color")):
        ink = lightness(page, element, style)
        assert (paper < ink) == (scheme == "dark")
        assert abs(paper - ink) > 300


def test_printed_the_page_shows_all_on_white(page: Any) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 720, "height": 200})
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert lightness(page, "#charts svg text", "fill") < 300
    hidden = "() => [...document.querySelectorAll('.scroll')].filter(box => box.scrollHeight > box.clientHeight + 1).length"
    assert page.evaluate(hidden) == 0
    assert outside_of_boxes(page) == []
