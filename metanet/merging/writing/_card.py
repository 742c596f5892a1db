"""The model card of a merge: what was merged and how, in Markdown with the front matter of the
Hugging Face Hub."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...alignment import Alignment
from .._registry import METHODS

_CACHED = re.compile(r"models--(?P<owner>[^/\\]+?)--(?P<name>[^/\\]+)")


def model_card(
    recipe: Mapping[str, Any],
    *,
    title: str = "merged",
    hashes: Mapping[str, str] | None = None,
    report: Mapping[str, Any] | None = None,
    alignments: Sequence[Alignment | None] = (),
    library: str | None = None,
    notes: Iterable[str] = (),
    command: str | None = None,
    config: str | None = None,
) -> str:
    """A README.md for a merged network.

    Args:
        recipe, report, alignments: of what :func:`metanet.merge` returned.
        title: the network's name.
        hashes: what :func:`save_merged` returned.
        library: what loads the network (``transformers``, ``timm``), for the Hub.
        notes: what whoever uses the network should know.
        command: the command line that made it.
        config: the whole configuration, as YAML.
    """
    parts = [
        _front_matter(recipe, library),
        f"# {title}",
        _summary(recipe),
        _table_of_inputs(recipe, hashes or {}),
        _how(recipe),
        _aligned(alignments),
        _reported(report or {}),
        _listed("Notes", notes),
    ]
    if command is not None:
        parts.append(f"## Made by\n\n```sh\n{command}\n```")
    if config is not None:
        parts.append(f"```yaml\n{config.rstrip()}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def name_of(given: str) -> str:
    """What to call an input: its name on the Hub if it lies in its cache, else that of its folder
    or file."""
    path = Path(given)
    if match := _CACHED.search(str(path.absolute())):
        return f"{match['owner']}/{match['name']}"
    usual = path.name.split(".")[0] in ("model", "pytorch_model") and path.parent.name
    return path.parent.name if usual else path.absolute().name


def _front_matter(recipe: Mapping[str, Any], library: str | None) -> str:
    names = dict.fromkeys(map(name_of, _inputs(recipe).values()))
    lines = ["---", "base_model:", *(f"- {json.dumps(name, ensure_ascii=False)}" for name in names)]
    lines += ["base_model_relation: merge", *([f"library_name: {library}"] if library else [])]
    return "\n".join([*lines, "tags:", "- merge", "- metanet", "---"])


def _inputs(recipe: Mapping[str, Any]) -> dict[str, str]:
    base = {} if recipe["base"] is None else {"base": recipe["base"]}
    return base | {str(k): model for k, model in enumerate(recipe["models"])}


def _summary(recipe: Mapping[str, Any]) -> str:
    count = len(recipe["models"])
    what = "one network" if count == 1 else f"{count} networks"
    base = "" if recipe["base"] is None else " and their base"
    method = METHODS[recipe["method"]]
    name = f"[`{method.name}`]({method.reference})" if method.reference else f"`{method.name}`"
    purpose = method.purpose
    says = f": {purpose[:1].lower()}{purpose[1:]}" if purpose else ""
    versions = f"metanet {recipe['version']} (torch {torch.__version__})"
    return f"Made of {what}{base} by the method {name} of {versions}{says}"


def _table_of_inputs(recipe: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    weights = recipe["options"].get("weights")
    rows = [("", "checkpoint") if weights is None else ("", "checkpoint", "weight")]
    for number, path in _inputs(recipe).items():
        row = (number, path) if weights is None else (number, path, _weight(weights, number))
        rows.append(row)
    table = f"## Inputs\n\n{_markdown(rows)}"
    if not hashes:
        return table
    files = [("file", "SHA-256"), *((path, f"`{digest}`") for path, digest in hashes.items())]
    return f"{table}\n\n{_markdown(files)}"


def _weight(weights: Any, number: str) -> str:
    """One cell: the weight of a model; the base has none."""
    if number == "base":
        return ""
    return _value(weights[int(number)] if isinstance(weights, list) else weights)


def _how(recipe: Mapping[str, Any]) -> str:
    explained = METHODS[recipe["method"]].explained
    rows = [("option", "value", "")]
    for name, value in recipe["options"].items():
        rows.append((f"`{name}`", _value(value), explained.get(name, "")))
    like = "first model" if recipe["base"] is None else "base"
    computed = recipe["dtype"] or "float32, or float64 where an input is"
    stored = recipe["out_dtype"] or f"the {like} is"
    lines = [
        f"- computed in {computed}, stored as {stored}",
        f"- seed {recipe['seed']}",
        f"- statistics: {recipe['repair'] or 'not repaired'}",
    ]
    for pattern, values in recipe["overrides"].items():
        lines.append(f"- tensors `{pattern}`: {_value(values)}")
    for number, layers in enumerate(recipe["slices"] or (), 1):
        lines.append(f"- layers, slice {number}: {_value(layers)}")
    options = f"{_markdown(rows)}\n\n" if recipe["options"] else ""
    return f"## How\n\n{options}" + "\n".join(lines)


def _aligned(alignments: Sequence[Alignment | None]) -> str:
    lines = []
    for number, alignment in enumerate(alignments):
        if alignment is None:
            lines.append(f"{number}: stays")
            continue
        groups = [g for g in alignment.transform.spec.groups if g.kind == "permutation"]
        moved = len(groups) - len(alignment.identity)
        before = alignment.objective[0]
        after = alignment.objective[-1]
        lines.append(
            f"{number}: neurons moved by the matcher `{alignment.method}` (seed {alignment.seed}): "
            f"{moved} of {len(groups)} groups, objective {before:.6g} -> {after:.6g}"
        )
    return _listed("Alignment", lines)


def _reported(report: Mapping[str, Any]) -> str:
    return _listed("Report", (f"{name}: {_value(value)}" for name, value in report.items()))


def _listed(title: str, lines: Iterable[str]) -> str:
    lines = [f"- {line}" for line in lines]
    return "\n".join([f"## {title}", "", *lines]) if lines else ""


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
