"""``metanet COMMAND --help``: every value with the comment that its YAML file has, group by
group."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..plugins import conf_folders

_KEY = re.compile(r"""(?P<indent> *)(?P<mark>["']?)(?P<key>[\w.]+)(?P=mark):(?P<rest>.*)""")
_COMMENT = re.compile(r"(?:^|\s)#\s?(.*)$")
_DEFAULT = re.compile(r" *- (?P<group>[\w/]+): *(?P<name>[\w.]+)(?P<rest>.*)")
_COLUMN = 44  # where comments start, unless a value is longer
_WIDTH = 118


def help_of(command: str, words: Sequence[str]) -> str:
    """The help of a command, as the choices among ``words``, prepared for Hydra, make it.

    Raises:
        MetanetError: a choice that there isn't.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from .. import config
    from ..errors import MetanetError

    folder = config.conf_dir()
    GlobalHydra.instance().clear()
    with initialize_config_dir(config.hydra_dir(), version_base="1.3"):
        try:
            cfg = compose(command, list(words), return_hydra_config=True)
        except HydraException as error:
            text = " ".join(str(error).partition("Config search path:")[0].split())
            raise MetanetError(
                f"no help for metanet {command} {' '.join(words)}: {text}"
            ) from error
        loader = GlobalHydra.instance().config_loader()
        choices = {g: n for g, n in cfg.hydra.runtime.choices.items() if not g.startswith("hydra/")}
        options = {group: loader.get_group_options(group) for group in choices}
        header, footer = cfg.hydra.help.header, cfg.hydra.help.footer
    GlobalHydra.instance().clear()
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    comments = {
        group: comment for group, (_, comment) in defaults_of(folder / f"{command}.yaml").items()
    }
    lines = [
        str(header),
        "",
        "Values (KEY=VALUE sets one, +KEY=VALUE adds an argument; paths need no quotes):",
        "",
    ]
    values = {key: value for key, value in plain.items() if key not in ("hydra", "paths", *choices)}
    lines += _listed(values, "", comments_of(folder, command))
    for group in defaults_of(folder / f"{command}.yaml"):
        name = choices.get(group)
        summaries = {
            option: summary_of(_file(folder, f"{group}/{option}")) for option in options[group]
        }
        lines += ["", *_group(group, name, summaries, comments.get(group, ""))]
        if name is not None and isinstance(plain.get(group), Mapping):
            lines += _listed(plain[group], group, comments_of(folder, f"{group}/{name}"))
    return "\n".join([*lines, "", str(footer)])


def comments_of(folder: Path, name: str) -> dict[str, str]:
    """The comments of a configuration file by dotted key.

    Those of the files that it builds on are among them. The line ``seed: 0   # of everything random, ...``
    of ``conf/train.yaml`` gives:

    >>> from metanet.config import conf_dir
    >>> comments_of(conf_dir(), "train")["seed"]
    'of everything random, the division into batches too'
    """
    path = _file(folder, name)
    if path is None:
        return {}
    text = path.read_text(encoding="utf-8")
    inherited: dict[str, str] = {}
    for parent in _parents(text):
        inherited |= comments_of(folder, str(Path(name).with_name(parent)))
    written = dict(_commented(text))
    return {key: written.get(key) or inherited.get(key, "") for key in {**inherited, **written}}


def _file(folder: Path, name: str) -> Path | None:
    """A configuration file of ours, or else of a plugin; ``None`` where there is none."""
    paths = [place / f"{name}.yaml" for place in (folder, *conf_folders())]
    return next((path for path in paths if path.is_file()), None)


def defaults_of(path: Path) -> dict[str, tuple[str, str]]:
    """The groups of a command's defaults list: what is chosen, and the comment."""
    entries = (_DEFAULT.fullmatch(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {e["group"]: (e["name"], _comment(e["rest"])) for e in entries if e is not None}


def _parents(text: str) -> list[str]:
    """Files of the same folder in the defaults list: ``defaults: [gmn, _self_]``."""
    import yaml

    content = yaml.safe_load(text)
    listed = content.get("defaults", []) if isinstance(content, Mapping) else []
    return [entry for entry in listed if isinstance(entry, str) and entry != "_self_"]


def _commented(text: str) -> Iterator[tuple[str, str]]:
    """``key, comment`` of every key that stands on a line of its own; lines of comment alone go on
    with the last."""
    path: list[tuple[int, str]] = []
    key, words = "", ""
    for line in text.splitlines():
        match = _KEY.fullmatch(line)
        if match is None:
            if line.startswith(" ") and line.strip().startswith("#") and key:
                words = f"{words} {line.strip().lstrip('# ')}".strip()
            continue
        if key:
            yield key, words
        indent = len(match["indent"])
        path = [(i, name) for i, name in path if i < indent] + [(indent, match["key"])]
        key, words = ".".join(name for _, name in path), _comment(match["rest"])
    if key:
        yield key, words


def _comment(line: str) -> str:
    match = _COMMENT.search(line)
    return match[1].strip() if match else ""


def _group(group: str, name: str | None, summaries: Mapping[str, str], comment: str) -> list[str]:
    """The line of a group, and what there is to choose, each with its summary."""
    lines = _line(f"{group}={name or 'null'}", comment)
    if not any(summaries.values()):
        choices = textwrap.wrap(f"choices: {', '.join(summaries)}", _WIDTH - 2)
        return [*lines, *(f"  {line}" for line in choices)]
    lines.append("  choices:")
    for choice, summary in summaries.items():
        lines += _line(f"    {choice}", summary)
    return lines


def summary_of(path: Path | None) -> str:
    """The first line of a configuration file, where that is a comment.

    >>> from metanet.config import conf_dir
    >>> summary_of(conf_dir() / "matcher" / "combined.yaml")
    'Coordinate ascent on what weights and activations say together. Needs data=.'
    """
    if path is None:
        return ""
    with path.open(encoding="utf-8") as file:
        first = file.readline().strip()
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _listed(node: Mapping[str, Any], where: str, comments: Mapping[str, str]) -> list[str]:
    """A line for every value; dictionaries in braces stay on one."""
    lines: list[str] = []
    for key, value in node.items():
        name = str(key)
        if name in ("_target_", "name"):
            continue
        inner = {
            k[len(name) + 1 :]: words for k, words in comments.items() if k.startswith(f"{name}.")
        }
        full = f"{where}.{name}" if where else name
        if isinstance(value, Mapping) and inner:
            lines += _listed(value, full, inner)
        else:
            lines += _line(f"  {full}: {_shown(value)}", comments.get(name, ""))
    return lines


def _line(text: str, comment: str) -> list[str]:
    """``text      # comment``, the comment wrapped under itself."""
    if not comment:
        return [text]
    start = max(_COLUMN, len(text) + 2)
    first, *others = textwrap.wrap(comment, max(30, _WIDTH - start - 2))
    return [f"{text:<{start}}# {first}", *(f"{'':<{start}}# {line}" for line in others)]


def _shown(value: Any) -> str:
    import yaml

    if value is None:
        return "null"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
