"""The report in a real browser: it draws, sorts, filters, copies, fits, prints, and asks nothing of the network."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import make_group, make_result, saved_run

from analysis import report
from analysis.load import load
from benchmarks.record import Interval, Unmeasured

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

REFERENCE = Path(__file__).parent.parent / "results" / "reference" / "cpu.json"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "</script><script>alert(1)</script>"
MOST_BYTES = 2 * 2**20

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here; apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    offline = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=offline)
        yield found
        found.close()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the run that the repository keeps."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.write([load(REFERENCE)], path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with names that are no names, a speedup that is missing, and times whose texts sort otherwise than they do."""
    folder = tmp_path_factory.mktemp("page")
    results = [
        *make_group(model=HOSTILE),
        make_result("tracked", case={"model": "lstm"}, seconds=9e-6),
        make_result("inference_mode", case={"model": "lstm"}, seconds=2e-3, speedup=None, verdict="unclear"),
        make_result("detach", case={"model": "lstm"}, seconds=8.5e-6, speedup=Interval(0.9, 0.88, 0.92), verdict="slower"),
    ]
    gone = Unmeasured(make_result("frozen", case={"model": HOSTILE}).case, "crashed", "x" * 300)
    report.write([load(saved_run(folder / "run.json", results, [gone]))], folder / "report.html")
    return folder / "report.html"


