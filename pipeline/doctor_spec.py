"""A compiled pipeline as typed values, whatever its file holds: what is malformed is noted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from pipeline.doctor_file import Compiled, yaml_documents

T = TypeVar("T")

Kind: TypeAlias = Literal["artifacts", "parameters"]
KINDS: tuple[Kind, ...] = ("artifacts", "parameters")

ROOT = "root"
"""Name of the outermost graph of tasks."""

_LEGACY_TYPES = {"INT": "NUMBER_INTEGER", "DOUBLE": "NUMBER_DOUBLE", "STRING": "STRING"}
_EXECUTOR_KINDS = ("container", "importer", "resolver", "customJob")


class Malformed(NamedTuple):
    """A part that has not the form it must have.

    Attributes:
        where: Which part.
        what: What is wrong with it, a sentence.
    """

    where: str
    what: str


@dataclass(frozen=True)
class Parameter:
    """A declared parameter.

    Attributes:
        type: As in NUMBER_INTEGER; empty if not given.
        optional: Whether it may be left out.
        default: Value without another one; None if there is none.
    """

    type: str = ""
    optional: bool = False
    default: object = None


@dataclass(frozen=True)
class Source:
    """Where the value of a task's input comes from; at most one of the first three is there.

    Attributes:
        producer: Task that produces it.
        outer: Input of the surrounding graph that it is.
        constant: Value written in the file.
        key: Output key of the producer.
        status: Whether it is the final status of the producer, which is no output.
    """

    producer: str = ""
    outer: str = ""
    constant: object = None
    key: str = ""
    status: bool = False

    @property
    def given(self) -> bool:
        """Whether there is a value at all."""
        return bool(self.producer or self.outer) or self.constant is not None


@dataclass(frozen=True)
class Task:
    """One task of a graph.

    Attributes:
        name: Name within its graph.
        component: Name of the component it runs.
        dependencies: Tasks it waits for.
        artifacts: Where its artifact inputs come from.
        parameters: Where its parameters come from.
        condition: CEL expression that must hold for it to run; empty if there is none.
        item: Input that an iterator fills; empty if there is none.
    """

    name: str
    component: str
    dependencies: tuple[str, ...]
    artifacts: Mapping[str, Source]
    parameters: Mapping[str, Source]
    condition: str
    item: str


@dataclass(frozen=True)
class Component:
    """A component's interface, and what runs it.

    Attributes:
        name: Name by which tasks refer to it.
        artifacts: Artifact inputs, and whether they may be left out.
        parameters: Parameters it takes.
        outputs: Keys of its artifacts and of its parameters.
        titles: Titles of artifact types by place; empty text where there is no title.
        executor: Label of its executor; empty if it is a graph.
        tasks: The graph it is; None if it has an executor.
    """

    name: str
    artifacts: Mapping[str, bool]
    parameters: Mapping[str, Parameter]
    outputs: Mapping[Kind, frozenset[str]]
    titles: Mapping[str, str]
    executor: str
    tasks: Mapping[str, Task] | None


@dataclass(frozen=True)
class Executor:
    """How a component is run.

    Attributes:
        label: Name by which components refer to it.
        kind: container, importer, resolver or customJob; empty if it is none of them.
        image: Image of a container.
        command: Command of a container.
        args: Arguments of its command.
        driver: Command and arguments of its driver hook; None if it has none.
        title: Title of the artifact type of an importer; None if it is no importer.
        mounts: Folders of a container that are volumes.
    """

    label: str
    kind: str
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    driver: tuple[str, ...] | None
    title: str | None
    mounts: tuple[str, ...]

    def option(self, flag: str) -> str | None:
        """The value of a flag among its arguments; None if the flag is not there."""
        words = (*self.command, *self.args)
        for i, word in enumerate(words):
            if word == flag:
                return words[i + 1] if i + 1 < len(words) else ""
            if word.startswith(f"{flag}="):
                return word.partition("=")[2]
        return None


@dataclass(frozen=True)
class Spec:
    """A compiled pipeline.

    Attributes:
        name: Name of the pipeline.
        schema: Version of the schema of the file.
        pipeline_root: Where artifacts are written; empty if not set.
        root: The outermost graph, as a component.
        components: Components by name.
        executors: Executors by label.
        values: Values of root parameters that the file itself gives.
        mounted: Labels of executors for which the platform document has something.
        malformed: What could not be read.
    """

    name: str
    schema: str
    pipeline_root: str
    root: Component
    components: Mapping[str, Component]
    executors: Mapping[str, Executor]
    values: Mapping[str, object]
    mounted: tuple[str, ...]
    malformed: tuple[Malformed, ...]

    def graphs(self) -> Iterator[Component]:
        """The outermost graph and those within it."""
        yield self.root
        for component in self.components.values():
            if component.tasks is not None:
                yield component


def parse(compiled: Compiled) -> Spec:
    """Read a compiled pipeline as typed values. Never fails: it notes what is malformed."""
    return _Reader().spec(compiled)


class _Reader:
    """Reads values of unknown types, and keeps a note of those that are wrong.

    A missing value and null are the same, as they are in the JSON form of a protocol buffer.
    """

    def __init__(self) -> None:
        self.malformed: list[Malformed] = []
        self.titles: dict[str, str] = {}

    def spec(self, compiled: Compiled) -> Spec:
        spec = self.mapping(compiled.spec, "spec")
        runtime = self.mapping(compiled.runtime, "runtimeConfig")
        info = self.mapping(spec.get("pipelineInfo"), "pipelineInfo")
        components = {
            name: self.component(name, value, f"component {name}")
            for name, value in self.mapping(spec.get("components"), "components").items()
        }
        deployment = self.mapping(spec.get("deploymentSpec"), "deploymentSpec")
        platform = self.platform(compiled.platform)
        executors = self.mapping(deployment.get("executors"), "deploymentSpec.executors")
        return Spec(
            name=self.text(info.get("name"), "pipelineInfo.name"),
            schema=self.text(spec.get("schemaVersion"), "schemaVersion"),
            pipeline_root=self.text(
                runtime.get("gcsOutputDirectory"), "runtimeConfig.gcsOutputDirectory"
            )
            or self.text(spec.get("defaultPipelineRoot"), "defaultPipelineRoot"),
            root=self.component(ROOT, spec.get("root"), ROOT),
            components=components,
            executors={
                label: self.executor(label, value, self.mounts(label, platform.get(label)))
                for label, value in executors.items()
            },
            values=self.mapping(runtime.get("parameterValues"), "runtimeConfig.parameterValues"),
            mounted=tuple(platform),
            malformed=tuple(self.malformed),
        )

    def component(self, name: str, value: object, where: str) -> Component:
        body = self.mapping(value, where)
        inputs = self.sections(body.get("inputDefinitions"), f"{where}, inputDefinitions")
        outputs = self.sections(body.get("outputDefinitions"), f"{where}, outputDefinitions")
        titles = {}
        for side, sections in (("input", inputs), ("output", outputs)):
            for key, declared in sections["artifacts"].items():
                place = f"{where}, {side} {key}"
                titles[place] = self.title(self.mapping(declared, place).get("artifactType"), place)
        tasks = None
        if body.get("dag") is not None:
            dag = self.mapping(body["dag"], f"{where}, dag")
            inner = "" if name == ROOT else f" of {where}"
            tasks = {
                key: self.task(key, task, f"task {key}{inner}")
                for key, task in self.mapping(dag.get("tasks"), f"{where}, dag.tasks").items()
            }
        return Component(
            name=name,
            artifacts={
                key: self.flag(self.mapping(declared, f"{where}, input {key}").get("isOptional"))
                for key, declared in inputs["artifacts"].items()
            },
            parameters={
                key: self.parameter(declared, f"{where}, parameter {key}")
                for key, declared in inputs["parameters"].items()
            },
            outputs={kind: frozenset(outputs[kind]) for kind in KINDS},
            titles=titles,
            executor=self.text(body.get("executorLabel"), f"{where}, executorLabel"),
            tasks=tasks,
        )

    def parameter(self, value: object, where: str) -> Parameter:
        body = self.mapping(value, where)
        legacy = self.text(body.get("type"), where)
        return Parameter(
            type=self.text(body.get("parameterType"), where) or _LEGACY_TYPES.get(legacy, legacy),
            optional=self.flag(body.get("isOptional")),
            default=body.get("defaultValue"),
        )

    def task(self, name: str, value: object, where: str) -> Task:
        body = self.mapping(value, where)
        inputs = self.sections(body.get("inputs"), f"{where}, inputs")
        trigger = self.mapping(body.get("triggerPolicy"), f"{where}, triggerPolicy")
        item = ""
        for key in ("parameterIterator", "artifactIterator"):
            iterator = self.mapping(body.get(key), f"{where}, {key}")
            item = item or self.text(iterator.get("itemInput"), f"{where}, {key}")
        reference = self.mapping(body.get("componentRef"), f"{where}, componentRef")
        return Task(
            name=name,
            component=self.text(reference.get("name"), f"{where}, componentRef"),
            dependencies=self.texts(body.get("dependentTasks"), f"{where}, dependentTasks"),
            artifacts=self.sources(inputs["artifacts"], where, "input"),
            parameters=self.sources(inputs["parameters"], where, "parameter"),
            condition=self.text(trigger.get("condition"), f"{where}, condition"),
            item=item,
        )

    def sources(self, values: Mapping[str, Any], where: str, word: str) -> dict[str, Source]:
        return {key: self.source(value, f"{where}, {word} {key}") for key, value in values.items()}

    def source(self, value: object, where: str) -> Source:
        body = self.mapping(value, where)
        for kind, key in (
            ("taskOutputArtifact", "outputArtifactKey"),
            ("taskOutputParameter", "outputParameterKey"),
            ("taskFinalStatus", ""),
        ):
            if body.get(kind) is not None:
                output = self.mapping(body[kind], where)
                return Source(
                    producer=self.text(output.get("producerTask"), where),
                    key=self.text(output.get(key), where) if key else "",
                    status=not key,
                )
        runtime = self.mapping(body.get("runtimeValue"), where)
        constant = runtime.get("constant")
        if constant is None:
            wrapped = self.mapping(runtime.get("constantValue"), where)
            constant = _unwrapped(wrapped)
        return Source(
            outer=self.text(body.get("componentInputParameter"), where)
            or self.text(body.get("componentInputArtifact"), where)
            or self.text(runtime.get("runtimeParameter"), where),
            constant=constant,
        )

    def executor(self, label: str, value: object, mounts: tuple[str, ...]) -> Executor:
        where = f"executor {label}"
        body = self.mapping(value, where)
        kind = next((kind for kind in _EXECUTOR_KINDS if body.get(kind) is not None), "")
        container = self.mapping(body.get("container"), where)
        lifecycle = self.mapping(container.get("lifecycle"), f"{where}, lifecycle")
        driver = None
        if lifecycle.get("preCacheCheck") is not None:
            hook = self.mapping(lifecycle["preCacheCheck"], f"{where}, preCacheCheck")
            driver = tuple(
                word
                for key in ("command", "args")
                for word in self.texts(hook.get(key), f"{where}, preCacheCheck.{key}")
            )
        importer = self.mapping(body.get("importer"), where)
        return Executor(
            label=label,
            kind=kind,
            image=self.text(container.get("image"), f"{where}, image"),
            command=self.texts(container.get("command"), f"{where}, command"),
            args=self.texts(container.get("args"), f"{where}, args"),
            driver=driver,
            title=self.title(importer.get("typeSchema"), where) if kind == "importer" else None,
            mounts=mounts,
        )

    def platform(self, value: object) -> dict[str, Any]:
        """What the platform document says of each executor."""
        document = self.mapping(value, "platform document")
        for key in ("platforms", "kubernetes", "deploymentSpec", "executors"):
            document = self.mapping(document.get(key), f"platform document, {key}")
        return document

    def mounts(self, label: str, value: object) -> tuple[str, ...]:
        where = f"platforms, executor {label}"
        volumes = self.mapping(value, where).get("pvcMount") or []
        if not isinstance(volumes, list):
            return self.note(where, "pvcMount must be a list", volumes, ())
        return tuple(
            self.text(self.mapping(volume, where).get("mountPath"), f"{where}, mountPath")
            for volume in volumes
        )

    def sections(self, value: object, where: str) -> dict[Kind, dict[str, Any]]:
        body = self.mapping(value, where)
        return {kind: self.mapping(body.get(kind), f"{where}.{kind}") for kind in KINDS}

    def title(self, value: object, where: str) -> str:
        body = self.mapping(value, where)
        title = self.text(body.get("schemaTitle"), where)
        schema = self.text(body.get("instanceSchema"), where)
        if title or not schema:
            return title
        if schema not in self.titles:
            self.titles[schema] = self.text(self.instance(schema, where).get("title"), where)
        return self.titles[schema]

    def instance(self, schema: str, where: str) -> dict[str, Any]:
        """The mapping in an instanceSchema, which is YAML."""
        try:
            documents = yaml_documents(schema)
        except ValueError:
            documents = []
        value = documents[0] if len(documents) == 1 else None
        if not isinstance(value, dict):
            return self.note(where, "instanceSchema must be a mapping in YAML", schema, {})
        return self.mapping(value, where)

    def mapping(self, value: object, where: str) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            return self.note(where, "must be a mapping", value, {})
        return {key if isinstance(key, str) else shown(key): part for key, part in value.items()}

    def texts(self, value: object, where: str) -> tuple[str, ...]:
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            return self.note(where, "must be a list", value, ())
        return tuple(self.text(part, where) for part in value)

    def text(self, value: object, where: str) -> str:
        if value is None or isinstance(value, str):
            return value or ""
        return self.note(where, "must be text", value, "")

    def flag(self, value: object) -> bool:
        return value is True

    def note(self, where: str, rule: str, value: object, instead: T) -> T:
        """Note what is malformed, and go on with something of the right type."""
        self.malformed.append(Malformed(where, f"{rule}, got {shown(value)}"))
        return instead


def _unwrapped(value: Mapping[str, Any]) -> object:
    """A constant as it was written before version 2.1.0, wrapped in its type."""
    integer = value.get("intValue")
    # The JSON form of a protocol buffer spells an integer of 64 bits as text.
    if isinstance(integer, str) and integer.removeprefix("-").isdecimal() and len(integer) < 20:
        return int(integer)
    return next(iter(value.values()), None)


def shown(value: object, limit: int = 60) -> str:
    """A value as it is quoted in a message: short, on one line, and never the whole of a tree."""
    if isinstance(value, int) and value.bit_length() > limit:
        return "a huge number"
    plain = isinstance(value, str | int | float | None)
    text = repr(value) if plain else f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
