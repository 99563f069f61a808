"""The canary: loads a model in a fresh process, sends it requests and measures its answers.

    python -m components.servable.probe job.json measurements.jsonl

It judges nothing, and imports neither TFX nor, unless the model can't be loaded otherwise, Keras:
a model server has neither.
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
from components.servable import prediction, request
from components.servable.comparison import difference, is_floating
from components.servable.measurement import (
    Answer,
    Corrupt,
    Difference,
    Finished,
    Latency,
    Loaded,
    Measurement,
    Original,
    Output,
    Read,
    Requests,
    Session,
    Stage,
    to_line,
)
from components.servable.signature import Answers, Tried, choose
from components.servable.verdict import tolerance
from schemas import FILE_NAME, columns

BATCH = 256
"""Examples in the large request, if they are small."""

BATCH_BYTES = 32 * 2**20
"""Bytes that its examples may have together: of large pictures a few say as much as many."""

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
    """What to do.

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
    """Measure everything.

    Args:
        job: What to do.
        record: Takes each measurement as soon as it is made.
    """
    started = time.perf_counter()
    record(Stage("reading the examples"))
    rows = _first(job.files)
    record(Read(len(rows)))
    model, close = _load(job.model, record) if rows else (None, 0.0)
    if model is not None:
        _measure(job, model, request.as_served(rows, _columns(job.model)), close, record)
    record(Finished(time.perf_counter() - started))


def _measure(
    job: Job, model: Any, parsed: Sequence[request.Row], close: float, record: Record
) -> None:
    tried, suitable, signatures = choose(model.signatures, parsed, job.leave_out)
    for found in signatures:
        record(found)
    size = batch_size(max(len(row.serialized) for row in parsed))
    rows = suitable[:size]
    record(Requests(len(rows)))
    single, large = rows[:1], [rows[i % len(rows)] for i in range(size)]

    answers: dict[str, Answers] = {}
    for signature in tried:
        alone = _answer(signature, single, record)
        answer = _answer(signature, large, record)
        _answer(signature, [], record)
        if alone is not None and answer is not None:
            answers[signature.name] = answer
    sound = [signature for signature in tried if signature.name in answers]
    for signature in sound:
        _compare_singles(signature, large, answers[signature.name], record)
    _compare_signatures(sound, answers, record)
    if sound:
        _compare_loaders(job.model, sound, large, answers, record)
    for signature in sound:
        _send_corrupt(signature, rows, close, record)
    if job.originals:
        _send_originals(job.originals, sound, record)
    for signature in sound:
        _time(signature, rows, record)
    if job.evaluation is not None:
        record(Stage("predicting the whole split"))
        record(
            prediction.predict(
                {signature.name: signature.function for signature in tried},
                {signature.name for signature in tried if signature.form == request.EXAMPLES},
                records(job.files).batch(size),
                prediction.Evaluation(**job.evaluation),
                job.label,
                close,
            )
        )


