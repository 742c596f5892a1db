"""One training run, from configuration to saved model, tables and plots."""

import csv
import logging
import math
import os
import platform
import re
import secrets
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from .. import nn as metanets
from .. import trust
from ..checkpoints import atomic_write
from ..config import build, plain
from ..errors import MetanetError
from ..runs import check_login, write_metrics
from ._callbacks import LAST, EpochBar, KeepBest
from ._curves import draw_epochs
from ._data import WeightData
from ._evaluate import Evaluation, evaluate
from ._interrupt import QuitAtOnce
from ._last import SafeCheckpointIO, load_last
from ._module import MetanetModule, WeightLoaders
from ._saved import describe_run, references
from ._task import Task

_log = logging.getLogger(__name__)
MODEL = "model"


def train(cfg: DictConfig) -> float:
    """Train a metanetwork as configured, evaluate it, and leave everything in the run directory.

    Args:
        cfg: the composed ``conf/train.yaml``; ``cfg.paths.run_dir`` is the run directory.

    Returns:
        The test metric that sweepers optimise (largest is best).

    Raises:
        MetanetError: a configuration that cannot work, with what is allowed.
    """
    start = time.perf_counter()
    folder = Path(cfg.paths.run_dir)
    config = plain(cfg)
    # Lightning's announcements would be all that a user sees of a run; what it warns of still shows
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    check_login(config["logger"])  # before anything that takes time
    _check_trainer(config["trainer"])
    L.seed_everything(cfg.seed, verbose=False)
    zoo = build(cfg.zoo).load(progress=True)
    task: Task = build(cfg.task)
    data = task.data(zoo, cfg.seed, max(2, config["model"].get("probes", 0)))
    task.fit_scale(data.target[data.splits["train"]])
    L.seed_everything(cfg.seed, verbose=False)  # what came before may have made a zoo, or not
    model = _new_model(config["model"], task, data)
    _log.info("%r", zoo)
    _log.info("%s", {name: len(rows) for name, rows in data.splits.items()})
    loggers = _loggers(config, folder)
    ready = time.perf_counter()
    learned = _learn(cfg, config, model, task, data, folder, loggers)
    trained = time.perf_counter()
    if not learned.is_main:
        return float("nan")
    splits = tuple(s for s in ("test", "unseen") if s in data.splits)
    model.to_device(learned.device)
    result = evaluate(model, task, data, splits, cfg.seed, learned.device)
    numbers = {
        **{f"{s}/{k}": v for s, m in result.metrics.items() for k, v in m.items()},
        **{f"relabelled/{s}/{k}": v for s, m in result.relabelled.items() for k, v in m.items()},
        "relabelled/largest_change": result.largest_change,
        "parameters": model.parameter_count(),
        "networks_per_second": 1 / result.seconds_per_network,
        "epochs": learned.epochs,
        "seconds/prepare": ready - start,
        "seconds/train": trained - ready,
    }
    _report(config, folder, task, data, model, result, numbers, loggers)
    return result.metrics["test"][task.monitor]


@dataclass(frozen=True)
class _Learned:
    """How training went.

    Attributes:
        device: on which the model answers.
        epochs: of training.
        is_main: whether this process reports; of several, one does.
    """

    device: torch.device
    epochs: int
    is_main: bool


def _new_model(config: Mapping[str, Any], task: Task, data: WeightData) -> metanets.Metanet:
    """The model of the configuration, with its normalisation."""
    arguments = {key: value for key, value in config.items() if key != "name"}
    model = metanets.build(config["name"], out_dim=task.out_dim, **arguments)
    model.bind(member.architecture for member in data.members.values())
    model.fit_normalisation(s for batch in data.stacks("train") for s in batch.stacks)
    return model


