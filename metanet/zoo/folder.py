"""A zoo of one's own: checkpoint files and a table of labels."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .. import trust
from ._blueprint import Blueprint
from ._errors import ZooError
from ._finite import check_choice, settle_weights
from ._population import Population, Zoo
from ._registry import register
from ._table import arguments_of, check_splits, column, find_table, labels_of, read_rows, short

log = logging.getLogger(__name__)


class _Kind(NamedTuple):
    """What tells the architectures of a table apart."""

    ref: str
    own: str  # keyword arguments from the table, as JSON

    @property
    def arguments(self) -> dict[str, Any]:
        return json.loads(self.own)


@register("folder")
@dataclass(frozen=True)
class FolderZoo:
    """Checkpoints in a folder and a CSV table with one row for each; nothing is written.

    Columns of the table: ``path`` (required), the checkpoint file relative to the folder and inside
    it; the label column (required), numbers; ``run``, what a split must not cut through, such as
    several checkpoints of one training. Without it the sub-folder that a file lies in is its run,
    and each file directly in the folder is one of its own; ``split``, one of ``train``, ``val``,
    ``test``, ``unseen``, which then divides the networks; ``id``, default the path;
    ``architecture``, a REF for each row in place of ``arch``; ``arch_args`` (a JSON object) or
    ``arch_args.NAME`` (JSON or text), keyword arguments of the row's own factory. All other columns
    are kept.

    References in the table are a file's: metanet's own and ``timm:`` are free, for others the
    folder must be trusted (``trust=DIR``, see :mod:`metanet.trust`).

    Args:
        path: the folder.
        table: the CSV file, relative to the folder or to the current one.
        label: name of the label column.
        arch: REF (``package.module:factory``) of all checkpoints whose row names none.
        arch_args: keyword arguments of every factory.
        input_shape: of one sample, for instance ``[1, 28, 28]``.
        nan: networks with NaN or infinite weights, and rows without a label: ``drop``, ``keep`` or
            ``error``.
    """

    path: str
    table: str
    label: str
    arch: str | None = None
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    input_shape: Sequence[int] = ()
    nan: str = "drop"

    def load(self, progress: bool = True) -> Zoo:
        """Read all checkpoints.

        Raises:
            ZooError: the first thing that does not fit, naming row and file.
            TrustError: the table names code, and nobody trusts it.
        """
        folder = self._checked_folder()
        table = find_table(folder, self.table)
        rows = read_rows(table, self.label)
        check_splits(rows, table)
        kinds = [self._kind(row, table, line) for line, row in enumerate(rows, start=2)]
        files = [
            _inside(folder, row["path"], table, line) for line, row in enumerate(rows, start=2)
        ]
        named = {row["architecture"] for row in rows if row.get("architecture")}
        trust.require(named, table.parent, "the code of architectures, which would be imported")

        labels = labels_of(rows, self.label, table)
        labelled = self._labelled(rows, labels, table)
        rows = [rows[i] for i in labelled]
        kinds = [kinds[i] for i in labelled]
        files = [files[i] for i in labelled]
        names = _names(kinds)
        columns = _columns(rows, self.label, labels[labelled])
        columns["architecture"] = np.array([names[kind] for kind in kinds])
        populations = {}
        for kind, name in names.items():
            members = [index for index, other in enumerate(kinds) if other == kind]
            given_by = table.parent if kind.ref in named else None
            populations[name] = self._population(
                name, kind, members, [files[i] for i in members], given_by, progress
            )
        zoo = Zoo(name=folder.resolve().name, path=folder, table=columns, populations=populations)
        return settle_weights(zoo, self.nan)

    def _checked_folder(self) -> Path:
        check_choice(self.nan)
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise ZooError(
                f"zoo.path: {folder} is not a folder; give the one that your checkpoints lie in"
            )
        if not self.input_shape:
            raise ZooError(
                "zoo.input_shape is empty; give the shape of one input sample, such as [1,28,28]"
            )
        return folder

    def _kind(self, row: Mapping[str, str], table: Path, line: int) -> _Kind:
        ref = row.get("architecture") or self.arch
        if not ref:
            raise ZooError(
                f"line {line} of {table} names no architecture: set "
                "zoo.arch=package.module:factory for all rows, or fill a column `architecture`"
            )
        return _Kind(ref, json.dumps(arguments_of(row, line, table), sort_keys=True))

    def _labelled(
        self, rows: Sequence[Mapping[str, str]], labels: np.ndarray, table: Path
    ) -> list[int]:
        """Positions of the rows that stay."""
        missing = [index for index in range(len(rows)) if np.isnan(labels[index])]
        if not missing:
            return list(range(len(rows)))
        line, text = missing[0] + 2, short(rows[missing[0]][self.label])
        summary = (
            f"zoo.label: {len(missing)} of {len(rows)} rows have no finite number in column "
            f"{self.label!r}, the first is {text!r} in line {line} of {table} "
            f"({short(rows[missing[0]]['path'])})"
        )
        if self.nan == "error":
            raise ZooError(
                f"{summary}. Fill them in, take them out, or leave them out with zoo.nan=drop"
            )
        if self.nan == "keep":
            log.warning("%s; they are kept (zoo.nan=keep)", summary)
            return list(range(len(rows)))
        if len(missing) == len(rows):
            raise ZooError(f"{summary}; without them nothing is left")
        log.warning("%s; they are left out (zoo.nan=drop)", summary)
        return [index for index in range(len(rows)) if not np.isnan(labels[index])]

    def _population(
        self,
        name: str,
        kind: _Kind,
        rows: list[int],
        files: Sequence[Path],
        given_by: Path | None,
        progress: bool,
    ) -> Population:
        from ..evaluation import fit_to
        from ..progress import track

        arguments = {**self.arch_args, **kind.arguments}
        module = _network(kind, arguments, files[0])
        states = []
        for file in track(files, f"reading {name}", unit="checkpoints", show=progress):
            states.append(_read(file, module, kind.ref, arguments, fit_to))
        blueprint = Blueprint(
            kind.ref, arguments, tuple(self.input_shape), input_range=(-1.0, 1.0), name=name
        )
        return Population.of(states, blueprint, rows=torch.tensor(rows), named_in=given_by)


def _network(kind: _Kind, arguments: Mapping[str, Any], first: Path) -> nn.Module:
    """The network of an architecture; where a table states its sizes, no larger than its first
    checkpoint."""
    from ..checkpoints import load_checkpoint
    from ..sources import build_within, load_source

    def make() -> nn.Module:
        return load_source(kind.ref, **arguments)

    if not kind.arguments or not trust.is_open(kind.ref):
        return make()
    return build_within(
        make, load_checkpoint(first).shapes, f"the table's {_called(kind.ref, arguments)}"
    )


def _read(
    file: Path, module: nn.Module, ref: str, arguments: Mapping[str, Any], fit_to: Any
) -> dict[str, Any]:
    """The tensors of a file by the names of its network."""
    from ..checkpoints import load_checkpoint
    from ..errors import CheckpointError

    checkpoint = load_checkpoint(file)
    try:
        return dict(fit_to(module, checkpoint))
    except CheckpointError as error:
        raise ZooError(
            f"{file} does not fit {_called(ref, arguments)}: {error}\n  Give the architecture that "
            "it belongs to by zoo.arch and zoo.arch_args, or in the table's columns architecture "
            "and arch_args"
        ) from error


def _called(ref: str, arguments: Mapping[str, Any]) -> str:
    return f"{ref}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def _inside(folder: Path, name: str, table: Path, line: int) -> Path:
    path = folder / name
    if not trust.is_inside(path, folder):
        raise ZooError(
            f"line {line} of {table}: the path {short(name)!r} leads out of {folder}; only files "
            "inside it are read"
        )
    if not path.is_file():
        raise ZooError(f"line {line} of {table}: there is no file {short(str(path))}")
    return path


def _run(path: str) -> str:
    parent = Path(path).parent
    return path if parent == Path(".") else parent.as_posix()


def _names(kinds: Sequence[_Kind]) -> dict[_Kind, str]:
    """A short name for each architecture: ``mlp``, or ``mlp(widths=[3])`` where the table gives
    several of them."""
    distinct = list(dict.fromkeys(kinds))
    refs = list(dict.fromkeys(kind.ref for kind in distinct))
    last = [ref.rsplit(":", 1)[-1] for ref in refs]
    called = {
        ref: name if last.count(name) == 1 else ref for ref, name in zip(refs, last, strict=True)
    }
    several = {ref for ref in refs if sum(kind.ref == ref for kind in distinct) > 1}
    return {
        kind: _called(called[kind.ref], kind.arguments) if kind.ref in several else called[kind.ref]
        for kind in distinct
    }


def _columns(
    rows: Sequence[Mapping[str, str]], label: str, labels: np.ndarray
) -> dict[str, np.ndarray]:
    columns = {name: column([row[name] for row in rows]) for name in rows[0]}
    whole = bool((labels == np.round(labels)).all())  # classes; False with NaN
    columns[label] = labels.astype(np.int64) if whole else labels
    paths = [row["path"] for row in rows]
    columns["path"] = np.array(paths)
    for name, default in (("id", paths), ("run", [_run(path) for path in paths])):
        columns[name] = np.array([row[name] for row in rows] if name in rows[0] else default)
    return columns
