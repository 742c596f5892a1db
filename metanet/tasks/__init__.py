"""What is learned from a zoo: tasks, and the run that trains and evaluates a metanetwork on one."""

from typing import TYPE_CHECKING, Any

from ..sources import import_torchvision

if TYPE_CHECKING:
    from ._accuracy import AccuracyPrediction as AccuracyPrediction
    from ._inr import InrClassification as InrClassification
    from ._predict import predict as predict
    from ._run import train as train
    from ._saved import TASKS as TASKS
    from ._task import Task as Task
    from ._task import register as register

_WHERE = {
    "AccuracyPrediction": "_accuracy",
    "InrClassification": "_inr",
    "TASKS": "_saved",  # which registers all of ours
    "Task": "_task",
    "register": "_task",
    "predict": "_predict",
    "train": "_run",
}
# lightning imports torchvision where there is one, and fails where its compiled part is of another
# build than PyTorch
_ON_LIGHTNING = ("predict", "train")


def __getattr__(name: str) -> Any:
    # imported when first used: lightning and matplotlib take seconds
    if name in _WHERE:
        import importlib

        if name in _ON_LIGHTNING:
            import_torchvision()
        return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
