"""How far something is: a bar where somebody watches, a line every few seconds in logs.

>>> for batch in track([1, 2, 3], "statistics", unit="batches"):
...     pass

In a terminal this is a tqdm bar. Where standard error is a file or a pipe, a bar would be rubbish
and silence would look like a hang: there, a line is written whenever :data:`EVERY` seconds have
passed.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, Generic, TypeVar

EVERY = 10.0
"""Seconds between two lines."""

Item = TypeVar("Item")


def track(
    items: Iterable[Item] | None = None,
    what: str = "",
    *,
    total: int | None = None,
    initial: int = 0,
    unit: str = "",
    scaled: bool = False,
    show: bool = True,
) -> "Progress[Item]":
    """Counts what is done.

    Iterate over it, or use it with ``with`` and call :meth:`Progress.update`.

    Args:
        items: what is gone through.
        what: is being done.
        total: how many there are, where ``items`` do not tell; ``None``: nobody knows.
        initial: how many were done before.
        unit: what is counted.
        scaled: show large counts as 1.5M.
        show: ``False`` keeps silent.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if show and sys.stderr.isatty():
        return Bar(items, what, total, initial, unit, scaled)
    return (Lines if show else Progress)(items, what, total, initial, unit, scaled)


class Progress(Generic[Item]):
    """Says nothing; what it has in common with those that do."""

    def __init__(
        self,
        items: Iterable[Item] | None,
        what: str,
        total: int | None,
        initial: int,
        unit: str,
        scaled: bool,
    ) -> None:
        self.items, self.what, self.total, self.done = items, what, total, initial
        self.unit, self.scaled = unit, scaled

    def __iter__(self) -> Iterator[Item]:
        with self:
            for item in self.items or ():
                yield item
                self.update()

    def __enter__(self) -> "Progress[Item]":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count

    def tell(self, numbers: Mapping[str, Any]) -> None:
        """Numbers to show beside the count."""

    def close(self) -> None:
        """Nothing more will come."""


class Bar(Progress[Item]):
    """A bar of tqdm."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        from tqdm import tqdm

        unit = self.unit if self.scaled else f" {self.unit}"
        self.bar = tqdm(
            total=self.total,
            initial=self.done,
            desc=self.what,
            unit=unit,
            unit_scale=self.scaled,
            file=sys.stderr,
        )

    def update(self, count: int = 1) -> None:
        super().update(count)
        self.bar.update(count)

    def tell(self, numbers: Mapping[str, Any]) -> None:
        self.bar.set_postfix(numbers, refresh=False)

    def close(self) -> None:
        self.bar.close()


class Lines(Progress[Item]):
    """``training: 12/20 epochs, 93 s, train/loss 0.21``, at most every :data:`EVERY` seconds."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.started = self.last = time.monotonic()
        self.numbers: Mapping[str, Any] = {}

    def update(self, count: int = 1) -> None:
        super().update(count)
        now = time.monotonic()
        if now - self.last >= EVERY:
            self.last = now
            print(self.line(now), file=sys.stderr, flush=True)

    def tell(self, numbers: Mapping[str, Any]) -> None:
        self.numbers = numbers

    def line(self, now: float) -> str:
        """What is written now."""
        count = self._counted(self.done) + (
            "" if self.total is None else f"/{self._counted(self.total)}"
        )
        shown = [f"{name} {value}" for name, value in self.numbers.items()]
        return ", ".join(
            [f"{self.what}: {count} {self.unit}".rstrip(), f"{now - self.started:.0f} s", *shown]
        )

    def _counted(self, number: int) -> str:
        if not self.scaled:
            return str(number)
        size, steps = float(number), iter(("", "k", "M", "G", "T", "P"))
        step = next(steps)
        while size >= 1000:
            size, step = size / 1000, next(steps)
        return f"{size:.3g}{step}"