def batch_size(largest: int) -> int:
    """Number of examples in the large request.

    Args:
        largest: Bytes of the largest example.
    """
    return max(min(BATCH, BATCH_BYTES // max(largest, 1)), 2)


def _first(files: Sequence[str]) -> list[request.Row]:
    found = groups(
        records(files).as_numpy_iterator(), len, _LOOKED_AT * BATCH, _LOOKED_AT * BATCH_BYTES
    )
    return [request.parse(serialized) for serialized in next(found, [])]


def records(files: Sequence[str]) -> Any:
    """A tf.data.Dataset of the records in files, in their order."""
    compressions = ["GZIP" if file.endswith(".gz") else "" for file in files]
    names = tf.data.Dataset.from_tensor_slices((list(files), compressions))
    return names.flat_map(tf.data.TFRecordDataset)


def _load(folder: str, record: Record) -> tuple[Any, float]:
    """The model, or None, and the tolerance its arithmetic calls for."""
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
        record(Loaded(0.0, tf.__version__, device, "", keras, _message(error)))
        return None, 0.0
    record(Loaded(seconds, tf.__version__, device, arithmetic, keras))
    return model, tolerance(arithmetic, device)


def _columns(folder: str) -> dict[str, columns.Input]:
    """What the model says of the columns it takes, if it says anything."""
    file = f"{folder}/{columns.FILE}"
    if not tf.io.gfile.exists(file):
        return {}
    with tf.io.gfile.GFile(file, "rb") as opened:
        return columns.parse(opened.read())


def _admit_keras() -> bool:
    """Import Keras as TensorFlow itself would have done."""
    for name in ("keras", "tf_keras"):
        if name in sys.modules and sys.modules[name] is None:
            del sys.modules[name]
    legacy = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
    importlib.import_module(f"{'tf_keras' if legacy else 'keras'}.src.optimizers")
    return True


def _arithmetic(folder: str) -> str:
    """The coarsest floating type among the attributes of the graph's nodes."""
    model = saved_model_pb2.SavedModel.FromString(
        tf.io.gfile.GFile(f"{folder}/saved_model.pb", "rb").read()
    )
    types = {
        attribute.type
        for meta in model.meta_graphs
        for nodes in (meta.graph_def.node, *(f.node_def for f in meta.graph_def.library.function))
        for node in nodes
        for attribute in node.attr.values()
    }
    return next((name for number, name in _HALVES.items() if number in types), "float32")


def _answer(signature: Tried, rows: Sequence[request.Row], record: Record) -> Answers | None:
    count = len(rows)
    record(Stage(f"asking {signature.name} about {count} example(s)"))
    try:
        answer = signature.ask(rows)
    except Exception as error:
        record(Answer(signature.name, count, _message(error), _is_clear(error)))
        return None
    record(Answer(signature.name, count))
    for name, value in answer.items():
        spec = signature.function.structured_outputs[name]
        record(
            Output(
                signature=signature.name,
                rows=count,
                name=name,
                dtype=tf.as_dtype(value.dtype).name,
                shape=list(value.shape),
                declared_dtype=spec.dtype.name,
                declared_shape=None if spec.shape.rank is None else spec.shape.as_list(),
                size=value.size,
                not_finite=int((~np.isfinite(value)).sum()) if is_floating(value) else 0,
            )
        )
    return answer


def _compare_singles(
    signature: Tried,
    rows: Sequence[request.Row],
    answer: Answers,
    record: Record,
) -> None:
    record(Stage(f"asking {signature.name} about single examples"))
    chosen = range(0, len(rows), max(len(rows) // SINGLES, 1))
    try:
        alone = [signature.ask([rows[i]]) for i in chosen]
    except Exception as error:
        record(Answer(signature.name, 1, _message(error)))
        return
    for name, value in answer.items():
        # Neither what is not a row for each example, nor rows padded to the longest in the batch.
        if value.shape[:1] == (len(rows),) and all(
            a[name].shape == (1, *value.shape[1:]) for a in alone
        ):
            together = np.concatenate([a[name] for a in alone])
            record(
                Difference(
                    "single", signature.name, "", name, *difference(value[list(chosen)], together)
                )
            )


def _compare_signatures(
    tried: Sequence[Tried],
    answers: Mapping[str, Answers],
    record: Record,
) -> None:
    """Compare signatures of which one gives nothing that the other doesn't give, too."""
    for i, one in enumerate(tried):
        for other in tried[:i]:
            small, large = sorted((one.outputs, other.outputs), key=len)
            if small.items() <= large.items():
                for name in small:
                    found = difference(answers[one.name][name], answers[other.name][name])
                    record(Difference("signatures", one.name, other.name, name, *found))


def _compare_loaders(
    folder: str,
    tried: Sequence[Tried],
    rows: Sequence[request.Row],
    answers: Mapping[str, Answers],
    record: Record,
) -> None:
    """Load and ask as TensorFlow Serving does: in a session, by the names of tensors."""
    record(Stage("loading the model in a session"))
    try:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            load = tf.compat.v1.saved_model.load
            definitions = load(session, [tf.saved_model.SERVING], folder).signature_def
            for signature in tried:
                record(Stage(f"asking {signature.name} in a session"))
                given = definitions[signature.name]
                fetches = {
                    name: info.name
                    for name, info in given.outputs.items()
                    if info.WhichOneof("encoding") == "name"
                }
                feeds = {
                    given.inputs[name].name: value for name, value in signature.build(rows).items()
                }
                for name, value in session.run(fetches, feeds).items():
                    found = difference(np.asarray(value), answers[signature.name][name])
                    record(Difference("session", signature.name, "", name, *found))
    except Exception as error:
        record(Session(_message(error)))
        return
    record(Session())


def _send_corrupt(
    signature: Tried, rows: Sequence[request.Row], close: float, record: Record
) -> None:
    good = signature.build(rows[:1])
    refused = set(good) if signature.form == request.EXAMPLES else set()
    refused |= set(request.pictures(signature.inputs, rows))
    for seed, name in enumerate(good):
        if signature.inputs[name].dtype != tf.string:
            continue
        record(Stage(f"sending random characters as {name} to {signature.name}"))
        before = signature.answer(good)
        bad = np.full(good[name].shape, request.no_example(seed), object)
        error, clear = "", False
        try:
            signature.answer({**good, name: bad})
        except Exception as raised:
            error = _message(raised)
            clear = _is_clear(raised)
        error_after, equal = "", False
        try:
            after = signature.answer(good)
            found = [difference(before[key], after[key]) for key in before]
            equal = all(not unequal and largest <= close for largest, unequal, _ in found)
        except Exception as raised:
            error_after = _message(raised)
        record(
            Corrupt(
                signature.name,
                f"random characters as {name}",
                name in refused,
                error,
                clear,
                error_after,
                equal,
            )
        )


def _send_originals(file: str, tried: Sequence[Tried], record: Record) -> None:
    """Send files that were converted for training, and compare with the stored images."""
    parsed = [request.parse(serialized) for serialized in records([file]).as_numpy_iterator()]
    for stored, original in zip(parsed[::2], parsed[1::2], strict=True):
        name = b"".join(original.values.get(FILE_NAME, ())).decode()
        for signature in tried:
            if signature.form == request.FEATURES and not request.fits(signature.inputs, original):
                continue
            record(Stage(f"sending {name} to {signature.name}"))
            try:
                expected, answer = signature.ask([stored]), signature.ask([original])
            except Exception as error:
                record(Original(signature.name, name, _message(error), _is_clear(error)))
                continue
            found = [difference(answer[key], expected[key]) for key in expected]
            largest = max((largest for largest, _, _ in found), default=0.0)
            unequal = sum(unequal for _, unequal, _ in found)
            size = sum(size for _, _, size in found)
            record(Original(signature.name, name, "", False, largest, unequal, size))


def _time(signature: Tried, rows: Sequence[request.Row], record: Record) -> None:
    record(Stage(f"timing {signature.name}"))
    requests = [signature.build([row]) for row in rows]
    for i in range(WARM_UP):
        signature.answer(requests[i % len(requests)])
    seconds: list[float] = []
    while len(seconds) < MAX_TIMED and (len(seconds) < MIN_TIMED or sum(seconds) < TIMED_SECONDS):
        tensors = requests[len(seconds) % len(requests)]
        started = time.perf_counter()
        signature.answer(tensors)
        seconds.append(time.perf_counter() - started)
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    record(Latency(signature.name, len(seconds), float(p50), float(p99)))


def _message(error: Exception) -> str:
    """Type of an error, and the line that says what happened, not where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Before it TensorFlow tells where the node was made, and after it which node it is.
    ends = [i for i, line in enumerate(lines) if i and line.startswith("[[")]
    line = lines[ends[0] - 1 if ends else 0] if lines else ""
    return f"{type(error).__name__}: {line[:300]}"


def _is_clear(error: Exception) -> bool:
    return isinstance(error, tf.errors.OpError) and bool(error.message)


def main(job: str, measurements: str) -> None:
    """Run the job in one file, and write measurements to another."""
    with Path(measurements).open("w", buffering=1) as file:

        def record(found: Measurement) -> None:
            file.write(to_line(found))

        run(Job(**json.loads(Path(job).read_text())), record)


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    main(*sys.argv[1:])
