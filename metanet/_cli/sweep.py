"""The table at the end of a sweep: mean and spread of every metric, over the seeds, for each
setting."""

import csv
import math
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ..documents import read_bytes, read_json, read_yaml, validated
from ..errors import MetanetError, brief
from ..runs import ERROR_FILE, METRICS_FILE
from .overrides import unquote

SEED = "seed"

_WIDE = 120  # a table wider than a terminal is turned: one row per metric


_OVERRIDES = TypeAdapter(list[str] | None)
_METRICS = TypeAdapter(dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of a sweep: its directory's name, what was set, and what came out (``metrics`` None:
    nothing did)."""

    name: str
    overrides: dict[str, str]
    metrics: dict[str, float] | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All runs that differ in nothing but the seed."""

    setting: dict[str, str]
    runs: int
    values: dict[str, list[float]]  # one number for each run that ended, by metric

    @property
    def ended(self) -> int:
        return max(map(len, self.values.values()), default=0)


def summarize(sweep_dir: Path) -> str | None:
    """Write ``summary.csv`` and ``summary.md`` into a sweep's directory.

    The spread is the standard deviation over runs (n - 1), empty for a single run. Failed runs are
    counted and listed.

    Returns:
        The text to print: the table where any run has written metrics, the runs that failed; None
        if nothing ran.
    """
    jobs = read_jobs(sweep_dir)
    failed = [job for job in jobs if job.metrics is None]
    if not jobs:
        return None
    if len(failed) == len(jobs) and not any(job.error for job in failed):
        return f"{len(jobs)} runs in {sweep_dir}"  # a command that measures nothing
    rows = group(jobs)
    _write_csv(sweep_dir / "summary.csv", rows)
    text = _markdown(rows, turned=False)
    over = "; mean ± standard deviation over seeds" if any(row.runs > 1 for row in rows) else ""
    notes = [f"{len(jobs)} runs in {sweep_dir}{over}"]
    if failed:
        notes.append(f"{len(failed)} of {len(jobs)} runs failed:")
        notes += [
            f"- {job.name} ({_named(job.overrides) or 'no overrides'}): {job.error or f'no {METRICS_FILE}'}"
            for job in failed
        ]
    (sweep_dir / "summary.md").write_text("\n".join([text, "", *notes, ""]))
    if max(map(len, text.splitlines()), default=0) > _WIDE:
        text = _markdown(rows, turned=True)
    return "\n".join([text, "", *notes])


def read_jobs(sweep_dir: Path) -> list[Job]:
    """The runs under a sweep's directory, in the order of their numbers."""
    directories = [path.parent.parent for path in sweep_dir.glob("*/.hydra/overrides.yaml")]
    return [_read_job(directory) for directory in sorted(directories, key=_natural)]


def group(jobs: Iterable[Job]) -> list[Row]:
    """One row for every combination of overrides, the seed left out, in the order of appearance."""
    rows: dict[tuple, Row] = {}
    for job in jobs:
        setting = {key: value for key, value in job.overrides.items() if key != SEED}
        row = rows.get(tuple(setting.items())) or Row(setting=setting, runs=0, values={})
        values = {name: list(numbers) for name, numbers in row.values.items()}
        for name, number in (job.metrics or {}).items():
            values.setdefault(name, []).append(number)
        rows[tuple(setting.items())] = Row(setting=setting, runs=row.runs + 1, values=values)
    return list(rows.values())


def _read_job(directory: Path) -> Job:
    record = directory / ".hydra" / "overrides.yaml"
    overrides = validated(_OVERRIDES, read_yaml(record), f"'{record}'") or []
    pairs = (override.lstrip("+").partition("=")[::2] for override in overrides)
    metrics, error = None, ""
    if (directory / ERROR_FILE).is_file():
        text = read_bytes(directory / ERROR_FILE).decode("utf-8", "replace")
        error = brief(
            next((line for line in text.splitlines() if line.strip()), "unknown error"), 1_000
        )
    elif (directory / METRICS_FILE).is_file():
        try:
            metrics = _metrics(directory / METRICS_FILE)
        except MetanetError as problem:
            error = " ".join(
                str(problem).replace(f"'{directory / METRICS_FILE}'", METRICS_FILE).split()
            )
    return Job(
        name=directory.name,
        overrides={key: unquote(value) for key, value in pairs},
        metrics=metrics,
        error=error,
    )


def _metrics(path: Path) -> dict[str, float]:
    """The numbers of one run; NaN and infinities are results too."""
    metrics = validated(_METRICS, read_json(path, nan=True), f"'{path}'")
    try:
        return dict(_numbers(metrics))
    except (OverflowError, RecursionError):
        raise MetanetError(
            f"'{path}' is damaged: it has numbers too large, or nests too deep"
        ) from None


def _numbers(tree: Any, name: str = "") -> Iterable[tuple[str, float]]:
    """The numbers in nested dicts, named by their path: ``{"seen": {"tau": 0.9}}`` ->
    ``("seen/tau", 0.9)``."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _numbers(value, f"{name}/{key}" if name else str(key))
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield name, float(tree)


def _natural(path: Path) -> list:
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", path.name)
        if part
    ]


def _union(dicts: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for names in dicts for key in names))


def _spread(numbers: list[float]) -> float | None:
    if len(numbers) < 2:
        return None
    # statistics.stdev can't take NaN or infinities, which are results too.
    return statistics.stdev(numbers) if all(map(math.isfinite, numbers)) else math.nan


def _named(overrides: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in overrides.items())


def _write_csv(path: Path, rows: list[Row]) -> None:
    keys, metrics = _union(row.setting for row in rows), _union(row.values for row in rows)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                *keys,
                "runs",
                "ended",
                *(f"{name} {what}" for name in metrics for what in ("mean", "std")),
            ]
        )
        for row in rows:
            cells: list[Any] = []
            for name in metrics:
                numbers = row.values.get(name, [])
                spread = _spread(numbers)
                cells += [
                    statistics.fmean(numbers) if numbers else "",
                    "" if spread is None else spread,
                ]
            writer.writerow(
                [*(row.setting.get(key, "") for key in keys), row.runs, row.ended, *cells]
            )


def _markdown(rows: list[Row], turned: bool) -> str:
    keys, metrics = _union(row.setting for row in rows), _union(row.values for row in rows)
    # What is the same in all rows would only make the table wide; summary.csv has it.
    keys = [key for key in keys if len({row.setting.get(key) for row in rows}) > 1]
    table = [[*keys, "runs", *metrics]]
    for row in rows:
        setting = [row.setting.get(key, "") for key in keys]
        runs = str(row.runs) if row.ended == row.runs else f"{row.ended} of {row.runs}"
        cells = [_cell(row.values.get(metric, [])) for metric in metrics]
        table.append([*setting, runs, *cells])
    columns = [list(column) for column in zip(*table, strict=True)]
    if turned:
        table, columns = columns, table
    widths = [max(map(len, column)) for column in columns]
    header, *body = [_line(cells, widths) for cells in table]
    rule = "|".join("-" * (width + 2) for width in widths)
    return "\n".join([header, f"|{rule}|", *body])


def _line(cells: list[str], widths: list[int]) -> str:
    return f"| {' | '.join(map(str.ljust, cells, widths))} |"


def _cell(numbers: list[float]) -> str:
    if not numbers:
        return "-"
    spread = _spread(numbers)
    return f"{statistics.fmean(numbers):.4g}" + ("" if spread is None else f" ± {spread:.2g}")
