"""A training configuration and TF_CONFIG, as a worker reads them."""

import json

from tests.fuzz.reader import Reader, refused
from trainer_module.config import ImageFeatures, TableFeatures, TrainConfig
from trainer_module.distributed import cluster
from trainer_module.schedule.schedule import ScheduleConfig

CONFIGS = (
    TrainConfig(ImageFeatures(augment="strong"), ("a", "b")),
    TrainConfig(
        TableFeatures(numeric=("x",), label_over="y"), ("a", "b"), schedule=ScheduleConfig()
    ),
)
CLUSTER = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}


def reader() -> Reader:
    seeds = [*(config.to_json() for config in CONFIGS), json.dumps(CLUSTER), "[[[[", "NaN"]
    return Reader(check, [text.encode() for text in seeds])


def check(data: bytes) -> None:
    text = data.decode(errors="replace")
    try:
        config = TrainConfig.from_json(text)
        assert TrainConfig.from_json(config.to_json()) == config
    except ValueError as error:
        refused(error)
    try:
        place = cluster.locate(text)
        assert place is None or len(place.addresses) > 1
    except ValueError as error:
        refused(error)
