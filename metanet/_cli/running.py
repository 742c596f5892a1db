"""One command under Hydra: the configuration composed, a run directory, the function called, its
failure kept."""

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs import ERROR_FILE
from . import errors


@dataclass
class Outcome:
    """What is known of a command's runs while they go on and after.

    Attributes:
        run_dir: of the run that started last.
        failure: the first expected error of a run. Hydra never sees it: it would announce it in
            words of its own.
    """

    run_dir: Path | None = None
    failure: Exception | None = None


def run(name: str, args: Sequence[str], outcome: Outcome) -> None:
    """Compose ``conf/NAME.yaml`` with ``args`` and call the command's function, once or once per
    job of a sweep.

    Args:
        name: the command.
        args: prepared arguments.
        outcome: is told of the runs.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from .. import config

    original = list(sys.argv)
    task = _task(name, original, outcome)
    app = hydra.main(config_path=config.hydra_dir(), config_name=name, version_base="1.3")(task)
    # Hydra prints errors and exits unless it is told to raise them; how they look is decided in one
    # place, cli.py.
    with _environment("HYDRA_FULL_ERROR", "1"):
        sys.argv = [original[0], *args]
        try:
            app()
        finally:
            sys.argv = original
            GlobalHydra.instance().clear()


def own_frames(error: Exception) -> Any:
    """The traceback from where Hydra called our task; the whole one for errors outside it."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_name != "task":
        frames = frames.tb_next
    return frames or error.__traceback__


def _task(name: str, argv: list[str], outcome: Outcome) -> Callable[[Any], Any]:
    """What Hydra calls for each job: checks the configuration, then runs the command's function."""

    def task(cfg: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig

        from .. import config, trust
        from .checks import check
        from .directories import is_main_rank, record, tell_ranks
        from .folders import alone
        from .own import announce

        logging.raiseExceptions = (
            False  # a full disk is told once, not with a traceback for every line of the log
        )
        sys.argv = argv  # Lightning starts further processes by the command line of this one
        settings = HydraConfig.get()
        run_dir = Path(settings.runtime.output_dir)
        outcome.run_dir = run_dir
        try:
            if is_main_rank():
                (run_dir / ERROR_FILE).unlink(missing_ok=True)
                if cfg.get("resume"):
                    record(cfg, run_dir)
                tell_ranks(str(run_dir))
            announce(settings.overrides.task)  # a launcher may have started this process
            check(name, cfg)
            options = config.plain(cfg)
            if name == "train" and is_main_rank():
                trust.remember(
                    run_dir, settings.overrides.task
                )  # made here: it may be resumed as it is
            called = getattr(importlib.import_module(f"metanet.commands.{name}"), name)
            with (
                trust.trusting(*trust.folders_named(options.get("trust"))),
                alone(options, run_dir),
            ):
                return called(cfg)
        except Exception as error:
            if is_main_rank():
                _keep(error, run_dir)
            if not (errors.is_expected(error) and _fails_quietly(settings)):
                raise
            outcome.failure = outcome.failure or error
            return float("nan")

    return task


def _fails_quietly(settings: Any) -> bool:
    """Whether nobody but us waits for the job: sweepers that optimise, and launchers elsewhere, are
    to hear of it."""
    prefix = "hydra._internal."
    return settings.mode.name == "RUN" or all(
        node._target_.startswith(prefix) for node in (settings.sweeper, settings.launcher)
    )


def _keep(error: Exception, run_dir: Path) -> None:
    """``error.txt``: the message, then the traceback."""
    with suppress(OSError):
        text = f"{type(error).__name__}: {error}\n\n{''.join(traceback.format_exception(error))}"
        (run_dir / ERROR_FILE).write_text(text)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
