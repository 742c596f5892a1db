"""The model card of a merge: what was merged and how, in Markdown with the front matter of the
Hugging Face Hub."""

import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..alignment import Alignment
from ._registry import METHODS, explanations

_CACHED = re.compile(r"models--(?P<owner>[^/\\]+?)--(?P<name>[^/\\]+)")


def model_card(
    recipe: Mapping[str, Any], *, title: str = "merged", hashes: Mapping[str, str] | None = None,
    report: Mapping[str, Any] | None = None, alignments: Sequence[Alignment | None] = (), library: str | None = None,
    notes: Iterable[str] = (), command: str | None = None, config: str | None = None,
) -> str:  # fmt: skip
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
        _front_matter(recipe, library), f"# {title}", _summary(recipe), _table_of_inputs(recipe, hashes or {}),
        _how(recipe), _aligned(alignments), _told(report or {}), _listed("Notes", notes),
        "" if command is None else f"## Made by\n\n```sh\n{command}\n```",
        "" if config is None else f"```yaml\n{config.rstrip()}\n```",
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def name_of(given: str) -> str:
    """What to call an input: its name on the Hub if it lies in its cache, else that of its folder
    or file."""
    path = Path(given)
    if found := _CACHED.search(str(path.absolute())):
        return f"{found['owner']}/{found['name']}"
    usual = path.name.split(".")[0] in ("model", "pytorch_model") and path.parent.name
    return path.parent.name if usual else path.absolute().name


def _front_matter(recipe: Mapping[str, Any], library: str | None) -> str:
    names = dict.fromkeys(name_of(each) for each in _inputs(recipe).values())
    lines = ["---", "base_model:", *(f"- {json.dumps(name, ensure_ascii=False)}" for name in names)]
    lines += ["base_model_relation: merge", *([f"library_name: {library}"] if library else [])]
    return "\n".join([*lines, "tags:", "- merge", "- metanet", "---"])


def _inputs(recipe: Mapping[str, Any]) -> dict[str, str]:
    base = {} if recipe["base"] is None else {"base": recipe["base"]}
    return base | {str(k): each for k, each in enumerate(recipe["models"])}


def _summary(recipe: Mapping[str, Any]) -> str:
    count = len(recipe["models"])
    what = "one network" if count == 1 else f"{count} networks"
    on = "" if recipe["base"] is None else " and their base"
    method = METHODS[recipe["method"]]
    purpose = (inspect.getdoc(method.function) or "").partition("\n")[0]
    named = f"[`{method.name}`]({method.reference})" if method.reference else f"`{method.name}`"
    told = f": {purpose[:1].lower()}{purpose[1:]}" if purpose else ""
    return f"Made of {what}{on} by the method {named} of metanet {recipe['version']} (torch {torch.__version__}){told}"


def _table_of_inputs(recipe: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    weights = recipe["options"].get("weights")
    rows = [("", "checkpoint", *(["weight"] if weights is not None else []))]
    for number, given in _inputs(recipe).items():
        own = weights[int(number)] if isinstance(weights, list) and number != "base" else weights
        shown = "" if number == "base" else _value(own)
        rows.append((number, given, *([shown] if weights is not None else [])))
    files = [("file", "SHA-256"), *((path, f"`{digest}`") for path, digest in hashes.items())]
    return f"## Inputs\n\n{_markdown(rows)}" + (f"\n\n{_markdown(files)}" if hashes else "")


def _how(recipe: Mapping[str, Any]) -> str:
    method = METHODS[recipe["method"]]
    told = explanations(method.function) | (
        {} if method.prepare is None else explanations(method.prepare)
    )
    rows = [("option", "value", "")]
    rows += [
        (f"`{name}`", _value(value), told.get(name, ""))
        for name, value in recipe["options"].items()
    ]
    rest = [
        f"- computed in {recipe['dtype'] or 'float32, or float64 where an input is'}, "
        f"stored as {recipe['out_dtype'] or 'the ' + ('first model' if recipe['base'] is None else 'base') + ' is'}",
        f"- seed {recipe['seed']}",
        f"- statistics: {recipe['repair'] or 'not repaired'}",
    ]
    rest += [
        f"- tensors `{pattern}`: {_value(values)}"
        for pattern, values in recipe["overrides"].items()
    ]
    rest += [
        f"- layers, slice {k + 1}: {_value(each)}" for k, each in enumerate(recipe["slices"] or ())
    ]
    return "## How\n\n" + (f"{_markdown(rows)}\n\n" if recipe["options"] else "") + "\n".join(rest)


def _aligned(alignments: Sequence[Alignment | None]) -> str:
    lines = []
    for number, each in enumerate(alignments):
        if each is None:
            lines.append(f"{number}: stays")
            continue
        groups = [g.name for g in each.transform.spec.groups if g.kind == "permutation"]
        moved = len(groups) - len(each.identity)
        lines.append(
            f"{number}: neurons moved by the matcher `{each.method}` (seed {each.seed}): {moved} of {len(groups)} "
            f"groups, objective {each.objective[0]:.6g} -> {each.objective[-1]:.6g}"
        )
    return _listed("Alignment", lines)


def _told(report: Mapping[str, Any]) -> str:
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
