"""Ctrl-C during training: Lightning ends the run in order; who presses it again does not want to
wait for that."""

import signal

import lightning.pytorch as L


class QuitAtOnce(L.Callback):
    """Lets a second Ctrl-C end the process: Lightning ignores it from the first one on."""

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Gives the signal back to the system once Ctrl-C has ended the training."""
        if isinstance(exception, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
