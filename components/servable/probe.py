"""Probe of a model: loads it in a process of its own, sends requests and measures the answers.

    python -m components.servable.probe job.json measurements.jsonl

It imports neither TFX nor, unless the model cannot be loaded otherwise, Keras: a model server has
neither.
"""

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    # TensorFlow imports Keras where it finds it; a model server has none.
    sys.modules["keras"] = sys.modules["tf_keras"] = None  # type: ignore[assignment]
    # A third of its import would go to looking for garbage where there is none; it is what
    # `trainer_module.util.collector` does, which a model server has not.
    gc.disable()

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from components.group import groups
from components.servable import findings, prediction, verdict
from components.servable import signature as signatures
from components.servable.measurement import (
    Finding,
    Finished,
    Latency,
    Loaded,
    Measurement,
    Requests,
    Stage,
    to_line,
)
from components.servable.signature import Answer, Row, Tried
from schemas import FILE_NAME, columns

BATCH = 256
"""Examples in the large request, if they are small."""

BATCH_BYTES = 32 * 2**20
"""Bytes that its examples may have together: of large images a few say as much as many."""

SINGLES = 16
"""Rows of it that are also sent alone."""

WARM_UP, MIN_TIMED, MAX_TIMED = 10, 50, 200
"""Requests for one example: not timed; timed at least; timed at most."""

TIMED_SECONDS = 5.0
"""After so long no more requests than MIN_TIMED are timed."""

# Examples with all values are looked for among as many as so many large requests hold.
_LOOKED_AT = 4
_HALVES = {tf.bfloat16.as_datatype_enum: "bfloat16", tf.float16.as_datatype_enum: "float16"}

Record = Callable[[Measurement], None]


class Job(NamedTuple):
    """Input of a probe.

    Attributes:
        model: Folder of the SavedModel.
        files: TFRecord files of tf.Examples; compressed where their name ends in .gz.
        leave_out: Signatures not to try.
        label: Raw feature that names the class.
        evaluation: Fields of `prediction.Evaluation`; None if there is none to compare with.
        originals: TFRecord file of pairs of tf.Examples, one with an image as it is stored and
            one with the file that it was made of (`schemas.ORIGINALS`); empty if there is none.
    """

    model: str
    files: Sequence[str]
    leave_out: Sequence[str]
    label: str
    evaluation: Mapping[str, Any] | None
    originals: str = ""


def run(job: Job, record: Record) -> None:
    """Measures everything.

    Args:
        job: Model and examples.
        record: Takes each measurement as soon as it is made.
    """
    started = time.perf_counter()
    record(Stage("reading the examples"))
    serialized = records(job.files).as_numpy_iterator()
    first = next(groups(serialized, len, _LOOKED_AT * BATCH, _LOOKED_AT * BATCH_BYTES), [])
    if not first:
        record(Requests(0))
    elif (loaded := _load(job.model, record)) is not None:
        rows = signatures.as_served(list(map(signatures.parse, first)), _columns(job.model))
        _Probe(job, *loaded, rows, record).run()
    record(Finished(time.perf_counter() - started))


