"""What is learned from a zoo: tasks, and the run that trains and evaluates a metanetwork on one."""

from typing import TYPE_CHECKING, Any

from ..sources import import_torchvision

if TYPE_CHECKING:
    from ._predict import predict as predict
    from ._run import train as train
    from ._task import TASKS as TASKS
    from ._task import Task as Task
    from ._task import register as register
    from .accuracy_prediction import AccuracyPrediction as AccuracyPrediction
    from .inr_classification import InrClassification as InrClassification

_WHERE = {
    "AccuracyPrediction": "accuracy_prediction",
    "InrClassification": "inr_classification",
    "TASKS": "_task",
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
