"""The table of a zoo of one's own: what is read of it, and what each row names."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..documents import parse_json
from ..errors import MetanetError
from ._errors import ZooError

SPLITS = ("train", "val", "test", "unseen")
_SHOWN = 20  # columns that a message lists
_LONGEST = 60  # characters of a name or value in a message
_LARGEST = 2**30  # bytes
_ARGUMENTS = "arch_args"
# What other tables begin with: none of it is to end in a message
_OTHERS = {
    b"PAR1": "Parquet",
    b"PK\x03\x04": "an Excel or zip file",
    b"\x1f\x8b": "compressed by gzip",
}


def find_table(folder: Path, table: str) -> Path:
    """The file: in the folder, or from where the command runs.

    Raises:
        ZooError: neither is a file.
    """
    choices = [folder / table, Path(table).expanduser()]
    for choice in choices:
        if choice.is_file():
            return choice
    raise ZooError(f"zoo.table: there is neither {choices[0]} nor {choices[1]}")


def read_rows(path: Path, label: str) -> list[dict[str, str]]:
    """The rows below the header, each with all its columns.

    Raises:
        ZooError: the file is no CSV table, or lacks the columns ``path`` and ``label``.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        names, *lines = [line for line in reader if line] or [[]]
    except csv.Error as error:
        raise ZooError(f"zoo.table: line {reader.line_num} of {path} is no CSV: {error}") from None
    for needed, where in (("path", "the checkpoint file of each row"), (label, "zoo.label")):
        if needed not in names:
            raise ZooError(
                f"zoo.table: {path} has no column {needed!r} ({where}); it has {_listed(names)}"
            )
    if twice := [name for name in names if names.count(name) > 1]:
        raise ZooError(f"zoo.table: {path} has the column {short(twice[0])!r} twice")
    for number, line in enumerate(lines, start=2):
        if len(line) != len(names):
            raise ZooError(
                f"zoo.table: line {number} of {path} does not have {len(names)} fields as the first has"
            )
    if not lines:
        raise ZooError(f"zoo.table: {path} has no rows below its header")
    return [dict(zip(names, line, strict=True)) for line in lines]


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST:
        raise ZooError(
            f"zoo.table: {path} is larger than {_LARGEST:,} bytes, which no table of checkpoints is"
        )
    data = path.read_bytes()
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    kind = next((kind for magic, kind in _OTHERS.items() if start.startswith(magic)), None)
    kind = "JSON" if start[:1] in (b"{", b"[") else kind
    if kind is not None:
        raise ZooError(
            f"zoo.table: {path} is {kind}, and tables are read from CSV: write it again, e.g. with "
            "pandas.DataFrame.to_csv(..., index=False)"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ZooError(f"zoo.table: {path} is not a UTF-8 text file ({error})") from None


def labels_of(rows: Sequence[Mapping[str, str]], label: str, table: Path) -> np.ndarray:
    """The label of each row, NaN where it is missing or infinite.

    Raises:
        ZooError: text that is no number.
    """
    values = []
    for line, row in enumerate(rows, start=2):
        text = row[label].strip()
        try:
            values.append(float(text) if text else float("nan"))
        except ValueError:
            raise ZooError(
                f"zoo.label: {short(text)!r} in column {label!r}, line {line} of {table}, is no number; "
                "fill it in or take the row out (classes must be numbered)"
            ) from None
    numbers = np.array(values)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def arguments_of(row: Mapping[str, str], line: int, table: Path) -> dict[str, Any]:
    """Keyword arguments of the row's own factory.

    Either a column ``arch_args`` of JSON objects, or a column for each argument, whose values are
    JSON or else text::

        path,arch_args                 path,arch_args.widths,arch_args.activation
        a.pt,"{""widths"": [3]}"       a.pt,"[3]",relu

    Raises:
        ZooError: the column ``arch_args`` holds no JSON object.
    """
    found: dict[str, Any] = {}
    if text := row.get(_ARGUMENTS, "").strip():
        given = _json(text)
        if not isinstance(given, dict):
            raise ZooError(
                f"line {line} of {table}: column {_ARGUMENTS} holds {short(text)!r}, expected a "
                "JSON object such as "
                '{"width": 32}'
            )
        found |= given
    for name, text in row.items():
        if name.startswith(f"{_ARGUMENTS}.") and text.strip():
            found[name.removeprefix(f"{_ARGUMENTS}.")] = _json(text.strip())
    return found


def check_splits(rows: Sequence[Mapping[str, str]], table: Path) -> None:
    """Refuse a column ``split`` with other values than the four.

    Raises:
        ZooError: names the line.
    """
    for line, row in enumerate(rows, start=2):
        if row.get("split", "train") not in SPLITS:
            raise ZooError(
                f"line {line} of {table}: column split says {short(row['split'])!r}; choose "
                f"{', '.join(SPLITS)}, or give the column another name if it means something else"
            )


def column(values: list[str]) -> np.ndarray:
    """Integers if all are, else floats if all are, else text."""
    for kind in (np.int64, np.float64):
        try:
            return np.array([kind(value) for value in values])
        except (ValueError, OverflowError):
            continue
    return np.array(values)


def short(text: str) -> str:
    """A value for a message."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _json(text: str) -> Any:
    try:
        return parse_json(text.encode(), "a cell")
    except MetanetError:
        return text


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(map(short, names[:_SHOWN])) or 'none'}{more}"
