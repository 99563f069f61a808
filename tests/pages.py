"""HTML pages as a browser sees them: parsed, and in Chromium."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 120
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
VALIDATE = """
return [...document.querySelectorAll(".plot")].flatMap(
  (plot) => Plotly.validate(plot.data, plot.layout) ?? [])
.filter((each) => each.code !== "unused").map((each) => each.msg)
"""
"""Options that Plotly does not know, such as misspelt ones, which it ignores."""

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
)


class Elements(HTMLParser):
    """Counts elements and collects text and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.addresses: list[str] = []
        self._inside = ""
        # What follows is for the plots; parsing Plotly itself takes seconds.
        self.feed(text.partition('<script type="application/json"')[0])
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        self.text += " " * (tag in ("td", "th", "dt", "dd", "li"))

    def handle_data(self, data: str) -> None:
        if self._inside != "style":
            self.text += data


def page_data(text: str) -> dict[str, Any]:
    """Returns the data of the plots on a page."""
    (content,) = re.findall(r'<script type="application/json" id="page-data">(.*?)</script>', text)
    parsed: dict[str, Any] = json.loads(content)
    return parsed


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Starts Chromium; skips the test where there is none."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("needs chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    browser.set_page_load_timeout(PATIENCE)
    yield browser
    browser.quit()


def wait(browser: webdriver.Chrome) -> None:
    """Waits until every plot of the page is drawn."""
    done = "return document.documentElement.dataset.drawn === 'yes'"
    WebDriverWait(browser, PATIENCE).until(lambda each: each.execute_script(done))
