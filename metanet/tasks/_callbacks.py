"""What a run keeps while it trains: one file to resume from, whole or not at all, the best weights
inside it."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from pydantic import ConfigDict

from ..documents import Document, validated
from ..nn import NeuralMetanet
from ..progress import Progress, track
from ._module import MetanetModule

LAST = "last.ckpt"


class Best(Document):
    """The state of :class:`KeepBest` in ``last.ckpt``."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, arbitrary_types_allowed=True
    )

    score: float
    epoch: int
    weights: dict[str, torch.Tensor]


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
        self.began = False  # a training step has ended: whatever was read was fit to go on from

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Checks the weights that a resumed run brings along.

        Raises:
            ValueError: they are those of another model.
        """
        if not self.weights:
            return
        model = _model_of(pl_module)
        self.weights = model.with_current_names(self.weights)
        shapes = {name: value.shape for name, value in self.weights.items()}
        if shapes != {name: value.shape for name, value in model.state_dict().items()}:
            raise ValueError("the best weights are those of another model")

    def on_train_batch_end(self, *_: Any) -> None:
        """Notes that training has begun."""
        self.began = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copies the weights if the metric is larger than ever; the first epoch always counts."""
        score = float(trainer.callback_metrics[self.monitor])
        # the first epoch counts even where the metric is NaN
        is_first = not self.weights
        if score > self.score or is_first:
            self.score, self.epoch = score, trainer.current_epoch
            state = _model_of(pl_module).state_dict()
            self.weights = {name: value.detach().cpu().clone() for name, value in state.items()}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the checkpoint to go on from."""
        trainer.save_checkpoint(self.path)

    def state_dict(self) -> dict[str, Any]:
        """Score, epoch and weights of the best epoch, for the checkpoint."""
        return {"score": self.score, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`.

        Raises:
            MetanetError: the checkpoint holds something else.
        """
        best = validated(Best, state, str(self.path))
        self.score, self.epoch, self.weights = best.score, best.epoch, dict(best.weights)


def _model_of(module: L.LightningModule) -> NeuralMetanet:
    assert isinstance(module, MetanetModule)
    return module.model


class EpochBar(L.Callback):
    """One progress bar over the epochs, with the training loss and the metric that is monitored."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Opens the bar, in the first process only; a resumed run begins where it stopped."""
        total = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
        self.bar = track(
            what="training",
            total=total,
            initial=trainer.current_epoch,
            unit="epochs",
            show=trainer.global_rank == 0,
        )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """One epoch further, with its numbers."""
        assert self.bar is not None
        shown = {
            k: f"{float(trainer.callback_metrics[k]):.4f}"
            for k in ("train/loss", self.monitor)
            if k in trainer.callback_metrics
        }
        self.bar.tell(shown)
        self.bar.update()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Closes the bar."""
        if self.bar is not None:
            self.bar.close()
