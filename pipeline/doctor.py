"""The linter for compiled pipelines: what would go wrong on the cluster, said beforehand."""

import functools
import json as json_text
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import tyro

from pipeline import doctor_modules, doctor_spec
from pipeline.doctor_file import Compiled, Target, load
from pipeline.doctor_spec import ROOT, Component, Executor, Kind, Source, Spec, Task, shown
from trainer_module.checks import require

__all__ = ["Compiled", "DoctorConfig", "Finding", "Target", "broken", "check", "default", "load"]

Severity: TypeAlias = Literal["error", "warning"]

ENTRYPOINT = "pipeline.kubeflow_task"
"""Module that runs a component in its container, and the component's driver first."""

_SCHEMAS: dict[Target, tuple[str, ...]] = {"kfp": ("2.1.0",), "vertex": ("2.0.0", "2.1.0")}
_RUN: dict[Target, tuple[str, ...]] = {
    "kfp": ("container", "importer"),
    "vertex": ("container", "importer", "resolver"),
}
_SCHEMES: dict[Target, tuple[str, ...]] = {
    "kfp": ("minio://", "s3://", "gs://"),
    "vertex": ("gs://",),
}
_NAMES: dict[Target, str] = {"kfp": "Kubeflow Pipelines", "vertex": "Vertex AI"}
_TYPES = ("NUMBER_INTEGER", "NUMBER_DOUBLE", "STRING", "BOOLEAN", "LIST", "STRUCT")
_TFX_IMAGES = ("gcr.io/tfx-oss-public/tfx", "tensorflow/tfx", "docker.io/tensorflow/tfx")
_TYPES_MODULE = "components.artifacts"
_AGAIN = "Compile the pipeline again with `plateau compile`."
_LONGEST = 300


@dataclass(frozen=True)
class Finding:
    """Something wrong with a compiled pipeline.

    Attributes:
        rule: Short id of the rule that is broken.
        severity: error if the pipeline would fail, warning if it may.
        where: Which part, as in `task Trainer, input base_model`.
        what: What is wrong, a sentence.
        remedy: What to do about it, a sentence.
    """

    rule: str
    severity: Severity
    where: str
    what: str
    remedy: str


