"""Output folders with a real ML Metadata as TFX writes it, made without running anything."""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import pytest
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.metadata import store, versions

PIPELINE = "plateau-digits-0a1b2c3d"
# Component: inputs by key (component and key they come from), output types by key.
GRAPH: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "ImageExampleGen": ({}, {"examples": "Examples"}),
    "InlineSchemaGen": ({}, {"schema": "Schema"}),
    "Transform": (
        {"examples": "examples", "schema": "schema"},
        {"transform_graph": "TransformGraph"},
    ),
    "Trainer": (
        {
            "examples": "examples",
            "transform_graph": "transform_graph",
            "base_model": "baseline_model",
        },
        {"model": "Model", "training_history": "components.TrainingHistory"},
    ),
    "Evaluator": (
        {"examples": "examples", "model": "model", "baseline_model": "baseline_model"},
        {"blessing": "ModelBlessing", "evaluation": "ModelEvaluation"},
    ),
    "Servable": ({"model": "model"}, {"infra_blessing": "InfraBlessing"}),
    "Pusher": (
        {"model": "model", "model_blessing": "blessing", "infra_blessing": "infra_blessing"},
        {"pushed_model": "PushedModel"},
    ),
    "TrainingReport": ({"training_history": "training_history"}, {"html": "components.HtmlReport"}),
}
Value = int | float | str


class Archive:
    """An output folder whose runs are told rather than run."""

    def __init__(self, output: Path, place: store.Store | None = None) -> None:
        self.output = output
        output.mkdir(parents=True, exist_ok=True)
        self._place = place or store.file_of(output)
        self.store = (
            store.connect(self._place, write=True)
            if place
            else MetadataStore(store.connection(self._place))
        )
        self.latest: dict[str, mlmd.Artifact] = {}
        self._contexts: dict[tuple[str, str], mlmd.Context] = {}
        self._types: dict[tuple[str, str], int] = {}

    def marked(self, name: str) -> str:
        """A name as it stands in a store that several folders may share."""
        return store.mark(name, self._place)

    def run(
        self,
        name: str,
        *,
        version: int | None = None,
        cached: Collection[str] = (),
        failed: str = "",
        killed: str = "",
        blessed: bool = True,
        properties: Mapping[str, Mapping[str, Value]] | None = None,
    ) -> None:
        """Record a run; the component that failed or was killed is the last.

        Args:
            name: Its id.
            version: Version to push the model as, with its folder; None if it is not pushed.
            cached: Components that were served from the cache.
            failed: Component that failed.
            killed: Component that was running when the process died.
            blessed: What the Evaluator decides.
            properties: More custom properties, by component or by key of its output.
        """
        found: dict[str, Mapping[str, Value]] = {
            "examples": {"input_fingerprint": "images:22ae517f4a3d44a5,code:d1a23d", "span": 0},
            "blessing": {"blessed": int(blessed)},
            "pushed_model": self._push(version),
            **(properties or {}),
        }
        if "model" in self.latest:
            self.latest["baseline_model"] = self.latest["model"]
        for component, (inputs, outputs) in GRAPH.items():
            ended = component not in (failed, killed)
            hit = component in cached
            state = {failed: mlmd.Execution.FAILED, killed: mlmd.Execution.RUNNING}.get(
                component, mlmd.Execution.CACHED if hit else mlmd.Execution.COMPLETE
            )
            execution = mlmd.Execution(
                type_id=self._type(mlmd.ExecutionType(name=component)),
                last_known_state=state,
            )
            _set(execution, found.get(component, {}))
            read: dict[int, list[str]] = {}
            for key, source in inputs.items():
                if source in self.latest:
                    read.setdefault(self.latest[source].id, []).append(key)
            pairs = [
                (artifact, _event(mlmd.Event.INPUT, read[artifact.id], artifact.id))
                for artifact in self.store.get_artifacts_by_id(list(read))
            ]
            made = {}
            for key, kind in outputs.items() if ended else ():
                made[key] = self.latest[key] if hit else self._artifact(component, key, kind)
                if not hit:
                    _set(made[key], found.get(key, {}))
                pairs.append((made[key], _event(mlmd.Event.OUTPUT, [key], made[key].id or None)))
            contexts = [
                self._context("pipeline", self.marked(PIPELINE)),
                self._context("pipeline_run", self.marked(name)),
                self._context("node", f"{self.marked(PIPELINE)}.{component}"),
            ]
            _, ids, _ = self.store.put_execution(
                execution, pairs, contexts, force_reuse_context=True
            )
            # The last pairs are the outputs, in order.
            for (key, artifact), identity in zip(
                made.items(), ids[len(ids) - len(made) :], strict=True
            ):
                artifact.id = identity
                self.latest[key] = artifact
            if not ended:
                return

    def _push(self, version: int | None) -> dict[str, Value]:
        if version is None:
            return {"pushed": 0}
        folder = versions.folder_of(self.output) / str(version)
        (folder / "variables").mkdir(parents=True)
        (folder / "saved_model.pb").write_text(f"model pushed as {version}")
        (folder / "variables" / "variables.index").write_text("weights")
        return {"pushed": 1, "pushed_version": str(version), "pushed_destination": str(folder)}

    def _artifact(self, component: str, key: str, kind: str) -> mlmd.Artifact:
        folder = self.output / "artifacts" / component / key
        place = folder / str(len(list(folder.glob("*"))) + 1)
        place.mkdir(parents=True)
        if kind == "components.HtmlReport":
            (place / "report.html").write_text("<html>")
        return mlmd.Artifact(
            type_id=self._type(mlmd.ArtifactType(name=kind)),
            uri=str(place),
            state=mlmd.Artifact.LIVE,
        )

    def _context(self, kind: str, name: str) -> mlmd.Context:
        if (kind, name) not in self._contexts:
            context = mlmd.Context(type_id=self._type(mlmd.ContextType(name=kind)), name=name)
            (context.id,) = self.store.put_contexts([context])
            self._contexts[kind, name] = context
        return self._contexts[kind, name]

    def _type(self, proto: mlmd.ContextType | mlmd.ExecutionType | mlmd.ArtifactType) -> int:
        """The id of a type; each write to the store costs a commit."""
        kind = type(proto).__name__
        if (kind, proto.name) not in self._types:
            put = {
                "ContextType": self.store.put_context_type,
                "ExecutionType": self.store.put_execution_type,
                "ArtifactType": self.store.put_artifact_type,
            }[kind]
            self._types[kind, proto.name] = put(proto)
        return self._types[kind, proto.name]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "runs" / "digits")


@pytest.fixture
def make_archive(tmp_path: Path) -> Callable[[str], Archive]:
    return lambda name: Archive(tmp_path / "runs" / name)


@pytest.fixture
def archive_in() -> Callable[[Path, store.Store], Archive]:
    """Makes an output folder that records its runs in a store."""
    return Archive


def _event(kind: int, keys: Iterable[str], artifact: int | None) -> mlmd.Event:
    event = mlmd.Event(type=kind, artifact_id=artifact)
    for key in keys:
        event.path.steps.add().key = key
        event.path.steps.add().index = 0
    return event


def _set(proto: mlmd.Artifact | mlmd.Execution, values: Mapping[str, Value]) -> None:
    for name, value in values.items():
        kind = {int: "int_value", float: "double_value", str: "string_value"}[type(value)]
        setattr(proto.custom_properties[name], kind, value)
