"""The LightningModule: a metanetwork, a task's loss and metrics, and nothing about devices."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..config import build
from ..errors import MetanetError
from ..nn import NeuralMetanet
from ._data import WeightBatch, WeightData
from ._task import Task


class MetanetModule(L.LightningModule):
    """Trains a metanetwork on a task.

    Args:
        model: called with a sequence of graph stacks, returns ``(networks, out_dim)``.
        task: loss, predictions and metrics.
        optim: the ``optim`` group: ``optimizer`` (a ``_target_`` node) and ``schedule``.
        seed: of dropout, together with epoch, step and process.
    """

    def __init__(
        self, model: NeuralMetanet, task: Task, optim: Mapping[str, Any], seed: int
    ) -> None:
        super().__init__()
        self.model, self.task, self.optim, self.seed = model, task, optim, seed
        self._collected: list[tuple[Tensor, Tensor]] = []

    def forward(self, batch: WeightBatch) -> Tensor:
        """Raw outputs ``(networks, out_dim)``."""
        return self.model(batch.stacks)

    def training_step(self, batch: WeightBatch, step: int) -> Tensor:
        """The loss of a batch, with the random numbers of this step alone."""
        # A resumed run must continue as an undisturbed one would: what is random in a step depends
        # on this alone. It is set here because the hooks around an epoch are left out where
        # Lightning resumes.
        torch.manual_seed(step_seed(self.seed, self.current_epoch, step, self.global_rank))
        loss = self.task.loss(self(batch), batch.target)
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch), sync_dist=True
        )
        return loss

    def on_train_epoch_end(self) -> None:
        """Logs the learning rate."""
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def validation_step(self, batch: WeightBatch, _: int) -> None:
        """Collects outputs and targets of a batch."""
        self._collected.append((self(batch).float().cpu(), batch.target.cpu()))

    def on_validation_epoch_end(self) -> None:
        """Metrics of the whole split at once: those of batches can not be averaged.

        Raises:
            MetanetError: the model diverged.
        """
        # every process sees the whole split, so there is nothing to gather
        output, target = (torch.cat(x) for x in zip(*self._collected, strict=True))
        self._collected.clear()
        loss = float(self.task.loss(output, target))
        check_finite(output, loss, f"in epoch {self.current_epoch}")
        metrics = {"loss": loss, **self.task.metrics(self.task.predict(output), target)}
        self.log_dict({f"val/{k}": v for k, v in metrics.items()}, prog_bar=False)
        self.log("val", metrics[self.task.monitor], prog_bar=True, logger=False)

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule: a linear warm-up, then a cosine down."""
        node = dict(self.optim["optimizer"])
        decay: list[Tensor] = []
        plain: list[Tensor] = []
        for parameter in self.parameters():
            if parameter.requires_grad:  # biases, norms and embeddings of one row are not decayed
                (decay if parameter.ndim >= 2 else plain).append(parameter)
        groups = [{"params": decay}, {"params": plain, "weight_decay": 0.0}]
        optimizer = build(node, params=groups)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = self.optim["schedule"]
        warmup = max(1, round(schedule["warmup_fraction"] * total))
        final = schedule["final_fraction"]

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            done = min(1.0, (step - warmup) / max(1, total - warmup))
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def check_finite(output: Tensor, loss: float, when: str) -> None:
    """Refuse to go on with a model that diverged: every later metric would be NaN.

    A metric may be undefined where outputs and loss are finite (a rank correlation of equal
    predictions); that is no error.

    Args:
        output: ``(networks, out_dim)``, raw.
        when: for the message.

    Raises:
        MetanetError: outputs or loss are NaN or infinite.
    """
    bad = int((~output.isfinite()).flatten(1).any(1).sum())
    if bad or not math.isfinite(loss):
        raise MetanetError(
            f"the metanetwork diverged: {when} its loss is {loss} and its outputs for {bad} of "
            f"{len(output)} networks are NaN or infinite. Are there networks in the zoo that "
            "diverged (zoo.nan=drop leaves them out)? Else try a smaller optim.optimizer.lr"
        )


def step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """A seed for one training step in one process: unrelated to those of all other steps, the same
    in every run."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{step}/{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


class WeightLoaders(L.LightningDataModule):
    """Hands a task's data to the Trainer: each process its share of the training batches, all of
    validation."""

    def __init__(self, data: WeightData) -> None:
        super().__init__()
        self.data = data

    def train_dataloader(self) -> DataLoader:
        """This process's share of every training batch."""
        trainer = self.trainer
        assert trainer is not None  # it is the trainer that asks
        return self.data.train_loader(trainer.global_rank, trainer.world_size)

    def val_dataloader(self) -> DataLoader:
        """The whole validation split."""
        return self.data.eval_loader("val")

    def transfer_batch_to_device(
        self, batch: WeightBatch, device: torch.device, dataloader_idx: int
    ) -> WeightBatch:
        """The batch on the device of this process."""
        return batch.to(device)