@dataclass(frozen=True)
class DoctorConfig:
    """What `plateau doctor` needs to know.

    Attributes:
        file: Compiled pipeline to check: a YAML file for Kubeflow, a JSON file for Vertex AI.
        target: What it is to run on; if not given, what the file was compiled for.
        param: Value of a parameter that the run will get, as NAME=VALUE; once for each.
        json: Print JSON instead of text.
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    target: Target | None = None
    param: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    json: bool = False

    def __post_init__(self) -> None:
        """Check the target, and that each value has a name of its own."""
        targets = get_args(Target)
        require(
            self.target is None or self.target in targets,
            f"target must be one of {', '.join(targets)}",
            self.target,
            "Leave it out.",
        )
        names = []
        for given in self.param:
            name, equals, _ = given.partition("=")
            require(
                bool(name.strip() and equals),
                "param must be NAME=VALUE",
                given,
                "Try --param patience=3.",
            )
            require(name not in names, "param must name each parameter once", name, "Drop one.")
            names.append(name)

    @property
    def values(self) -> dict[str, str]:
        """The values given, by name."""
        return {name: value for name, _, value in (given.partition("=") for given in self.param)}


def default() -> DoctorConfig:
    """The configuration that the flags of `plateau doctor` begin with: all but FILE."""
    return DoctorConfig(file=tyro.MISSING)


def check(
    compiled: Compiled, target: Target | None = None, values: Mapping[str, object] | None = None
) -> tuple[Finding, ...]:
    """Look for what would go wrong, the errors first.

    Nothing is imported and nothing is run. Apart from looking for modules on the import path, the
    result depends on the arguments only; a part that is malformed is a finding too.

    Args:
        compiled: The pipeline.
        target: What it is to run on; if None, what it was compiled for.
        values: Values of parameters that the run will get. Text stands for what it spells.
    """
    spec = doctor_spec.parse(compiled)
    case = _Case(spec, compiled.target, target or compiled.target, values or {})
    found = [finding for rule in _RULES for finding in rule(case)]
    unique = dict.fromkeys(found)
    return tuple(sorted(unique, key=lambda finding: finding.severity != "error"))


def broken(findings: Iterable[Finding]) -> bool:
    """Whether the pipeline would fail."""
    return any(finding.severity == "error" for finding in findings)


@dataclass(frozen=True)
class _Case:
    """A pipeline and the circumstances it is checked for.

    Attributes:
        spec: The pipeline.
        form: What its file was compiled for.
        target: What it is to run on.
        values: Values given for this run.
    """

    spec: Spec
    form: Target
    target: Target
    values: Mapping[str, object] = field(default_factory=dict)

    def containers(self) -> Iterator[Executor]:
        return (e for e in self.spec.executors.values() if e.kind == "container")

    def tasks(self) -> Iterator[tuple[Component, Task, str]]:
        """Every task with the graph it is in and how it is called in a finding."""
        for graph in self.spec.graphs():
            inner = "" if graph is self.spec.root else f" of component {graph.name}"
            for task in (graph.tasks or {}).values():
                yield graph, task, f"task {task.name}{inner}"


def _error(rule: str, where: str, what: str, remedy: str) -> Finding:
    return Finding(rule, "error", *map(_line, (where, what, remedy)))


def _warning(rule: str, where: str, what: str, remedy: str) -> Finding:
    return Finding(rule, "warning", *map(_line, (where, what, remedy)))


def _line(text: str) -> str:
    """A text that is short and cannot steer a terminal, whatever names it quotes."""
    plain = "".join(char if char.isprintable() else "?" for char in text[: _LONGEST + 1])
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 3]}..."


def _form(case: _Case) -> Iterator[Finding]:
    for where, what in case.spec.malformed:
        yield _error("malformed", where, f"{what[0].upper()}{what[1:]}.", _AGAIN)
    if case.form != case.target:
        forms = {"kfp": "a PipelineSpec", "vertex": "a PipelineJob"}
        yield _error(
            "form",
            "file",
            f"{_NAMES[case.target]} takes {forms[case.target]}, got {forms[case.form]}.",
            f"Compile the pipeline for this target, or check it with --target {case.form}.",
        )


def _schema(case: _Case) -> Iterator[Finding]:
    versions = _SCHEMAS[case.target]
    if case.spec.schema not in versions:
        yield _error(
            "schema",
            "schemaVersion",
            f"{_NAMES[case.target]} needs {' or '.join(versions)}, got "
            f"{case.spec.schema or 'none'}.",
            "Compile with KubeflowV2DagRunnerConfig(use_pipeline_spec_2_1=True), as "
            "`plateau compile` does.",
        )


def _name(case: _Case) -> Iterator[Finding]:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,127}", case.spec.name):
        yield _error(
            "name",
            "pipelineInfo.name",
            "A pipeline's name must be lower-case letters, digits and hyphens, got "
            f"{shown(case.spec.name)}.",
            "Give the pipeline another name.",
        )


def _root(case: _Case) -> Iterator[Finding]:
    root, schemes = case.spec.pipeline_root, _SCHEMES[case.target]
    if not any(root.startswith(scheme) and len(root) > len(scheme) for scheme in schemes):
        yield _error(
            "pipeline-root",
            "runtimeConfig.gcsOutputDirectory" if case.form == "vertex" else "defaultPipelineRoot",
            f"{_NAMES[case.target]} stages artifacts in {', '.join(schemes)}, got "
            f"{shown(root) if root else 'no pipeline root'}.",
            f"Compile with a pipeline root such as {schemes[0]}BUCKET/plateau.",
        )


def _references(case: _Case) -> Iterator[Finding]:
    spec = case.spec
    if not spec.root.tasks:
        yield _error("reference", ROOT, "A pipeline must have tasks, got none.", _AGAIN)
    for component in spec.components.values():
        if component.tasks is None and component.executor not in spec.executors:
            yield _error(
                "reference",
                f"component {component.name}",
                "Its executor must be one of deploymentSpec.executors, got "
                f"{shown(component.executor) if component.executor else 'none'}.",
                _AGAIN,
            )
    for _, task, where in case.tasks():
        if task.component not in spec.components:
            yield _error(
                "reference",
                where,
                "Its componentRef must be one of the components, got "
                f"{shown(task.component) if task.component else 'none'}.",
                _AGAIN,
            )
    for label in spec.mounted:
        if label not in spec.executors:
            yield _error(
                "reference",
                f"platforms, executor {label}",
                f"The platform document must name executors of the pipeline, got {shown(label)}.",
                "A volume would not be mounted. Name one of deploymentSpec.executors.",
            )


def _kinds(case: _Case) -> Iterator[Finding]:
    for executor in case.spec.executors.values():
        where = f"executor {executor.label}"
        if not executor.kind:
            yield _error("executor-kind", where, "It is neither container nor importer.", _AGAIN)
        elif executor.kind not in _RUN[case.target]:
            remedy = (
                "Compile the pipeline for this target; or, in a pipeline of your own, replace "
                "the Resolver by an Importer."
                if executor.kind == "resolver"
                else "Run the component in a container."
            )
            yield _error(
                "executor-kind",
                where,
                f"{_NAMES[case.target]} runs {' and '.join(_RUN[case.target])}, got a "
                f"{executor.kind}.",
                remedy,
            )
        if executor.driver is not None and case.target == "kfp":
            if ENTRYPOINT in executor.command:
                continue
            yield _error(
                "driver-hook",
                where,
                "Kubeflow Pipelines never runs lifecycle.preCacheCheck, so that the component's "
                "driver would be left out.",
                f"Use the command `python -m {ENTRYPOINT}`, which runs the driver itself.",
            )


def _producers(case: _Case) -> Iterator[Finding]:
    for graph, task, where in case.tasks():
        tasks = graph.tasks or {}
        for name in task.dependencies:
            if name not in tasks:
                yield _no_task(f"{where}, dependentTasks", name, tasks)
        for kind, key, source in _inputs(task):
            if not source.producer:
                continue
            part = f"{where}, {_word(kind)} {key}"
            if source.producer not in tasks:
                yield _no_task(part, source.producer, tasks)
                continue
            component = case.spec.components.get(tasks[source.producer].component)
            if component is None or source.status or source.key in component.outputs[kind]:
                continue
            outputs = ", ".join(sorted(component.outputs[kind])) or "none"
            yield _error(
                "producer",
                part,
                f"Task {source.producer} must have this output among its {kind}, got "
                f"{shown(source.key)}.",
                f"Its {kind} are: {outputs}.",
            )


def _no_task(where: str, name: str, tasks: Mapping[str, Task]) -> Finding:
    stem = name.removesuffix("_task")
    if stem != name and stem in tasks:
        remedy = f"TFX appends _task to the producer of a parameter by mistake: name {stem}."
    else:
        remedy = f"Name one of the tasks beside it: {', '.join(tasks) or 'there is none'}."
    got = shown(name) if name else "none"
    return _error("producer", where, f"It must name an existing task, got {got}.", remedy)


def _cycles(case: _Case) -> Iterator[Finding]:
    for graph in case.spec.graphs():
        tasks = graph.tasks or {}
        sorter = TopologicalSorter({name: _before(task) for name, task in tasks.items()})
        try:
            sorter.prepare()
        except CycleError as error:
            # The library names them against the flow.
            circle = " -> ".join(reversed(error.args[1]))
            yield _error(
                "cycle",
                graph.name if graph is case.spec.root else f"component {graph.name}",
                f"Tasks must not wait for each other in a circle, got {circle}.",
                "Take one of these dependencies away.",
            )


def _order(case: _Case) -> Iterator[Finding]:
    if case.target != "kfp":
        return
    for graph, task, where in case.tasks():
        tasks = graph.tasks or {}
        producers = {source.producer for _, _, source in _inputs(task)} & tasks.keys()
        late = sorted(producers - set(task.dependencies))
        if late:
            waited = _waited_for(task, tasks)
            for name in late:
                if name not in waited:
                    yield _error(
                        "order",
                        where,
                        "Kubeflow Pipelines orders tasks by dependentTasks alone, which must "
                        f"lead to every producer, got none that leads to {name}.",
                        f"Add {name} to the dependentTasks of this task.",
                    )


def _waited_for(task: Task, tasks: Mapping[str, Task]) -> set[str]:
    """The tasks that are finished when a task begins, by dependentTasks alone."""
    seen: set[str] = set()
    waiting = list(task.dependencies)
    while waiting:
        name = waiting.pop()
        if name not in seen and name in tasks:
            seen.add(name)
            waiting += tasks[name].dependencies
    return seen


def _before(task: Task) -> set[str]:
    producers = {source.producer for _, _, source in _inputs(task) if source.producer}
    return producers | set(task.dependencies)


def _inputs(task: Task) -> Iterator[tuple[Kind, str, Source]]:
    for key, source in task.artifacts.items():
        yield "artifacts", key, source
    for key, source in task.parameters.items():
        yield "parameters", key, source


def _word(kind: Kind) -> str:
    return "input" if kind == "artifacts" else "parameter"


def _conditions(case: _Case) -> Iterator[Finding]:
    pattern = r"inputs\.(artifacts|parameter_values|parameters)\[\s*(['\"])(.*?)\2\s*\]"
    for _, task, where in case.tasks():
        component = case.spec.components.get(task.component)
        defaults = {
            key
            for key, parameter in (component.parameters if component else {}).items()
            if parameter.default is not None
        }
        known: dict[Kind, set[str]] = {
            "artifacts": set(task.artifacts),
            "parameters": set(task.parameters) | defaults,
        }
        for word, _, key in re.findall(pattern, task.condition):
            kind: Kind = "artifacts" if word == "artifacts" else "parameters"
            if key not in known[kind]:
                yield _error(
                    "condition",
                    f"{where}, condition",
                    f"It must be about {kind} that the task takes, got {shown(key)}.",
                    f"The task takes: {', '.join(sorted(known[kind])) or 'none'}.",
                )


def _main_modules(case: _Case) -> Iterator[Finding]:
    remedy = (
        "A container cannot import what was defined in the script that compiled the pipeline. "
        "Move the definition to a module that is in the image."
    )
    for executor in case.spec.executors.values():
        for word in (*executor.command, *executor.args, *(executor.driver or ())):
            for name in re.findall(r"(?<![\w./])__main__\b[.\w]*", word):
                yield _error(
                    "main-module", f"executor {executor.label}", f"It names {name}.", remedy
                )
    for title, where in _titles(case).items():
        if title.partition(".")[0] == "__main__":
            yield _error("main-module", where, f"Its artifact type is {title}.", remedy)
    for _, task, where in case.tasks():
        for key, source in task.parameters.items():
            value = source.constant
            if isinstance(value, str) and re.fullmatch(r"__main__(\.\w+)+", value):
                yield _error(
                    "main-module", f"{where}, parameter {key}", f"It names {value}.", remedy
                )


def _task_inputs(case: _Case) -> Iterator[Finding]:
    for graph, task, where in case.tasks():
        component = case.spec.components.get(task.component)
        if component is None:
            continue
        declared: dict[Kind, set[str]] = {
            "artifacts": set(component.artifacts),
            "parameters": set(component.parameters),
        }
        outer: dict[Kind, set[str]] = {
            "artifacts": set(graph.artifacts),
            "parameters": set(graph.parameters),
        }
        for kind, key, source in _inputs(task):
            part = f"{where}, {_word(kind)} {key}"
            if key not in declared[kind]:
                names = ", ".join(sorted(declared[kind])) or "none"
                yield _error(
                    "input",
                    part,
                    f"Component {component.name} must declare what a task gives it, got "
                    f"{shown(key)}.",
                    f"It declares the {kind}: {names}.",
                )
            if source.outer and source.outer not in outer[kind]:
                names = ", ".join(sorted(outer[kind])) or "none"
                yield _error(
                    "input",
                    part,
                    f"It must be an input of the {_graph(graph, case)}, got {shown(source.outer)}.",
                    f"That takes the {kind}: {names}.",
                )
        for key, optional in component.artifacts.items():
            if not optional and key != task.item and not _given(task.artifacts, key):
                yield _missing(f"{where}, input {key}")
        for key, parameter in component.parameters.items():
            part = f"{where}, parameter {key}"
            source = task.parameters.get(key, Source())
            if not source.given:
                if not (parameter.optional or parameter.default is not None or key == task.item):
                    yield _missing(part)
            elif source.outer in graph.parameters:
                yield from _same_type(part, parameter.type, source.outer, graph)
            elif source.constant is not None:
                yield from _typed(part, parameter.type, source.constant)


def _graph(graph: Component, case: _Case) -> str:
    return "pipeline" if graph is case.spec.root else f"component {graph.name}"


def _given(sources: Mapping[str, Source], key: str) -> bool:
    return key in sources and sources[key].given


def _missing(where: str) -> Finding:
    return _error(
        "input",
        where,
        "It must have a value, for it is neither optional nor has a default, got none.",
        "Give it one in the pipeline. A component leaves out what is None when it is compiled.",
    )


def _same_type(where: str, type: str, outer: str, graph: Component) -> Iterator[Finding]:
    got = graph.parameters[outer].type
    widened = (got, type) == ("NUMBER_INTEGER", "NUMBER_DOUBLE")
    if got != type and not widened and got in _TYPES and type in _TYPES:
        yield _error(
            "value",
            where,
            f"It must be {type}, got the parameter {outer}, which is {got}.",
            "Declare both with the same type.",
        )


def _typed(where: str, type: str, value: object, text: bool = False) -> Iterator[Finding]:
    if not _fits(value, type, text):
        yield _error(
            "value", where, f"It must be {type}, got {shown(value)}.", f"Try {_EXAMPLES[type]}."
        )


_EXAMPLES = {
    "NUMBER_INTEGER": "3",
    "NUMBER_DOUBLE": "0.5",
    "STRING": "text",
    "BOOLEAN": "true",
    "LIST": "[]",
    "STRUCT": "{}",
}


def _fits(value: object, type: str, text: bool) -> bool:
    """Whether a value is of a parameter type; where `text` is true, whether it spells one."""
    if text and isinstance(value, str) and type in _TYPES and type != "STRING":
        try:
            value = json_text.loads(value.strip().lower() if type == "BOOLEAN" else value)
        except (ValueError, RecursionError):
            return False
    if type in ("NUMBER_INTEGER", "NUMBER_DOUBLE"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return type == "NUMBER_DOUBLE" or isinstance(value, int) or value.is_integer()
    kinds = {"STRING": str, "BOOLEAN": bool, "LIST": list, "STRUCT": dict}
    return isinstance(value, kinds.get(type, object))


def _values(case: _Case) -> Iterator[Finding]:
    parameters = case.spec.root.parameters
    for component in (case.spec.root, *case.spec.components.values()):
        owner = "" if component is case.spec.root else f"component {component.name}, "
        for name, parameter in component.parameters.items():
            where = f"{owner}parameter {name}"
            if parameter.type not in _TYPES:
                yield _error(
                    "value",
                    where,
                    f"Its type must be one of {', '.join(_TYPES)}, got {shown(parameter.type)}.",
                    _AGAIN,
                )
            elif parameter.default is not None:
                yield from _typed(f"{where}, default", parameter.type, parameter.default)
    for origin, values, text in (
        ("runtimeConfig, ", case.spec.values, False),
        ("", case.values, True),
    ):
        for name, value in values.items():
            where = f"{origin}parameter {name}"
            if name not in parameters:
                names = ", ".join(sorted(parameters)) or "none"
                yield _error(
                    "value",
                    where,
                    f"A value must be for a parameter of the pipeline, got one for {shown(name)}.",
                    f"The parameters are: {names}.",
                )
            else:
                yield from _typed(where, parameters[name].type, value, text)
    for name, parameter in parameters.items():
        if _value_of(case, name) is None and not parameter.optional:
            yield _error(
                "value",
                f"parameter {name}",
                "A parameter of the pipeline must have a default or be given, got neither.",
                f"Give it: --param {name}=VALUE.",
            )


def _value_of(case: _Case, name: str) -> object:
    """The value that a parameter of the pipeline would have in this run; None if it has none."""
    for values in (case.values, case.spec.values):
        if values.get(name) is not None:
            return values[name]
    return case.spec.root.parameters[name].default


def _volumes(case: _Case) -> Iterator[Finding]:
    """Folders that a task would seek within its own container."""
    spec = case.spec
    for name in spec.root.parameters:
        folder = _value_of(case, name)
        if not isinstance(folder, str) or not folder.startswith("/"):
            continue
        apart = []
        for task in (spec.root.tasks or {}).values():
            component = spec.components.get(task.component)
            executor = spec.executors.get(component.executor) if component else None
            takes = any(source.outer == name for source in task.parameters.values())
            if takes and executor and not _mounted(folder, executor, case.target):
                apart.append(task.name)
        if apart:
            yield _warning(
                "volume",
                f"parameter {name}",
                f"The folder {folder} is on no volume that {_several('task', apart)} would see: "
                "it would be one inside the container, and what is written there would be lost.",
                "Mount a volume there, or name a folder in a bucket: gs://BUCKET/FOLDER.",
            )


def _mounted(folder: str, executor: Executor, target: Target) -> bool:
    # Vertex AI shows the buckets of a project as folders here.
    places = ("/gcs",) if target == "vertex" else executor.mounts
    return any(place and Path(folder).is_relative_to(place) for place in places)


def _classes(case: _Case) -> Iterator[Finding]:
    look_up = functools.lru_cache(maxsize=None)(doctor_modules.look_up)
    for executor in case.containers():
        path = executor.option("--executor_class_path")
        if path is None or path.partition(".")[0] == "__main__":
            continue
        where = f"executor {executor.label}"
        module, _, name = path.rpartition(".")
        found = look_up(path)
        if found == "no module":
            yield _error(
                "executor-class",
                where,
                "Its executor class must be in a module that can be imported, got "
                f"{shown(path) if path else 'none'}.",
                f"Put the module {module} in the image, and its folder on PYTHONPATH here."
                if module
                else "Name it as package.module.Class.",
            )
        elif found != "found":
            what = "has no such class" if found == "no class" else "cannot be parsed"
            yield _error(
                "executor-class",
                where,
                f"Its executor class must be in the module it names: {module} {what}, got "
                f"{shown(name)}.",
                "Mend the module, or compile the pipeline again.",
            )


def _commands(case: _Case) -> Iterator[Finding]:
    for executor in case.containers():
        if not "".join(executor.command).strip():
            yield _error(
                "command",
                f"executor {executor.label}",
                "A container must have a command, got none: the image's ENTRYPOINT would run.",
                f"Set the command to `python -m {ENTRYPOINT}`.",
            )


def _images(case: _Case) -> Iterator[Finding]:
    labels: dict[str, list[str]] = {}
    for executor in case.containers():
        labels.setdefault(executor.image, []).append(executor.label)
    build = "Build the image of this project, and compile with its name."
    for image, users in labels.items():
        where = _several("executor", users)
        plain, at, _ = image.partition("@")
        path, _, last = plain.rpartition("/")
        last, _, tag = last.partition(":")
        name = f"{path}/{last}" if path else last
        if not image or any(char.isspace() for char in image):
            yield _error(
                "image",
                where,
                f"A container must have an image, a name without blanks, got {shown(image)}.",
                build,
            )
        elif name in _TFX_IMAGES:
            yield _error(
                "image",
                where,
                f"The image must contain this project's packages, got TFX's own, {shown(image)}.",
                build,
            )
        elif not at and tag in ("", "latest"):
            yield _warning(
                "image-tag",
                where,
                f"An image should have a tag that stays what it is, got {shown(image)}.",
                "A later build would change runs, and spoil the cache. Name a version or a digest.",
            )


def _several(noun: str, names: list[str]) -> str:
    first = f"{noun} {names[0]}"
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"


def _artifact_types(case: _Case) -> Iterator[Finding]:
    ours = doctor_modules.type_names(_TYPES_MODULE)
    tfx = doctor_modules.files_beside("tfx", "orchestration/kubeflow/v2/artifact_types", ".yaml")
    for title, where in _titles(case).items():
        space, _, name = title.partition(".")
        if (
            title in ours
            or (space == "tfx" and (name in tfx or not tfx))
            or (space == "system" and name)
            or space == "__main__"
        ):
            continue
        yield _error(
            "artifact-type",
            where,
            f"A container can restore types of TFX, of Kubeflow and of {_TYPES_MODULE}, got "
            f"{shown(title) if title else 'no title'}.",
            f"Define the type, with this TYPE_NAME, in {_TYPES_MODULE}.",
        )


def _titles(case: _Case) -> dict[str, str]:
    """The first place, and the number of others, of each artifact type."""
    places: dict[str, list[str]] = {}
    for component in (case.spec.root, *case.spec.components.values()):
        for place, title in component.titles.items():
            places.setdefault(title, []).append(place)
    for executor in case.spec.executors.values():
        if executor.title is not None:
            places.setdefault(executor.title, []).append(f"executor {executor.label}")
    return {
        title: where[0] + (f" and {len(where) - 1} more" if len(where) > 1 else "")
        for title, where in places.items()
    }


_RULES: tuple[Callable[[_Case], Iterator[Finding]], ...] = (
    _form,
    _schema,
    _name,
    _root,
    _references,
    _kinds,
    _producers,
    _cycles,
    _order,
    _conditions,
    _main_modules,
    _task_inputs,
    _values,
    _volumes,
    _classes,
    _commands,
    _images,
    _artifact_types,
)
