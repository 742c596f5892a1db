"""Ctrl-C: the first ends the run in order and says how to go on, the second ends the process at
once."""

import os
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

EXIT_CODE = 130  # of a process that SIGINT ended


class Stop:
    """Whether Ctrl-C was pressed: libraries make other exceptions of it, and exits of their own."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(EXIT_CODE)
        self.asked = True
        raise KeyboardInterrupt


@contextmanager
def listening() -> Iterator[Stop]:
    """Within, SIGINT is heard by a :class:`Stop`; not where whoever started us wants it ignored."""
    stop = Stop()
    main = threading.current_thread() is threading.main_thread()
    before: Any = signal.getsignal(signal.SIGINT) if main else None
    if not callable(before):
        yield stop
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def how_to_go_on(command: str, args: Sequence[str], run_dir: Path | None) -> str:
    """What a stopped command says.

    Args:
        command: its name.
        args: the command line as it was typed.
        run_dir: of the run that was stopped; ``None`` where none had started.
    """
    again = shlex.join(["metanet", command, *args])
    if command == "train" and run_dir is not None:
        return f"stopped; go on with: metanet train resume={shlex.quote(str(run_dir))}"
    if command in ("merge", "zoo") and run_dir is not None:
        return f"stopped; what is finished is kept, go on with: {again}"
    return f"stopped; nothing is kept, start again with: {again}"
