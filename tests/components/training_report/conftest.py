import dataclasses
import io
import math
import random
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from PIL import Image

from components.drift_gate.drift import distance
from components.evaluation.results import ConfusionMatrix, Evaluation, SliceMetrics
from components.gate import Check
from components.servable.measurement import Latency, Signature
from components.servable.verdict import Result
from components.training_report.data import DataSummary, Feature
from components.training_report.mistakes import Mistake, Mistakes, thumbnail
from components.training_report.page import Report
from trainer_module.history import EpochRecord, History

CLASSES = ("cat", "dog", "<script>alert(1)</script>")
HOSTILE = "</script><img src=x onerror=alert(1)>"


def epoch(number: int, **changes: Any) -> EpochRecord:
    """A plausible epoch; accuracy rises and loss falls towards a limit."""
    progress = 1 - math.exp(-number / 8)
    record = EpochRecord(
        epoch=number,
        metrics={
            "accuracy": 0.5 + 0.49 * progress,
            "loss": 2.0 * (1 - progress) + 0.02,
            "val_accuracy": 0.5 + 0.45 * progress,
            "val_loss": 1.9 * (1 - progress) + 0.1,
        },
        learning_rate=0.05,
        batch_size=64,
        update_noise=16.3,
        simple_noise_scale=20.0 + number,
        updates=100 * number,
        examples=6400 * number,
        seconds=1.7 * number,
        action="none",
        reason="val_accuracy, the best so far",
        best=True,
    )
    return dataclasses.replace(record, **changes)


def make_history(epochs: int = 6, **changes: Any) -> History:
    """A run that grows its batch half-way and stops at the end."""
    records = [epoch(number) for number in range(1, epochs + 1)]
    half = epochs // 2
    for place, record in enumerate(records):
        later = place >= half
        records[place] = dataclasses.replace(
            record,
            learning_rate=0.05 if not later else 0.005,
            batch_size=64 if not later else 256,
            update_noise=16.3 if not later else 0.4,
        )
    if epochs > 1:
        records[half - 1] = dataclasses.replace(
            records[half - 1],
            action="batch_increase_and_lr_decay",
            reason="no better val_accuracy for 3 epochs; batch 64 -> 256",
            best=False,
        )
        records[-1] = dataclasses.replace(
            records[-1], action="stop", reason="no better val_accuracy for 3 epochs", best=False
        )
    made = History(
        config={"schedule": {"strategy": "hybrid", "plan": None}, "batch_size": 64},
        monitor="val_accuracy",
        mode="max",
        epochs=tuple(records),
        stop_reason="no better val_accuracy for 3 epochs, after 1 of 1 actions",
        traces={"train_step": 1, "eval_step": 1},
    )
    return dataclasses.replace(made, **changes)


def make_evaluation(classes: tuple[str, ...] = CLASSES, **changes: Any) -> Evaluation:
    """Accuracies by class that differ, a gate that fails, and a matrix with mistakes."""
    draw = random.Random(0)
    accuracy = {name: round(0.7 + 0.3 * draw.random(), 4) for name in classes}
    old = {name: round(0.7 + 0.3 * draw.random(), 4) for name in classes}
    ranked = sorted(classes, key=lambda name: accuracy[name])
    counts: dict[tuple[int, int], float] = {}
    for index, name in enumerate(classes):
        right = round(50 * accuracy[name])
        counts[index, index] = right
        for _ in range(50 - right):
            other = (index + draw.choice([1, 1, 1, 2, 3])) % len(classes)
            if other != index:
                counts[index, other] = counts.get((index, other), 0) + 1

    def metrics(value: float, examples: int = 50) -> SliceMetrics:
        return SliceMetrics(examples, {"accuracy": value, "crossentropy": 1.5 * (1 - value)})

    gates = [
        Check("accuracy, all examples", 0.85, 0.8, True, metric="accuracy"),
        Check("accuracy - baseline's", -0.03, -0.02, False, metric="accuracy", is_change=True),
    ]
    gates += [
        Check(
            f"accuracy, class {name}",
            accuracy[name],
            0.72,
            accuracy[name] >= 0.72,
            metric="accuracy",
            subject=name,
        )
        for name in ranked
    ]
    made = Evaluation(
        candidate=metrics(0.85, 50 * len(classes)),
        baseline=metrics(0.88, 50 * len(classes)),
        classes=tuple((name, metrics(accuracy[name])) for name in ranked),
        gates=tuple(gates),
        baseline_classes={name: metrics(old[name]) for name in classes},
        matrix=ConfusionMatrix(tuple(classes), counts),
    )
    return dataclasses.replace(made, **changes)


