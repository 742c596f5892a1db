"""A zoo of one's own: checkpoint files and a table of labels."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._errors import ZooError
from ._population import Population, Zoo


@dataclass(frozen=True)
class FolderZoo:
    """Checkpoints in a folder and a CSV table with one row for each; nothing is written.

    Columns of the table: ``path`` (required), the checkpoint file relative to the folder and inside it; the label
    column (required), numbers; ``run``, what a split must not cut through, such as several checkpoints of one training.
    Without it the sub-folder that a file lies in is its run, and each file directly in the folder is one of its own;
    ``id``, default the path; ``architecture``, a REF for each row in place of ``arch``. All other columns are kept.

    Args:
        path: the folder.
        table: the CSV file, relative to the folder or to the current one.
        label: name of the label column.
        arch: REF (``package.module:factory``) of the one architecture of all checkpoints.
        arch_args: keyword arguments of the factory (of every factory, with a column ``architecture``).
        input_shape: of one sample, for instance ``[1, 28, 28]``.
    """

    path: str
    table: str
    label: str
    arch: str | None = None
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    input_shape: Sequence[int] = ()

    def load(self, progress: bool = True) -> Zoo:
        """Read all checkpoints. Raises ``ZooError`` for the first thing that does not fit, naming row and file."""
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise ZooError(f"zoo.path: {folder} is not a folder; give the one that your checkpoints lie in")
        if not self.input_shape:
            raise ZooError("zoo.input_shape is empty; give the shape of one input sample, such as [1,28,28]")
        rows, table_path = self._rows(folder)
        files = [_inside(folder, row["path"], table_path, line) for line, row in enumerate(rows, start=2)]
        refs = [self._ref(row, table_path, line) for line, row in enumerate(rows, start=2)]
        columns: dict[str, np.ndarray] = {name: _column([row[name] for row in rows]) for name in rows[0]}
        columns[self.label] = self._labels(rows, table_path)
        columns["path"] = np.array([row["path"] for row in rows])
        for name, default in (("id", [row["path"] for row in rows]), ("run", [_run(row["path"]) for row in rows])):
            columns[name] = np.array([row[name] for row in rows] if name in rows[0] else default)
        names = _names(refs)
        columns["architecture"] = np.array([names[ref] for ref in refs])
        populations = {}
        for ref, name in names.items():
            members = [index for index, other in enumerate(refs) if other == ref]
            populations[name] = self._population(name, ref, members, [files[index] for index in members], progress)
        return Zoo(name=folder.resolve().name, path=folder, table=columns, populations=populations)

    def _rows(self, folder: Path) -> tuple[list[dict[str, str]], Path]:
        choices = [folder / self.table, Path(self.table).expanduser()]
        path = next((choice for choice in choices if choice.is_file()), None)
        if path is None:
            raise ZooError(f"zoo.table: there is neither {choices[0]} nor {choices[1]}")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ZooError(f"zoo.table: {path} is not a UTF-8 text file ({error})") from None
        reader = csv.DictReader(text.splitlines())
        names = list(reader.fieldnames or [])
        for needed, where in (("path", "the checkpoint file of each row"), (self.label, "zoo.label")):
            if needed not in names:
                raise ZooError(
                    f"zoo.table: {path} has no column {needed!r} ({where}); it has {', '.join(names) or 'none'}"
                )
        rows = []
        for line, row in enumerate(reader, start=2):
            if None in row or None in row.values():
                raise ZooError(f"zoo.table: line {line} of {path} does not have {len(names)} fields as the first has")
            rows.append(row)
        if not rows:
            raise ZooError(f"zoo.table: {path} has no rows below its header")
        return rows, path

    def _labels(self, rows: Sequence[Mapping[str, str]], table: Path) -> np.ndarray:
        values = []
        for line, row in enumerate(rows, start=2):
            try:
                values.append(float(row[self.label]))
            except ValueError:
                values.append(float("nan"))
            if not np.isfinite(values[-1]):
                raise ZooError(
                    f"zoo.label: {row[self.label]!r} in column {self.label!r}, line {line} of {table}, is no finite "
                    "number; fill it in or take the row out (classes must be numbered)"
                )
        labels = np.array(values)
        return labels.astype(np.int64) if (labels == np.round(labels)).all() else labels

    def _ref(self, row: Mapping[str, str], table: Path, line: int) -> str:
        ref = row.get("architecture") or self.arch
        if not ref:
            raise ZooError(
                f"line {line} of {table} names no architecture: set zoo.arch=package.module:factory for all rows, or "
                "fill a column `architecture`"
            )
        return ref

    def _population(self, name: str, ref: str, rows: list[int], files: Sequence[Path], progress: bool) -> Population:
        from metanet.checkpoints import load_checkpoint
        from metanet.progress import track
        from metanet.sources import load_source

        module = load_source(ref, **self.arch_args)
        wanted = module.state_dict()
        found: dict[str, list[Tensor]] = {key: [] for key in wanted}
        for file in track(files, f"reading {name}", unit="checkpoints", show=progress):
            checkpoint = load_checkpoint(file)
            _check_fit(checkpoint, wanted, file, ref, self.arch_args)
            for key, tensors in found.items():
                tensors.append(checkpoint[key])
        return Population(
            architecture=name,
            ref=ref,
            arch_args=dict(self.arch_args),
            input_shape=tuple(self.input_shape),
            input_range=(-1.0, 1.0),
            state={key: torch.stack(tensors) for key, tensors in found.items()},
            rows=torch.tensor(rows),
        )


def _inside(folder: Path, name: str, table: Path, line: int) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ZooError(
            f"line {line} of {table}: the path {name!r} leads out of {folder}; only files inside it are read"
        )
    if not path.is_file():
        raise ZooError(f"line {line} of {table}: there is no file {path}")
    return path


def _run(path: str) -> str:
    parent = Path(path).parent
    return path if parent == Path(".") else parent.as_posix()


def _names(refs: Sequence[str]) -> dict[str, str]:
    """REF -> a short name for it: its last part, or all of it where two would be the same."""
    distinct = list(dict.fromkeys(refs))
    short = [ref.rsplit(":", 1)[-1] for ref in distinct]
    return {ref: name if short.count(name) == 1 else ref for ref, name in zip(distinct, short, strict=True)}


def _column(values: list[str]) -> np.ndarray:
    """Integers if all are, else floats if all are, else text."""
    for kind in (np.int64, np.float64):
        try:
            return np.array([kind(value) for value in values])
        except (ValueError, OverflowError):
            continue
    return np.array(values)


def _check_fit(
    checkpoint: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    file: Path,
    ref: str,
    arch_args: Mapping[str, Any],
) -> None:
    missing = [key for key in wanted if key not in checkpoint]
    unexpected = [key for key in checkpoint if key not in wanted]
    shapes = [
        f"{key} is {tuple(checkpoint[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in checkpoint and checkpoint[key].shape != wanted[key].shape
    ]
    listed = [
        f"{what}: {', '.join(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
        if names
    ]
    if listed:
        arguments = ", ".join(f"{key}={value!r}" for key, value in arch_args.items())
        raise ZooError(
            f"{file} does not fit {ref}({arguments}): {'; '.join(listed)}. "
            "Give the architecture that it belongs to by zoo.arch and zoo.arch_args"
        )