class _Probe:
    """Requests to a loaded model."""

    def __init__(
        self, job: Job, model: Any, tolerance: float, rows: Sequence[Row], record: Record
    ) -> None:
        self._job, self._tolerance, self._record = job, tolerance, record
        self._tried, suitable, self._signatures = signatures.choose(
            model.signatures, rows, job.leave_out
        )
        self._size = batch_size(max(len(row.serialized) for row in rows))
        self._rows = suitable[: self._size]
        self._large = [self._rows[i % len(self._rows)] for i in range(self._size)]
        self._answers: dict[str, Answer] = {}
        """Answers to the large request, of signatures that answer a single example too."""

    def run(self) -> None:
        for each in self._signatures:
            self._record(each)
        self._record(Requests(len(self._rows)))
        for signature in self._tried:
            single = self._answer(signature, self._rows[:1])
            large = self._answer(signature, self._large)
            self._answer(signature, [])
            if single is not None and large is not None:
                self._answers[signature.name] = large
        sound = [signature for signature in self._tried if signature.name in self._answers]
        for signature in sound:
            self._compare_singles(signature)
        self._compare_signatures(sound)
        if sound:
            self._compare_session(sound)
        for signature in sound:
            self._send_corrupt(signature)
        if self._job.originals:
            self._send_originals(sound)
        for signature in sound:
            self._time(signature)
        if self._job.evaluation is not None:
            self._record(Stage("predicting the whole split"))
            self._record(
                prediction.predict(
                    {each.name: each.function for each in self._tried},
                    {each.name for each in self._tried if each.form == signatures.EXAMPLES},
                    records(self._job.files).batch(self._size),
                    prediction.Evaluation(**self._job.evaluation),
                    self._job.label,
                    self._tolerance,
                )
            )

    def _answer(self, signature: Tried, rows: Sequence[Row]) -> Answer | None:
        count = len(rows)
        self._record(Stage(f"asking {signature.name} about {count} example(s)"))
        subject = f"{signature.name}, {count} {'row' if count == 1 else 'rows'}"
        rule = verdict.ANSWERS if rows else verdict.EMPTY
        try:
            answer = signature.ask(rows)
        except Exception as error:
            problem = f"{subject}: {findings.message(error)}"
            refused = findings.of_refusal(rule, subject, error)
            self._record(Finding(rule, problem) if rows else refused)
            return None
        self._record(Finding(rule))
        specs = signature.function.structured_outputs
        for finding in findings.of_answer(subject, count, answer, specs):
            self._record(finding)
        return answer

    def _compare_singles(self, signature: Tried) -> None:
        self._record(Stage(f"asking {signature.name} about single examples"))
        chosen = list(range(0, self._size, max(self._size // SINGLES, 1)))
        try:
            single = [signature.ask([self._large[i]]) for i in chosen]
        except Exception as error:
            problem = f"{signature.name}, 1 row: {findings.message(error)}"
            self._record(Finding(verdict.ANSWERS, problem))
            return
        large = {
            name: value[chosen]
            for name, value in self._answers[signature.name].items()
            # Neither what is not a row for each example, nor rows padded to the longest.
            if value.shape[:1] == (self._size,)
            and all(answer[name].shape == (1, *value.shape[1:]) for answer in single)
        }
        joined = {name: np.concatenate([answer[name] for answer in single]) for name in large}
        self._compare(verdict.SINGLE, signature.name, large, joined)

    def _compare_signatures(self, tried: Sequence[Tried]) -> None:
        """Compares signatures of which one gives nothing that the other does not give, too."""
        for i, one in enumerate(tried):
            for other in tried[:i]:
                small, large = sorted((one, other), key=lambda each: len(each.outputs))
                if small.outputs.items() <= large.outputs.items():
                    self._compare(
                        verdict.SIGNATURES,
                        f"{one.name} and {other.name}",
                        self._answers[small.name],
                        self._answers[large.name],
                    )

    def _compare_session(self, tried: Sequence[Tried]) -> None:
        """Loads and asks as TensorFlow Serving does: in a session, by the names of tensors."""
        self._record(Stage("loading the model in a session"))
        try:
            with tf.Graph().as_default(), tf.compat.v1.Session() as session:
                load = tf.compat.v1.saved_model.load
                loaded = load(session, [tf.saved_model.SERVING], self._job.model)
                for signature in tried:
                    self._record(Stage(f"asking {signature.name} in a session"))
                    definition = loaded.signature_def[signature.name]
                    fetches = {
                        name: info.name
                        for name, info in definition.outputs.items()
                        if info.WhichOneof("encoding") == "name"
                    }
                    feeds = {
                        definition.inputs[name].name: value
                        for name, value in signature.build(self._large).items()
                    }
                    answer = session.run(fetches, feeds)
                    self._compare(
                        verdict.SESSION,
                        signature.name,
                        {name: np.asarray(value) for name, value in answer.items()},
                        self._answers[signature.name],
                    )
        except Exception as error:
            self._record(Finding(verdict.SESSION, findings.message(error)))

    def _compare(self, rule: str, subject: str, one: Answer, other: Answer) -> None:
        for finding in findings.compare(rule, subject, one, other, self._tolerance):
            self._record(finding)

    def _send_corrupt(self, signature: Tried) -> None:
        good = signature.build(self._rows[:1])
        must_refuse = set(good) if signature.form == signatures.EXAMPLES else set()
        must_refuse |= set(signatures.images(signature.inputs, self._rows))
        for seed, name in enumerate(good):
            if signature.inputs[name].dtype != tf.string:
                continue
            sent = f"random characters as {name}"
            self._record(Stage(f"sending {sent} to {signature.name}"))
            before = signature.answer(good)
            bad = np.full(good[name].shape, signatures.no_example(seed), object)
            subject = f"{signature.name}, {sent}"
            try:
                signature.answer({**good, name: bad})
                wrong = f"{subject}: answered as if it were good" if name in must_refuse else ""
                finding = Finding(verdict.CORRUPT, wrong)
            except Exception as error:
                finding = findings.of_refusal(verdict.CORRUPT, subject, error)
            problem = self._changed(signature, good, before)
            if problem and not finding.problem:
                problem = f"{subject}: then a good request {problem}"
                finding = Finding(verdict.CORRUPT, problem)
            self._record(finding)

    def _changed(self, signature: Tried, tensors: Mapping[str, Any], before: Answer) -> str:
        """Returns how the answer to a request differs from an earlier one; "" if it does not."""
        try:
            after = signature.answer(tensors)
        except Exception as error:
            return f"raised {findings.message(error)}"
        same = findings.compare("", "", before, after, self._tolerance)
        return "was answered otherwise" if any(each.problem for each in same) else ""

    def _send_originals(self, tried: Sequence[Tried]) -> None:
        """Sends files that were converted for training, and compares with the stored images."""
        rows = [
            signatures.parse(each) for each in records([self._job.originals]).as_numpy_iterator()
        ]
        for stored, original in zip(rows[::2], rows[1::2], strict=True):
            name = b"".join(original.values.get(FILE_NAME, ())).decode()
            for signature in tried:
                if signature.form == signatures.FEATURES and not signatures.fits(
                    signature.inputs, original
                ):
                    continue
                self._record(Stage(f"sending {name} to {signature.name}"))
                subject = f"{signature.name}, {name}"
                try:
                    expected, answer = signature.ask([stored]), signature.ask([original])
                except Exception as error:
                    self._record(findings.of_refusal(verdict.ORIGINALS, subject, error))
                    continue
                # One finding a request: requests are what is counted.
                self._record(
                    max(
                        findings.compare(
                            verdict.ORIGINALS, subject, answer, expected, self._tolerance
                        ),
                        key=lambda each: (bool(each.problem), each.difference),
                    )
                )

    def _time(self, signature: Tried) -> None:
        self._record(Stage(f"timing {signature.name}"))
        requests = [signature.build([row]) for row in self._rows]
        for i in range(WARM_UP):
            signature.answer(requests[i % len(requests)])
        seconds: list[float] = []
        while len(seconds) < MAX_TIMED and (
            len(seconds) < MIN_TIMED or sum(seconds) < TIMED_SECONDS
        ):
            tensors = requests[len(seconds) % len(requests)]
            started = time.perf_counter()
            signature.answer(tensors)
            seconds.append(time.perf_counter() - started)
        p50, p99 = np.percentile(seconds, [50, 99]) * 1000
        self._record(Latency(signature.name, len(seconds), float(p50), float(p99)))


def batch_size(largest: int) -> int:
    """Returns the number of examples in the large request.

    Args:
        largest: Bytes of the largest example.
    """
    return max(min(BATCH, BATCH_BYTES // max(largest, 1)), 2)


def records(files: Sequence[str]) -> Any:
    """Returns a tf.data.Dataset of the records in files, in their order."""
    compressions = ["GZIP" if file.endswith(".gz") else "" for file in files]
    names = tf.data.Dataset.from_tensor_slices((list(files), compressions))
    return names.flat_map(tf.data.TFRecordDataset)


def _load(folder: str, record: Record) -> tuple[Any, float] | None:
    """Returns the model and the tolerance that its arithmetic calls for."""
    record(Stage("loading the model"))
    started = time.perf_counter()
    device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    keras = False
    try:
        try:
            model = tf.saved_model.load(folder)
        except ImportError:
            # Optimizers that Keras saved in a model are Keras's own to load.
            keras = _admit_keras()
            model = tf.saved_model.load(folder)
        seconds = time.perf_counter() - started
        arithmetic = _arithmetic(folder)
    except Exception as error:
        record(Loaded(0.0, tf.__version__, device, "", keras, findings.message(error)))
        return None
    record(Loaded(seconds, tf.__version__, device, arithmetic, keras))
    return model, verdict.tolerance(arithmetic, device)


def _columns(folder: str) -> dict[str, columns.Input]:
    """Returns the columns that the model takes, as far as it says."""
    file = f"{folder}/{columns.FILE}"
    if not tf.io.gfile.exists(file):
        return {}
    with tf.io.gfile.GFile(file, "rb") as opened:
        return columns.parse(opened.read())


def _admit_keras() -> bool:
    """Imports Keras as TensorFlow itself would have done."""
    for name in ("keras", "tf_keras"):
        if name in sys.modules and sys.modules[name] is None:
            del sys.modules[name]
    legacy = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
    importlib.import_module(f"{'tf_keras' if legacy else 'keras'}.src.optimizers")
    return True


def _arithmetic(folder: str) -> str:
    """Returns the coarsest floating type among the attributes of the graph's nodes."""
    with tf.io.gfile.GFile(f"{folder}/saved_model.pb", "rb") as file:
        model = saved_model_pb2.SavedModel.FromString(file.read())
    types = {
        attribute.type
        for meta in model.meta_graphs
        for nodes in (meta.graph_def.node, *(f.node_def for f in meta.graph_def.library.function))
        for node in nodes
        for attribute in node.attr.values()
    }
    return next((name for number, name in _HALVES.items() if number in types), "float32")


def main(job: str, measurements: str) -> None:
    """Runs the job in one file, and writes measurements to another."""
    with Path(measurements).open("w", buffering=1) as file:

        def record(measurement: Measurement) -> None:
            file.write(to_line(measurement))

        run(Job(**json.loads(Path(job).read_text())), record)


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    main(*sys.argv[1:])