def picture(side: int, seed: int) -> bytes:
    """A PNG of coloured noise."""
    content = random.Random(seed).randbytes(side * side * 3)
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), content).save(file, "PNG")
    return file.getvalue()


def make_mistakes(classes: tuple[str, ...] = CLASSES, number: int = 5, side: int = 8) -> Mistakes:
    shown = []
    for place in range(number):
        uri, width = thumbnail(picture(side, place))
        shown.append(
            Mistake(
                actual=classes[place % len(classes)],
                predicted=classes[(place + 1) % len(classes)],
                confidence=0.99 - 0.01 * place,
                actual_probability=0.005,
                name=f"test/{HOSTILE}/{place}.png",
                thumbnail=uri,
                width=width,
            )
        )
    return Mistakes(tuple(shown), wrong=3 * number, looked_at=2000, every=2)


def make_drift(features: tuple[str, ...] = (HOSTILE, "fare")) -> list[Check]:
    """Drift of each feature, the first ones the furthest, and skew of the last, unbounded."""
    found = [
        distance("drift", name, 0.4 - 0.3 * place / len(features), 0.3)
        for place, name in enumerate(features)
    ]
    return [*found, distance("skew", features[-1], 0.0123, None)]


def make_serving(**changes: Any) -> Result:
    """A model that fails one check, passes one, and is not judged by one."""
    made = Result(
        version=2,
        blessed=False,
        checks=[
            Check("finite", f"{HOSTILE}: 3 of 30", "no output may hold NaN", False, "in one batch"),
            Check("loads", "in 0.50 s", "tf.saved_model.load must load it", True),
            Check("size", "1.25 MiB", "no limit", None, "no limit is set"),
        ],
        signatures=[
            Signature("serving_default", "examples", {"examples": "string [None]"}, {HOSTILE: "x"}),
            Signature("train", "features", {"x": "float32 [None]"}, {}, "left out by hand"),
        ],
        latency=[Latency("serving_default", 200, 1.234, 5.678)],
        model_mib=1.25,
        split="test",
        examples=64,
        seconds=2.5,
        tensorflow="2.16.2",
        device="CPU",
        arithmetic="float32",
    )
    return dataclasses.replace(made, **changes)


def make_report(classes: tuple[str, ...] = CLASSES, epochs: int = 6, **changes: Any) -> Report:
    """A report with every section filled."""
    numbers = {split: 40 * share for split, share in (("train", 8), ("eval", 1), ("test", 1))}
    made = Report(
        title=f"digits {HOSTILE}",
        written=datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc),
        history=make_history(epochs),
        evaluation=make_evaluation(classes),
        blessed=False,
        servable=False,
        data=DataSummary(
            {split: number * len(classes) for split, number in numbers.items()},
            {split: dict.fromkeys(classes, number) for split, number in numbers.items()},
            "",
            (Feature("image", "BYTES", True, ""), Feature("label", "BYTES", True, "3 values")),
        ),
        split="test",
        mistakes=make_mistakes(classes),
        anomalies=(f"split train, feature label: {HOSTILE} is unknown",),
        drift=make_drift(),
        serving=make_serving(),
        command="plateau run digits --patience 2",
        versions={"Python": "3.10.13", "tfx": "1.16.0"},
        fingerprint="0123456789abcdef",
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="session")
def report() -> Callable[..., Report]:
    return make_report


@pytest.fixture(scope="session")
def evaluated() -> Callable[..., Evaluation]:
    return make_evaluation


@pytest.fixture(scope="session")
def trained() -> Callable[..., History]:
    return make_history


@pytest.fixture(scope="session")
def encoded() -> Callable[[int, int], bytes]:
    return picture


@pytest.fixture(scope="session")
def moved() -> Callable[..., list[Check]]:
    return make_drift


@pytest.fixture(scope="session")
def served() -> Callable[..., Result]:
    return make_serving