def _learn(
    cfg: DictConfig, config: Mapping[str, Any], model: metanets.Metanet, task: Task, data: WeightData,
    folder: Path,
    loggers: list[Logger],
) -> _Learned:  # fmt: skip
    """Train a model in its own way: by gradients, or all at once."""
    if isinstance(model, metanets.NeuralMetanet):
        trainer = _fit(cfg, config, model, task, data, folder, loggers)
        return _Learned(
            trainer.strategy.root_device, trainer.current_epoch, trainer.global_rank == 0
        )
    batch = data.batch(data.splits["train"])
    model.fit(batch.stacks, task.encode(batch.target))
    return _Learned(torch.device("cpu"), epochs=0, is_main=True)


def _fit(
    cfg: DictConfig,
    config: Mapping[str, Any],
    model: metanets.NeuralMetanet,
    task: Task,
    data: WeightData,
    folder: Path,
    loggers: list[Logger],
) -> L.Trainer:
    monitor = f"val/{task.monitor}"
    best = KeepBest(folder, monitor)
    bar = [QuitAtOnce(), *([EpochBar(monitor)] if cfg.trainer.enable_progress_bar else [])]
    warnings.filterwarnings(
        "ignore", message=".*isinstance.treespec, LeafSpec.*"
    )  # lightning, of itself
    trainer: L.Trainer = build(
        cfg.trainer, callbacks=[*bar, best], logger=loggers, plugins=[SafeCheckpointIO()],
        enable_progress_bar=False,
        enable_checkpointing=False, use_distributed_sampler=False, num_sanity_val_steps=0,
    )  # fmt: skip
    module = MetanetModule(model, task, config["optim"], cfg.seed)
    last = folder / LAST
    go_on = bool(cfg.resume) and last.exists()
    if cfg.resume and not go_on:
        _log.warning("%s has no finished epoch: starting from the first", folder)
    if go_on:
        load_last(last)
    try:
        trainer.fit(module, WeightLoaders(data), ckpt_path=last if go_on else None)
    except Exception as error:  # of data, Lightning and torch raise nearly anything
        if (
            not go_on
            or best.began
            or isinstance(error, MetanetError | OSError | torch.OutOfMemoryError)
        ):
            raise
        raise MetanetError(
            f"can't go on from '{last}': it does not fit this run ({type(error).__name__}: "
            f"{str(error)[:300]}). Was the model or the optimizer changed? Go on with the same, or "
            "train in a new directory."
        ) from error
    if trainer.interrupted:
        raise KeyboardInterrupt
    if best.weights:
        model.load_state_dict(best.weights)
    model.eval()
    return trainer


def _loggers(config: Mapping[str, Any], folder: Path) -> list[Logger]:
    version_number = len(list(folder.glob("csv/version_*"))) if folder.is_dir() else 0
    loggers: list[Logger] = [CSVLogger(folder, name="csv", version=version_number)]
    settings = config["logger"]
    os.environ.setdefault("WANDB_SILENT", "true")
    if settings["name"] == "wandb" and settings["mode"] != "disabled":
        online = WandbLogger(
            project=settings["project"],
            save_dir=folder,
            name=folder.name,
            config={**config, "versions": versions()},
            mode=settings["mode"],
            id=_wandb_id(folder),
            resume="allow" if settings["mode"] == "online" else None,
        )
        # Lightning hands on an argument that W&B no longer has, and W&B warns of it in every run
        getattr(online, "_wandb_init", {}).pop("anonymous", None)
        loggers.append(online)
    return loggers


