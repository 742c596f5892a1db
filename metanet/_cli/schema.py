"""What the keys of the commands may be: the one table beside ``conf/``.

What a ``_target_``, a model, a method or a matcher takes is not written here: their signatures say
it (``checks.py``), and :data:`RANGES` adds the bounds of numbers by their names. So a new model or
method needs no line of this file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from . import places
from .kinds import Filled, Range

Positive = Annotated[int, Range(1)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Share = Annotated[float, Range(0, 1)]
Shape = list[Positive] | None
_DTYPES = Literal["float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"]


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        kind: what its value may be.
        names: a registry, ``what module:NAME``, one of whose names the value must be; a list: each
            of them.
        check: ``check(key, value, cfg)``: what is wrong with a value of the right kind, or
            ``None``.
        advice: what to do where the kind is wrong; ``VALUE`` in it stands for what was given.
    """

    kind: Any
    names: str | None = None
    check: Callable[[str, Any, Mapping[str, Any]], str | None] | None = None
    advice: str = ""


_SHAPE = Key(Shape, advice="give the shape of one sample, e.g. [1,28,28] or [16]")
_CHECKPOINT = Key(str | None, check=places.checkpoint)
_FREE = Key(str, check=places.free)
_REFERENCE = Key(str | None, check=places.reference)
_LOGGER = {
    "logger.name": Key(Literal["wandb", "none"]),
    "logger.mode": Key(Literal["offline", "online", "disabled"], check=places.login),
    "logger.project": Key(str),
}
_DATA = {
    "data_args.batch_size": Key(Positive | None),
    "data_args.limit": Key(Positive | None),
    "train_data": Key(str | None, check=places.data),
    "loss": Key(str | None, check=places.loss),
}

EVERYWHERE: Mapping[str, Key] = {
    "seed": Key(Seed),
    "device": Key(str, check=places.device),
    "arch": _REFERENCE,
    "arch_args": Key(dict),
    "input_shape": _SHAPE,
    "a": _CHECKPOINT,
    "b": _CHECKPOINT,
    "base": _CHECKPOINT,
    "checkpoint": _CHECKPOINT,
    "run": Key(str, check=places.there),
    "trust": Key(
        bool | list[str] | str | None,
        advice="give a folder, [A,B], or true for the one that is read",
    ),
    **_DATA,
    **_LOGGER,
}

