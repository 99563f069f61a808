"""The pipeline: which component feeds which. Wiring only; it serves every runner."""

import hashlib
from dataclasses import dataclass

from tfx.components import (
    CsvExampleGen,
    Evaluator,
    ExampleValidator,
    StatisticsGen,
    Transform,
    Tuner,
)
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import (
    LatestBlessedModelStrategy,
)
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import example_gen_pb2, pusher_pb2, trainer_pb2
from tfx.types import Channel
from tfx.types.standard_artifacts import ExampleStatistics, Model, ModelBlessing

from components.anomaly_gate.component import AnomalyGate
from components.drift_gate.baseline import LatestBlessedStatistics
from components.drift_gate.component import DriftGate
from components.image_example_gen.component import ImageExampleGen
from components.plateau_trainer.component import PlateauTrainer
from components.servable.component import Servable
from components.serving_pusher.component import ServingPusher
from components.training_report.component import TrainingReport
from pipeline import evaluation, fingerprint
from pipeline.config import RunConfig
from pipeline.dataset import EVAL, TABLE_SPLITS, TEST, TRAIN
from schemas import LABEL
from trainer_module.config import ImageFeatures, TableFeatures


@dataclass(frozen=True)
class PipelinePaths:
    """Where a pipeline reads and writes; local paths or URIs, as the runner needs.

    Attributes:
        data: Folder of pictures by class, or of CSV files.
        schema: Schema file. Its name must change with its content: the cache sees only the name.
        artifacts: Folder under which every component writes.
        pushed: Folder that receives a numbered subfolder for each pushed model.
        metadata: SQLite file of ML Metadata; None where the runner brings its own store.
    """

    data: str
    schema: str
    artifacts: str
    pushed: str
    metadata: str | None = None


def pipeline_name(config: RunConfig) -> str:
    """Name under which ML Metadata files the runs.

    Blessed models are looked up by it, and a model of other classes is no baseline; so the name
    changes with the classes.
    """
    digest = hashlib.sha256("\n".join(config.classes).encode()).hexdigest()[:8]
    return f"plateau-{config.name}-{digest}"


def create_pipeline(config: RunConfig, paths: PipelinePaths, command: str = "") -> Pipeline:
    """Wire the components for one run, as fresh objects on every call.

    Args:
        config: The run, with `classes` filled in.
        paths: Where to read and write.
        command: Command that repeats the run, for the report.

    Raises:
        ValueError: Classes are missing, or a dotted model path cannot be found.
    """
    train_config = config.train_config()
    code = fingerprint.of_sources(config.network.model)
    label = config.features.label if isinstance(config.features, TableFeatures) else LABEL

    examples = _example_gen(config, paths.data)
    statistics = StatisticsGen(examples=examples.outputs["examples"])
    schema = ImportSchemaGen(schema_file=paths.schema)
    validator = ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"]
    )
    gate = AnomalyGate(
        anomalies=validator.outputs["anomalies"],
        statistics=statistics.outputs["statistics"],
        schema=schema.outputs["schema"],
        label=label,
    )
    last_data = Resolver(
        strategy_class=LatestBlessedStatistics,
        statistics=Channel(type=ExampleStatistics),
        model_blessing=Channel(type=ModelBlessing),
    ).with_id("LatestBlessedStatistics")
    drift = DriftGate(
        statistics=statistics.outputs["statistics"],
        schema=schema.outputs["schema"],
        baseline_statistics=last_data.outputs["statistics"],
        max_drift=config.gates.max_drift,
        max_skew=config.gates.max_skew,
        split=TRAIN,
        other_split=TEST,
    )
    transform = Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn="trainer_module.preprocessing.preprocessing_fn",
        custom_config={"preprocessing": train_config.preprocessing_json(), "code": code},
        materialize=False,
        disable_statistics=True,
    )
    # Nothing flows from the gates to Transform, so the order has to be stated.
    transform.add_upstream_nodes([gate, drift])
    baseline = Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
    ).with_id("LatestBlessedModel")
    checkpoints = f"{paths.artifacts}/checkpoints"
    tuner = Tuner(
        tuner_fn="trainer_module.entry.tuner_fn",
        examples=examples.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        train_args=trainer_pb2.TrainArgs(splits=[TRAIN]),
        eval_args=trainer_pb2.EvalArgs(splits=[EVAL]),
        custom_config={
            "train_config": train_config.to_json(),
            "code": code,
            "checkpoints": checkpoints,
            "trials": config.tune,
        },
    )
    trainer = PlateauTrainer(
        examples=examples.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        config=train_config,
        schema=schema.outputs["schema"],
        base_model=baseline.outputs["model"] if config.warm_start else None,
        hyperparameters=tuner.outputs["best_hyperparameters"] if config.tune else None,
        train_split=TRAIN,
        eval_split=EVAL,
        code=code,
        # A run that was ended goes on from here, though every execution has new folders.
        checkpoints=checkpoints,
    ).with_id("Trainer")
    evaluator = Evaluator(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        baseline_model=baseline.outputs["model"],
        eval_config=evaluation.eval_config(config.features, config.gates),
        example_splits=[TEST],
    )
    servable = Servable(
        model=trainer.outputs["model"],
        examples=examples.outputs["examples"],
        evaluation=evaluator.outputs["evaluation"],
        split=TEST,
        max_latency_ms_p99=config.gates.max_latency,
        max_model_mib=config.gates.max_model_mib,
        label=label,
    )
    pusher = ServingPusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=servable.outputs["blessing"],
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=paths.pushed)
        ),
    ).with_id("Pusher")
    report = TrainingReport(
        history=trainer.outputs["training_history"],
        evaluation=evaluator.outputs["evaluation"],
        blessing=evaluator.outputs["blessing"],
        statistics=statistics.outputs["statistics"],
        schema=schema.outputs["schema"],
        anomalies=validator.outputs["anomalies"],
        drift=drift.outputs["drift"],
        model=trainer.outputs["model"],
        examples=examples.outputs["examples"],
        infra_blessing=servable.outputs["blessing"],
        classes=config.classes,
        split=TEST,
        label=label,
        title=config.name,
        command=command,
        fingerprint=code,
        rounding=evaluation.ROUNDING,
    )
    return Pipeline(
        pipeline_name=pipeline_name(config),
        pipeline_root=paths.artifacts,
        components=[
            examples,
            statistics,
            schema,
            validator,
            gate,
            last_data,
            drift,
            transform,
            baseline,
            *([tuner] if config.tune else []),
            trainer,
            evaluator,
            servable,
            report,
            pusher,
        ],
        enable_cache=True,
        metadata_connection_config=(
            metadata.sqlite_metadata_connection_config(paths.metadata) if paths.metadata else None
        ),
    )


def _example_gen(config: RunConfig, data: str) -> BaseComponent:
    if isinstance(config.features, ImageFeatures):
        return ImageExampleGen(input_base=data, on_bad_image=config.on_bad_image)
    buckets = [
        example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=share)
        for name, share in TABLE_SPLITS.items()
    ]
    return CsvExampleGen(
        input_base=data,
        # The default pattern would parse a README beside the table.
        input_config=example_gen_pb2.Input(
            splits=[example_gen_pb2.Input.Split(name="all", pattern="*.csv")]
        ),
        output_config=example_gen_pb2.Output(
            split_config=example_gen_pb2.SplitConfig(splits=buckets)
        ),
    )