class Opened:
    """A page in a browser, and what it complained about and asked for."""

    def __init__(self, browser: Any, path: Path, before: str = "", **settings: Any) -> None:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | settings)
        self.page = context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        if before:
            self.page.add_init_script(before)
        self.page.goto(path.as_uri())
        for chart in self.page.locator(".chart").all():
            chart.locator("svg").wait_for()

    def column(self, title: str) -> list[str]:
        titles = self.page.locator("#cases th").all_inner_texts()
        cells = self.page.locator(f"#cases tbody tr:visible td:nth-child({titles.index(title) + 1})")
        return [text.strip() for text in cells.all_inner_texts()]

    def lightness(self, element: str, what: str) -> int:
        """The sum of red, green and blue of `what` of the first such element."""
        colour: str = self.page.locator(element).first.evaluate(f"element => getComputedStyle(element).{what}")
        return sum(int(part) for part in colour[4:-1].split(","))

    def overflow(self) -> int:
        """Pixels by which the document is wider than the screen."""
        return int(self.page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.fixture
def opened(browser: Any, small: Path) -> Iterator[Opened]:
    found = Opened(browser, small)
    yield found
    found.page.context.close()


@pytest.mark.parametrize("name", ["reference", "small"])
def test_the_page_draws_every_chart_without_an_error_or_a_request(
    name: str, browser: Any, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(name)
    found = Opened(browser, path)
    drawn = found.page.evaluate(
        "() => [...document.querySelectorAll('.chart')].map(one => one.querySelectorAll('.role-mark path').length)"
    )
    assert len(drawn) >= 2
    assert all(drawn)
    told = "() => [...document.querySelectorAll('.chart')].map(one => document.getElementById(one.getAttribute('aria-labelledby')).innerText)"
    assert all(found.page.evaluate(told))
    assert found.page.locator(".vega-actions, a[href^='http']").count() == 0
    assert found.errors == []
    assert found.requests == [path.as_uri()]
    found.page.context.close()


def test_the_report_of_a_default_run_is_small_enough_to_send(reference: Path) -> None:
    assert reference.stat().st_size <= MOST_BYTES


def test_a_name_that_looks_like_a_script_is_shown_as_text(opened: Opened) -> None:
    assert opened.column("model")[:2] == [HOSTILE, HOSTILE]
    opened.page.locator("#speedup .mark-symbol path").first.hover()
    tooltip = opened.page.locator("#vg-tooltip-element")
    tooltip.wait_for(state="visible")
    assert "<" in tooltip.inner_text()
    assert opened.errors == []


def test_columns_sort_by_their_figures_from_the_keyboard_too_and_missing_ones_stay_last(opened: Opened) -> None:
    button = opened.page.locator("#cases th button", has_text="per call")
    button.focus()
    opened.page.keyboard.press("Enter")
    assert opened.column("per call") == ["8.5 us", "9.00 us", "100.0 us", "125.0 us", "2.00 ms"]
    assert opened.page.locator("#cases th[aria-sort]").get_attribute("aria-sort") == "ascending"
    opened.page.keyboard.press("Enter")
    assert opened.column("per call")[0] == "2.00 ms"
    assert opened.page.locator("#cases th[aria-sort]").get_attribute("aria-sort") == "descending"
    speedup = opened.page.locator("#cases th button", has_text="speedup")
    for _ in range(2):
        speedup.click()
        assert opened.column("speedup")[-1] == "-"


def test_rows_are_filtered_by_words_mode_and_verdict(opened: Opened) -> None:
    search, mode, verdict = opened.page.locator("#cases [data-filter]").all()
    search.fill("LSTM  tiny")
    search.press("Enter")
    assert opened.column("mode") == ["tracked", "inference_mode", "detach"]
    verdict.select_option("slower")
    assert opened.column("mode") == ["detach"]
    assert opened.page.locator("#cases output").inner_text() == "1 of 5 cases"
    mode.select_option("no_grad")
    assert opened.column("mode") == []
    for one in (mode, verdict):
        one.select_option("")
    search.fill("")
    assert len(opened.column("mode")) == 5
    assert opened.errors == []


@pytest.mark.parametrize("clipboard", ["{writeText: async text => { window.copied = text; }}", "undefined"])
def test_the_rows_that_are_shown_are_copied_as_csv_with_and_without_a_clipboard(
    clipboard: str, browser: Any, small: Path
) -> None:
    before = f"""Object.defineProperty(navigator, "clipboard", {{value: {clipboard}}});
        document.addEventListener("copy", () => {{ window.copied = document.activeElement.value; }});"""
    found = Opened(browser, small, before)
    found.page.locator("#cases [data-filter]").first.fill("script")
    found.page.locator("#copy").click()
    found.page.get_by_text("2 cases copied as CSV").wait_for()
    rows = list(csv.DictReader(io.StringIO(found.page.evaluate("() => window.copied"))))
    assert [(row["model"], row["mode"], float(row["seconds"])) for row in rows] == [
        (HOSTILE, "tracked", 125e-6), (HOSTILE, "no_grad", 100e-6),
    ]  # fmt: skip
    found.page.context.close()


@pytest.mark.parametrize(("name", "scheme"), [("reference", "light"), ("small", "dark")])
def test_the_page_fits_a_phone_in_both_schemes(name: str, scheme: str, browser: Any, request: pytest.FixtureRequest) -> None:
    phone: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    found = Opened(browser, request.getfixturevalue(name), **phone)
    assert found.overflow() == 0
    found.page.locator("#speedup .mark-symbol path").first.hover()
    found.page.locator("#vg-tooltip-element").wait_for(state="visible")
    for element, ink in ((".chart text", "fill"), ("#vg-tooltip-element .value", "color"), (".claims .verdict", "color")):
        assert (found.lightness("body", "backgroundColor") < found.lightness(element, ink)) == (scheme == "dark")
        assert abs(found.lightness("body", "backgroundColor") - found.lightness(element, ink)) > 350
    found.page.context.close()


def test_printed_the_page_shows_all_on_white_and_no_controls(browser: Any, reference: Path) -> None:
    found = Opened(browser, reference, color_scheme="dark")
    found.page.emulate_media(media="print", color_scheme="dark")
    found.page.set_viewport_size({"width": 720, "height": 1000})
    assert found.overflow() == 0
    assert not found.page.locator("nav, .filters").first.is_visible()
    assert found.page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert all(section.is_visible() for section in found.page.locator("section").all())
    cut = "() => [...document.querySelectorAll('.chart svg, table')].filter(e => e.getBoundingClientRect().right > innerWidth).length"
    assert found.page.evaluate(cut) == 0
    assert len(found.column("mode")) == len(load(REFERENCE).results)
    found.page.context.close()
