"""What a run keeps while it trains: one file to resume from, whole or not at all, the best weights inside it."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ..checkpoints import atomic_write
from ..progress import Progress, track
from ._module import MetanetModule

LAST = "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written beside and renamed: a run killed while writing keeps the epoch before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            torch.save(checkpoint, temporary)


class KeepBest(L.Callback):
    """Keeps the best epoch's weights, and writes ``last.ckpt`` after every epoch.

    The best weights travel inside ``last.ckpt``, so that there is one file to be right about.

    Args:
        folder: where ``last.ckpt`` goes.
        monitor: metric to be largest.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        self.path, self.monitor = folder / LAST, monitor
        self.score, self.epoch = -float("inf"), -1
        self.weights: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        score = float(trainer.callback_metrics[self.monitor])
        if score > self.score or not self.weights:  # the first epoch counts even where the metric is NaN
            self.score, self.epoch = score, trainer.current_epoch
            assert isinstance(pl_module, MetanetModule)
            self.weights = {k: v.detach().cpu().clone() for k, v in pl_module.model.state_dict().items()}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score, self.epoch, self.weights = state["score"], state["epoch"], state["weights"]


class EpochBar(L.Callback):
    """One progress bar over the epochs, with the training loss and the metric that is monitored."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        total = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
        self.bar = track(
            what="training", total=total, initial=trainer.current_epoch, unit="epochs", show=trainer.global_rank == 0
        )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self.bar is not None
        shown = {
            k: f"{float(trainer.callback_metrics[k]):.4f}"
            for k in ("train/loss", self.monitor)
            if k in trainer.callback_metrics
        }
        self.bar.tell(shown)
        self.bar.update()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.bar is not None:
            self.bar.close()
