import dataclasses
import io
import math
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from rich.console import Console
from selenium import webdriver

from pipeline.compare import console
from pipeline.compare import page as comparison_page
from pipeline.compare import text as comparison_text
from pipeline.compare.page import Page
from pipeline.compare.statistics import Comparison, Trial
from tests import trials
from tests.pages import PHONE, VALIDATE, Elements, chromium, wait

HOSTILE = "</script><img src=x onerror=alert(1)>"


def trial(strategy: str, seed: int, epochs: int, growth: int, test: float) -> Trial:
    """A run whose batch grows, or whose learning rate falls, after half of its epochs."""
    records = []
    updates = 0
    for epoch in range(1, epochs + 1):
        late = epoch > epochs // 2
        updates += 100 // growth if late else 100
        action = {epochs // 2: "batch_increase" if growth > 1 else "lr_decay", epochs: "stop"}
        records.append(
            trials.epoch(
                epoch,
                metrics={"val_accuracy": 0.95 - 0.4 / epoch + 0.01 * seed, "loss": 1 / epoch},
                learning_rate=0.1 if growth > 1 or not late else 0.025,
                batch_size=32 * growth if late else 32,
                update_noise=10.0 if late else 40.0,
                updates=updates,
                examples=3200 * epoch,
                seconds=4.0 + updates / 100,
                action=action.get(epoch, "none"),
                reason=f"no better for 3 epochs {HOSTILE}",
                best=epoch < epochs,
            )
        )
    return trials.trial(strategy, seed, records, test, stop_reason="no better for 3 epochs")


def comparison(seeds: int = 2, tests: tuple[float, float] = (0.97, 0.975)) -> Comparison:
    grow = [trial("batch_increase", s, 8 + s, 4, tests[1] - 0.002 * s) for s in range(seeds)]
    decay = [trial("lr_decay", s, 8 + s, 1, tests[0] + 0.004 * s) for s in range(seeds)]
    return Comparison((*decay, *grow))


def page(made: Comparison, title: str = "digits") -> Page:
    return Page(
        title=title,
        written=datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc),
        comparison=made,
        command="plateau compare digits --seeds 2",
        config={"optimization": {"learning_rate": 0.1}, "classes": [HOSTILE]},
        cores=2,
    )


def test_every_number_is_in_a_table_and_nothing_is_loaded() -> None:
    made = comparison()
    found = Elements(comparison_page.page(page(made)))
    assert found.tags.count("section") == 6
    assert all(address.startswith(("#", "data:")) for address in found.addresses)
    for total in made.totals:
        assert comparison_text.cost(total.costs["updates"]) in found.text
        assert comparison_text.share(total.test_score) in found.text
    for run in made.trials:
        assert f"All {len(run.history.epochs)} epochs of {run.strategy}, seed {run.seed}" in (
            found.text
        )
    assert "plateau compare digits --seeds 2" in found.text
    assert comparison_text.verdict(made).headline in found.text


def test_hostile_text_is_shown_and_not_run() -> None:
    text = comparison_page.page(page(comparison(), title=HOSTILE))
    found = Elements(text)
    assert "img" not in found.tags
    assert found.text.count(HOSTILE) >= 3
    assert text.count("</script>") == 3


def test_means_are_solid_while_all_seeds_go_on_and_dotted_after() -> None:
    data = comparison_page.metric_over(comparison(), "epochs").to_json()["data"]
    lines = [trace for trace in data if trace["name"] == "lr_decay"]
    assert [trace["line"]["dash"] for trace in lines] == ["solid", "dot"]
    assert [trace["x"] for trace in lines] == [list(range(1, 9)), [8, 9]]
    assert ", 1 of 2 seeds" in lines[1]["text"]


def test_every_decision_of_every_seed_is_marked() -> None:
    data = comparison_page.metric_over(comparison(), "updates").to_json()["data"]
    marks = [trace for trace in data if trace["name"].endswith(", decisions")]
    assert [trace["x"] for trace in marks] == [[400, 800, 400, 900], [400, 500, 400, 525]]
    assert marks[1]["marker"]["symbol"] == ["circle", "x", "circle", "x"]
    assert "batch grown" in marks[1]["text"][0]


def test_one_seed_has_no_band_and_proves_nothing() -> None:
    made = comparison(seeds=1)
    data = comparison_page.metric_over(made, "epochs").to_json()["data"]
    assert not any("fill" in trace for trace in data)
    found = Elements(comparison_page.page(page(made)))
    assert "one seed cannot tell" in found.text
    assert comparison_text.verdict(made).kind == "unknown"


@pytest.mark.parametrize(
    ("tests", "kind", "words"),
    [
        ((0.970, 0.975), "good", "which 2 seeds cannot tell from chance"),
        ((0.900, 0.990), "good", "and is more accurate"),
        ((0.990, 0.900), "bad", "but is less accurate"),
    ],
)
def test_the_verdict_weighs_accuracy_against_the_spread(
    tests: tuple[float, float], kind: str, words: str
) -> None:
    found = comparison_text.verdict(comparison(tests=tests))
    assert found.kind == kind
    assert found.headline.startswith("batch_increase took 0.60 of lr_decay's updates and 0.55 of")
    assert words in f"{found.headline} {found.sentences[0]}"
    assert not found.caution


def test_weights_from_before_the_first_decision_are_no_evidence() -> None:
    made = comparison()
    early = [
        dataclasses.replace(
            run,
            history=dataclasses.replace(
                run.history,
                epochs=[dataclasses.replace(r, best=r.epoch == 1) for r in run.history.epochs],
            ),
        )
        for run in made.trials
    ]
    found = comparison_text.verdict(Comparison(tuple(early)))
    assert found.kind == "unknown"
    assert "In every run the best epoch came before the first decision" in found.caution


def test_costs_that_are_not_known_have_words() -> None:
    """Runs of a single epoch have no seconds after it."""
    runs = [
        dataclasses.replace(
            run, history=dataclasses.replace(run.history, epochs=run.history.epochs[:1])
        )
        for run in comparison().trials
    ]
    made = Comparison(tuple(runs))
    assert math.isnan(made.totals[1].ratios["seconds"].value)
    assert "an unknown part of its seconds" in comparison_text.verdict(made).sentences[0]
    assert "nan" not in Elements(comparison_page.page(page(made))).text.split()


def test_the_console_shows_totals_verdict_and_places() -> None:
    file = io.StringIO()
    made = comparison()
    console.print_comparison(
        Console(file=file, width=120), made, Path("out/comparison.html"), Path("out/1.log"), 3.0
    )
    text = file.getvalue()
    assert "out/comparison.html" in text
    assert "x 0.60" in text
    assert comparison_text.verdict(made).headline in " ".join(text.split())


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.mark.component
def test_every_plot_is_drawn_and_fits_a_phone(browser: webdriver.Chrome, tmp_path: Path) -> None:
    file = tmp_path / "comparison.html"
    file.write_text(comparison_page.page(page(comparison(), title=HOSTILE)))
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    browser.get(file.as_uri())
    wait(browser)
    drawn = browser.execute_script(
        """return [...document.querySelectorAll(".plot")].map((plot) =>
             [plot.id, plot.querySelectorAll(".trace path, .points path").length])"""
    )
    assert [name for name, _ in drawn] == [
        f"plot-{name}" for name in ("epochs", "updates", "seconds", "accuracy")
    ]
    assert all(parts > 2 for _, parts in drawn)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    problems = browser.execute_script(VALIDATE)
    assert problems == [], "\n".join(problems)
    assert browser.get_log("browser") == []
