"""The report's page in a real browser, opened from disk."""

# axe has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from support.studies import KINDS, make_large_study, make_ordinary_study
from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.reporter.comparison import write_comparison
from trialbus_services.reporter.report import write_report

MOST_BYTES = 15_000_000
# Generous: what is measured is printed, not judged.
DEADLINE_MS = 50_000
ONE_FILE = ReportSettings(files=[])

OpenPage = Callable[..., Page]
Screenshot = Callable[[Page, str], Path]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The reports of studies of ten and of ten thousand trials."""
    folder = tmp_path_factory.mktemp("reports")
    return {
        n: write_report(make_large_study(n, f"of {n}"), folder, options=ONE_FILE)[0]
        for n in (10, 10_000)
    }


def show(page: Page, path: Path) -> Page:
    page.set_default_timeout(DEADLINE_MS)
    expect.set_options(timeout=DEADLINE_MS)
    page.goto(path.as_uri())
    return page


def draw_all(page: Page) -> int:
    """Scroll through all figures and return the number of figures."""
    figures = page.locator("[data-figure]")
    for i in range(figures.count()):
        figures.nth(i).scroll_into_view_if_needed()
        expect(figures.nth(i)).to_have_attribute("data-drawn", "yes")
    return figures.count()


def column(page: Page, name: str) -> list[str]:
    names = page.locator("#table thead th").all_text_contents()
    return page.locator(f"#table tbody td:nth-child({names.index(name) + 1})").all_text_contents()


def head(page: Page, name: str) -> Locator:
    return page.locator("#table").get_by_role("button", name=name, exact=True)


@pytest.mark.parametrize("n_trials", [10, 10_000])
def test_the_page_opens_from_disk_draws_every_figure_and_answers(
    n_trials: int, pages: dict[int, Path], page: Page, screenshot: Screenshot
) -> None:
    path = pages[n_trials]
    assert path.stat().st_size < MOST_BYTES
    show(page, path)
    expect(page.locator("[data-figure]").first).to_have_attribute("data-drawn", "yes")
    # From the start of the navigation until the first figure is drawn and a key is answered.
    page.locator("#filter").fill("adam")
    expect(page.locator("#status")).to_contain_text(" of ")
    interactive_ms = page.evaluate("performance.now()")
    print(f"{n_trials} trials: {path.stat().st_size / 1e6:.1f} MB, {interactive_ms:.0f} ms")
    assert draw_all(page) == 9
    page.evaluate("scrollTo(0, 0)")
    screenshot(page, f"report-{n_trials}")


def test_the_table_sorts_by_each_column_and_what_has_no_value_comes_last(
    pages: dict[int, Path], page: Page
) -> None:
    show(page, pages[10_000])
    head(page, "lr").click()
    ascending = [float(text) for text in column(page, "lr")]
    assert ascending == sorted(ascending)
    assert len(ascending) == 100
    head(page, "lr").click()
    descending = [float(text) for text in column(page, "lr")]
    assert descending == sorted(descending, reverse=True)
    assert descending[0] > ascending[-1]
    expect(page.locator("th[aria-sort]")).to_have_attribute("aria-sort", "descending")
    head(page, "objective").click()
    assert all(column(page, "objective"))
    head(page, "objective").click()
    assert all(column(page, "objective"))
    head(page, "optimizer").click()
    assert set(column(page, "optimizer")) == {"adam"}


def test_the_table_filters_by_words_and_by_columns(pages: dict[int, Path], page: Page) -> None:
    show(page, pages[10_000])
    expect(page.locator("#status")).to_have_text("1 to 100 of 10,000 trials")
    page.locator("#filter").fill("state=pruned lr<0.001 adam")
    assert set(column(page, "state")) == {"pruned"}
    assert set(column(page, "optimizer")) == {"adam"}
    assert all(float(text) < 0.001 for text in column(page, "lr"))
    page.locator("#filter").fill("state!=complete objective=")
    assert set(column(page, "objective")) == {""}
    page.locator("#filter").fill("trial>=9998")
    assert column(page, "trial") == ["9998", "9999"]
    expect(page.locator("#status")).to_have_text("2 of 10,000 trials")
    page.locator("#filter").fill("no such thing")
    expect(page.locator("#status")).to_have_text("0 of 10,000 trials")


def test_the_table_has_pages(pages: dict[int, Path], page: Page) -> None:
    show(page, pages[10_000])
    page.get_by_role("button", name="Next").click()
    assert column(page, "trial")[0] == "100"
    expect(page.locator("#status")).to_have_text("101 to 200 of 10,000 trials")
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()
    page.locator("#filter").fill("trial<5")
    expect(page.get_by_role("button", name="Next")).to_be_hidden()


@pytest.mark.parametrize("plotly_js", ["inside", "beside"])
def test_plotly_is_found_inside_the_page_and_beside_it(
    plotly_js: str, tmp_path: Path, page: Page
) -> None:
    options = ReportSettings(files=[], figures=["history"], plotly_js=plotly_js)  # type: ignore[arg-type]
    show(page, write_report(make_ordinary_study(), tmp_path, options=options)[0])
    assert draw_all(page) == 1


def test_figures_follow_the_browsers_scheme_while_the_page_is_open(
    pages: dict[int, Path], page: Page, screenshot: Screenshot
) -> None:
    show(page, pages[10])
    tick = page.locator("[data-figure=history] .xtick text").first
    light = tick.evaluate("element => getComputedStyle(element).fill")
    page.emulate_media(color_scheme="dark")
    expect(tick).not_to_have_css("fill", light)
    expect(page.locator("body")).to_have_css("background-color", "rgb(20, 24, 30)")
    screenshot(page, "report-dark")


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        ("ordinary", "light"),
        ("ordinary", "dark"),
        ("two objectives", "light"),
        ("comparison", "dark"),
        ("no trial", "light"),
    ],
)
def test_axe_finds_nothing(
    kind: str, scheme: str, tmp_path: Path, open_page: OpenPage, screenshot: Screenshot
) -> None:
    page = open_page(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    if kind == "comparison":
        (path,) = write_comparison([make_ordinary_study("a"), make_ordinary_study("b")], tmp_path)
    else:
        path = write_report(KINDS[kind](), tmp_path, options=ONE_FILE)[0]
    show(page, path)
    # One figure stands for all: looking at every text in them takes a browser long.
    if kind != "no trial":
        expect(page.locator("[data-figure]").first).to_have_attribute("data-drawn", "yes")
    screenshot(page, f"{kind.replace(' ', '-')}-{scheme}")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("kind", ["three objectives", "a hundred params"])
def test_a_narrow_screen_scrolls_figures_and_tables_but_not_the_page(
    kind: str, tmp_path: Path, open_page: OpenPage, screenshot: Screenshot
) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    show(page, write_report(KINDS[kind](), tmp_path, options=ONE_FILE)[0])
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.evaluate("scrollTo(0, 0)")
    screenshot(page, f"{kind.replace(' ', '-')}-narrow")
