"""The page in a real browser."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from components.gate import Check
from components.training_report import page
from components.training_report.page import Report
from tests.pages import PATIENCE, PHONE, VALIDATE, chromium, wait

pytestmark = pytest.mark.component

PLOTS = ("training", "metrics", "noise", "by-class", "confusion", "counts")
HOSTILE = "<script>alert(1)</script>"

# Of each plot: its width, height and number of lines, marks, bars and cells.
DRAWN = """
return Object.fromEntries([...document.querySelectorAll(".plot")].map((plot) => {
  const box = plot.querySelector("svg.main-svg")?.getBoundingClientRect();
  const parts = plot.querySelectorAll(".trace path, .points path, .hm image").length;
  return [plot.id.slice(5), [box?.width ?? 0, box?.height ?? 0, parts]];
}));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def show(driver: webdriver.Chrome, folder: Path, report: Report, scheme: str = "light") -> str:
    """Open a report and wait until it is drawn; gives its address."""
    file = folder / "report.html"
    file.write_text(page.page(report))
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    driver.get(file.as_uri())
    wait(driver)
    return file.as_uri()


def requested(driver: webdriver.Chrome, address: str) -> set[str]:
    """What the page at an address has requested; the browser's own pages request more."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return {each["request"]["url"] for each in sent if each["documentURL"] == address}


def test_every_plot_is_drawn_without_network_or_error(
    browser: webdriver.Chrome, report: Callable[..., Report], tmp_path: Path
) -> None:
    browser.get_log("browser")
    address = show(browser, tmp_path, report())
    drawn = browser.execute_script(DRAWN)
    assert set(drawn) == set(PLOTS)
    for name, (width, height, parts) in drawn.items():
        assert width > 200, name
        assert height > 100, name
        assert parts > 0, name
    assert browser.get_log("browser") == []
    urls = requested(browser, address)
    assert {url for url in urls if not url.startswith("data:")} == {address}


def test_plots_out_of_sight_come_later_in_their_places(
    browser: webdriver.Chrome, report: Callable[..., Report], tmp_path: Path
) -> None:
    never = "window.requestIdleCallback = () => 0"
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": never})
    places = (
        "return [...document.querySelectorAll('.plot')].map((plot) => "
        "[plot.id.slice(5), plot.classList.contains('js-plotly-plot'), plot.offsetTop])"
    )
    whole = "return document.documentElement.dataset.drawn === 'yes'"
    # High enough for the start of the first plot, and of no other.
    window = {"width": 1200, "height": 1100, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    try:
        file = tmp_path / "report.html"
        file.write_text(page.page(report()))
        browser.get(file.as_uri())
        # The driver may come back before the page has run its last script.
        some = "return document.querySelector('.js-plotly-plot') !== null"
        WebDriverWait(browser, PATIENCE).until(lambda each: each.execute_script(some))
        before = browser.execute_script(places)
        assert [name for name, drawn, _ in before if drawn] == ["training"]
        assert not browser.execute_script(whole)
        browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
        after = browser.execute_script(places)
        assert browser.execute_script(whole)
        assert all(drawn for _, drawn, _ in after)
        assert [top for *_, top in after] == [top for *_, top in before]
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_names_are_shown_and_not_run(
    browser: webdriver.Chrome,
    report: Callable[..., Report],
    moved: Callable[..., list[Check]],
    tmp_path: Path,
) -> None:
    names = (HOSTILE, "<b>x</b>", "&lt;", "$x$")
    show(browser, tmp_path, report(names, drift=moved(names)))
    texts: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#plot-confusion .ytick text')]"
        ".map((tick) => tick.textContent)"
    )
    assert texts == [HOSTILE[:17] + "…", "<b>x</b>", "&lt;", "$x$"]
    rows: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#data tbody th')].map((cell) => cell.textContent)"
    )
    # Once as a class, once as a feature that has moved.
    assert all(rows.count(name) >= 2 for name in names)
    failed: str = browser.execute_script("return document.querySelector('#serving td').textContent")
    assert failed.startswith("</script><img src=x onerror=alert(1)>: 3 of 30")
    # An alert that had opened would make every further command fail.
    assert browser.execute_script("return document.images.length") == 5


def test_the_axis_can_be_switched(
    browser: webdriver.Chrome, report: Callable[..., Report], tmp_path: Path
) -> None:
    made = report()
    show(browser, tmp_path, made)
    for unit, last in (("updates", 600), ("seconds", 10.2), ("epochs", 6)):
        browser.execute_script(
            "document.querySelector(`#noise input[value='${arguments[0]}']`).click()", unit
        )
        for plot in ("training", "noise"):
            found: Any = browser.execute_script(
                "const plot = document.getElementById('plot-' + arguments[0]);"
                "return [plot.data[0].x.at(-1), plot.layout.shapes.map((shape) => shape.x0)]",
                plot,
            )
            assert found == [last, [last / 2, last]], (unit, plot)
        chosen = 'return document.querySelector("#training input:checked").value'
        assert browser.execute_script(chosen) == unit


def test_plots_follow_the_colour_scheme(
    browser: webdriver.Chrome, report: Callable[..., Report], tmp_path: Path
) -> None:
    colours = (
        "const plot = document.getElementById('plot-training');"
        "return [getComputedStyle(document.body).backgroundColor, plot._fullLayout.font.color,"
        " plot.data[1].line.color]"
    )
    show(browser, tmp_path, report(), "light")
    light = browser.execute_script(colours)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    WebDriverWait(browser, PATIENCE).until(lambda each: each.execute_script(colours)[2] != light[2])
    dark = browser.execute_script(colours)
    assert all(before != after for before, after in zip(light, dark, strict=True))


def test_plotly_knows_every_option(
    browser: webdriver.Chrome, report: Callable[..., Report], tmp_path: Path
) -> None:
    """Plotly ignores what it does not know, such as a misspelt option."""
    show(browser, tmp_path, report())
    problems = browser.execute_script(VALIDATE)
    assert problems == [], "\n".join(problems)


def test_on_a_phone_nothing_scrolls_sideways_but_tables(
    browser: webdriver.Chrome, report: Callable[..., Report], tmp_path: Path
) -> None:
    names = tuple(f"a_class_with_one_very_long_word_{number}" for number in range(30))
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    try:
        show(browser, tmp_path, report(names))
        browser.execute_script(
            "for (const each of document.querySelectorAll('details')) each.open = true"
        )
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width == 390
        plots = browser.execute_script(DRAWN)
        assert all(plots[name][0] <= 390 for name in ("training", "noise", "by-class", "counts"))
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
