"""What a saved metanetwork says of its run: the task, its scale, and the architectures that it was
trained on."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from .. import trust
from ..documents import Document, validated
from ..errors import MetanetError
from ..sources import load_factory
from ..zoo import ArchitectureEntry
from ._data import WeightData
from ._task import TASKS, Task

_OLD = {
    "metanet.tasks.AccuracyPrediction": "accuracy_prediction",
    "metanet.tasks.InrClassification": "inr_classification",
}
"""As ``model.json`` named tasks before they were registered."""


class _TaskEntry(Document):
    """A task: by its name, or package.module:Class of somebody's own."""

    name: str | None = None
    reference: str | None = None
    arguments: dict[str, Any]


class SavedRun(Document):
    """The part of ``meta`` that predictions need."""

    model_config = ConfigDict(extra="ignore")

    task: _TaskEntry
    scale: dict[str, Any]
    architectures: dict[str, ArchitectureEntry] = {}  # noqa: RUF012
    input_shapes: dict[str, list[int]] = {}  # noqa: RUF012  # older ones have these instead


def describe_run(task: Task, arguments: Mapping[str, Any], data: WeightData) -> dict[str, Any]:
    """What :func:`read_run` needs, as plain JSON.

    Args:
        task: with the scale that it learned.
        arguments: of its constructor.
        data: what it was trained on.
    """
    cls = type(task)
    names = [name for name, entry in TASKS.items() if entry is cls and TASKS.is_installed(name)]
    name = names[0] if names else None
    entry = {
        "arguments": {key: value for key, value in arguments.items() if not key.startswith("_")}
    }
    identity = (
        {"name": name}
        if name is not None
        else {"reference": f"{cls.__module__}:{cls.__qualname__}"}
    )
    return {"task": identity | entry, "scale": task.scale(), "architectures": _architectures(data)}


def _architectures(data: WeightData) -> dict[str, Any]:
    described = {}
    for name, member in data.members.items():
        population = member.population
        described[name] = {
            "ref": population.ref,
            "arch_args": dict(population.arch_args),
            "input_shape": list(population.input_shape),
            "input_range": list(map(float, population.input_range)),
        }
    return described


def references(meta: Mapping[str, Any]) -> list[str]:
    """Everything in the description of a run that names code."""
    run = validated(SavedRun, meta, "the description of this run")
    task_reference = [run.task.reference] if run.task.reference else []
    return [*task_reference, *(entry.ref for entry in run.architectures.values())]


def read_run(meta: Mapping[str, Any], place: str) -> SavedRun:
    """The description of a run from a file, checked.

    Raises:
        MetanetError: the file is not of a training run, or damaged.
    """
    if not isinstance(meta.get("task"), Mapping) or "_target_" not in meta["task"]:
        return validated(SavedRun, meta, place)
    # before tasks were registered: {"task": {"_target_": ..., "label": ...}, "config": {"task":
    # {...}}}
    config = meta.get("config")
    node = config.get("task") if isinstance(config, Mapping) else None
    node = node if isinstance(node, Mapping) else {}
    target = node.get("_target_")
    if target not in _OLD:
        raise MetanetError(
            f"{place} names the task {trust.shown(target)}; a file may name {', '.join(sorted(TASKS))}. "
            "Is it one of your own? Train it again: it is then saved in a form that can be trusted by name"
        )
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    return validated(
        SavedRun, {**meta, "task": {"name": _OLD[target], "arguments": arguments}}, place
    )


def restore_task(run: SavedRun, folder: Path) -> Task:
    """The task of a saved model, with the scale it learned.

    Args:
        folder: of the file.

    Raises:
        MetanetError: there is no such task, or it does not take these arguments.
        TrustError: its class is code of its author, and nobody trusts the folder.
    """
    cls = _task_class(run.task, folder)
    place = f"{folder}: the task's arguments"
    parameters = {field.name for field in dataclasses.fields(cls) if field.init}
    if unknown := [key for key in run.task.arguments if key not in parameters]:
        raise MetanetError(
            f"{place}: there is no {trust.shown(unknown[0])}; it takes {', '.join(sorted(parameters))}"
        )
    trust.check_arguments(cls, run.task.arguments, place)
    task = cls(**run.task.arguments)
    task.restore(run.scale)
    return task


def _task_class(entry: _TaskEntry, folder: Path) -> type[Task]:
    if entry.name is not None and entry.name in TASKS:
        return TASKS[entry.name]
    if entry.reference is None:
        raise MetanetError(
            f"{folder} is of the task {trust.shown(entry.name)}; a file may name {', '.join(sorted(TASKS))}"
        )
    trust.require([entry.reference], folder, "the code of a task, which would be imported")
    cls = load_factory(entry.reference)
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise MetanetError(
            f"{folder}: {entry.reference} is no task: expected a class derived from metanet.tasks.Task"
        )
    return cls