BY_COMMAND: Mapping[str, Mapping[str, Key]] = {
    "train": {
        "optim.schedule.warmup_fraction": Key(Share),
        "optim.schedule.final_fraction": Key(Share),
        "zoo.arch": Key(str | None, check=places.reference_unread),
        "zoo.path": Key(str, check=places.folder),
        "zoo.input_shape": _SHAPE,
    },
    "zoo": {
        "zoo.arch": Key(str | None, check=places.reference_unread),
        "zoo.path": Key(str, check=places.folder),
        "zoo.input_shape": _SHAPE,
    },
    "predict": {
        "arch": Key(
            str | None
        ),  # also the name of an architecture of the run, which only the run knows
        "model_class": Key(str | None, check=places.model),
    },
    "inspect": {
        "verify": Key(bool),
        "axes": Key(Positive | None),
        "explain": Key(str | None),
        "out": Key(str | None, check=places.file),
        "device": Key(str, check=places.device_or_meta),
    },
    "graph": {
        "granularity": Key(Literal["neuron", "tensor"]),
        "format": Key(Literal["safetensors", "pt"]),
        "extra": Key(Literal["refuse", "drop"]),
        "foreign_classes": Key(Literal["refuse", "inert"]),
        "key": Key(str | None),
        "prefix": Key(str | None),
        "structure": Key(bool),
        "draw": Key(bool),
        "html": Key(bool),
        "overwrite": Key(bool),
        "max_edges": Key(Positive),
        "max_neurons": Key(Positive | None),
        "out": Key(str | None, check=places.folder_or_new),
        "device": Key(str, check=places.device_or_meta),
    },
    "align": {"out": _FREE, "data": Key(str | None, check=places.data)},
    "barrier": {
        "data": Key(str, check=places.data),
        "points": Key(
            Annotated[int, Range(3)],
            advice="a path has both ends and points between: give 3 or more",
        ),
        "metrics": Key(list[str] | str | None, names="metric metanet.evaluation:METRICS"),
        "statistics": Key(str, names="statistics metanet.landscape:STATISTICS"),
        "alignment": Key(str | None, check=places.checkpoint),
    },
    "merge": {
        "models": Key(
            Annotated[list[str], Filled()] | str | None,
            check=places.checkpoints,
            advice="give a list of checkpoints, models=[VALUE,B]",
        ),
        "data": Key(list[str] | str | None, check=places.data),
        "alignment": Key(list[str | None] | str | None, check=places.checkpoint),
        "repair": Key(str | None, names="repair metanet.merging.repairs:REPAIRS"),
        "repair_passes": Key(Positive | None),
        "overrides": Key(
            dict | str | None,
            check=places.there,
            advice="give {PATTERN: {OPTION: NUMBER}}, or a YAML file",
        ),
        "slices": Key(
            list | str | None,
            check=places.there,
            advice="give [{MODEL: [FIRST, BEHIND_THE_LAST]}, ...], or a file",
        ),
        "recipe": Key(str | None, check=places.there),
        "overflow": Key(Literal["error", "clip", "keep"]),
        "dtype": Key(Literal["float32", "float64"] | None),
        "out_dtype": Key(_DTYPES | None),
        "max_shard_size": Key(str | Positive),
        "out": _FREE,
    },
}

EXCLUSIVE = (
    (
        "matcher",
        "alignment",
        "give either matcher=NAME, which finds an alignment, or alignment=FILE, which has one",
    ),
)
"""Keys of which one at most may be given, and what is said of both."""

RANGES: Mapping[str, Range] = {
    "model.*dropout": Range(0, 1),
    "model.*width": Range(1),
    "model.*layers": Range(0),
    "model.*probes": Range(0),
    "model.*outputs": Range(1),
    "model.speed": Range(0, above=True),
    "model.max_io": Range(1),
    "model.iterations": Range(1),
    "model.leaves": Range(2),
    "model.learning_rate": Range(0, above=True),
    "model.columns": Range(0, 1, above=True),
    "task.val": Range(0, 1),
    "task.test": Range(0, 1),
    "task.batch_size": Range(1),
    "task.fits": Range(1),
    "task.label_smoothing": Range(0, 1),
    "zoo.lr": Range(0, above=True),
    "zoo.steps": Range(0),
    "trainer.max_epochs": Range(-1),
    "trainer.devices": Range(-1),
    "trainer.num_nodes": Range(1),
    "trainer.log_every_n_steps": Range(0),
    "trainer.accumulate_grad_batches": Range(1),
    "trainer.gradient_clip_val": Range(0),
    "optim.*lr": Range(0),
    "optim.*betas": Range(0, 1),
    "optim.*weight_decay": Range(0),
    "method.density": Range(0, 1),
    "method.gamma": Range(0, 1),
    "method.select_topk": Range(0, 1),
    "method.share": Range(0, 1),
    "method.samples": Range(1),
    "method.steps": Range(1),
    "method.max_iter": Range(1),
    "m*.batches": Range(1),
    "m*.positions": Range(1),
    "matcher.restarts": Range(1),
    "matcher.rounds": Range(1),
    "matcher.max_*": Range(1),
    "matcher.epochs": Range(1),
    "matcher.steps": Range(1),
    "matcher.iterations": Range(1),
    "matcher.check": Range(1),
    "matcher.memory": Range(0, above=True),
    "matcher.temperature": Range(0, above=True),
    "*seed": Range(0, 2**32 - 1),
}
"""Bounds of numbers by the names of their keys: the first pattern that matches counts, for each
number of a list."""