def _check_trainer(settings: Mapping[str, Any]) -> None:
    """Make the Trainer once, to hear what Lightning says of its arguments before the zoo is made.

    Raises:
        MetanetError: it refuses them.
    """
    try:
        build(settings, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise MetanetError(f"trainer can't be made of {settings}: {error}") from error


@rank_zero_only
def _wandb_id(folder: Path) -> str:
    """The W&B id of this run directory, made once: a resumed run goes on under the same id when
    online."""
    path = folder / "wandb_id"
    if path.is_file() and re.fullmatch(
        r"[0-9a-z]{1,64}", identity := path.read_text(errors="replace")[:100].strip()
    ):
        return identity  # it becomes a part of paths, so it may be nothing else
    new = secrets.token_hex(4)
    with atomic_write(path) as temporary:
        temporary.write_text(new)
    return new


def _report(
    config: Mapping[str, Any], folder: Path, task: Task, data: WeightData, model: Any, result: Evaluation,
    numbers: dict[str, float], loggers: list[Logger],
) -> None:  # fmt: skip
    run = describe_run(task, config["task"], data)
    meta = {
        **run,
        "metrics": {
            name: value if math.isfinite(value) else None for name, value in numbers.items()
        },
        "seed": config["seed"],
        "config": config,
        "versions": versions(),
    }
    metanets.save(folder / MODEL, model, meta)
    model_reference = metanets.reference(type(model))
    # made here, of what the user named: `predict` need not ask
    trust.remember(
        folder / MODEL, [*references(run), *([model_reference] if model_reference else [])]
    )
    write_metrics(folder, numbers)
    _write_predictions(folder / "predictions.csv", data, result)
    figures = {**task.plots(data, result.predictions), **draw_epochs(folder, f"val/{task.monitor}")}
    for name, figure in figures.items():
        with atomic_write(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, dpi=130, format="png")
    text = table(config["model"]["name"], result, numbers)
    with atomic_write(folder / "results.md") as temporary:
        Path(temporary).write_text(text + "\n")
    for logger in loggers:
        logger.log_metrics({k: v for k, v in numbers.items() if isinstance(v, (int, float))})
        if isinstance(logger, WandbLogger):
            for (
                name
            ) in figures:  # each by itself: W&B shows images of different sizes badly side by side
                logger.log_image(name, [str(folder / f"{name}.png")])
        logger.finalize("success")
    if any(isinstance(lg, WandbLogger) for lg in loggers):
        import wandb

        wandb.finish()
    print(f"\n{text}\n\nrun directory: {folder}")


def table(name: str, result: Evaluation, numbers: Mapping[str, float]) -> str:
    """The final table as Markdown: every split, plain and relabelled."""
    keys = list(next(iter(result.metrics.values())))
    lines = [f"| {name} | {' | '.join(keys)} |", "|---" * (len(keys) + 1) + "|"]
    for split in result.metrics:
        lines.append(
            f"| {split} | " + " | ".join(f"{result.metrics[split][k]:.4f}" for k in keys) + " |"
        )
        lines.append(
            f"| {split}, relabelled | "
            + " | ".join(f"{result.relabelled[split][k]:.4f}" for k in keys)
            + " |"
        )
    lines.append("")
    lines.append(
        f"{numbers['parameters']} parameters; {numbers['networks_per_second']:.0f} networks/s; training took "
        f"{numbers['seconds/train']:.0f} s; relabelling changes outputs by "
        f"{result.largest_change:.1e} of their spread"
    )
    return "\n".join(lines)


def _write_predictions(path: Path, data: WeightData, result: Evaluation) -> None:
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        first = next(iter(result.predictions.values()))
        wide = (
            [f"prediction_{i}" for i in range(first.shape[1])] if first.ndim > 1 else ["prediction"]
        )
        writer.writerow(["id", "split", "architecture", "target", *wide])
        for split, predictions in result.predictions.items():
            for row, p in zip(data.splits[split].tolist(), predictions.tolist(), strict=True):
                target = (
                    data.target[row].item()
                    if data.target[row].ndim == 0
                    else data.target[row].tolist()
                )
                values = p if isinstance(p, list) else [p]
                writer.writerow(
                    [
                        data.zoo.table["id"][row],
                        split,
                        data.zoo.table["architecture"][row],
                        target,
                        *values,
                    ]
                )


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    packages = ("metanet", "torch", "torch-geometric", "lightning", "numpy", "scikit-learn")
    installed = {"python": platform.python_version()}
    for package in packages:
        installed[package] = version(package)
    return installed
