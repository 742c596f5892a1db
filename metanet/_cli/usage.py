"""Words that are no ``key=value``: what was meant by ``--checkpoint FILE``, ``seed = 1`` or
``timm:resnet18``."""

import re
from collections.abc import Sequence
from pathlib import Path

FLAGS = frozenset(
    {
        "-h",
        "--help",
        "--hydra-help",
        "--version",
        "-c",
        "--cfg",
        "--resolve",
        "-p",
        "--package",
        "-r",
        "--run",
    }
    | {
        "-m",
        "--multirun",
        "-sc",
        "--shell-completion",
        "-cp",
        "--config-path",
        "-cn",
        "--config-name",
    }
    | {"-cd", "--config-dir", "--experimental-rerun", "-i", "--info"}
)
"""Hydra's own."""

_WITH_VALUE = frozenset(
    {
        "-c",
        "--cfg",
        "-p",
        "--package",
        "-sc",
        "--shell-completion",
        "-cp",
        "--config-path",
        "-cn",
        "--config-name",
    }
    | {"-cd", "--config-dir", "--experimental-rerun", "-i", "--info"}
)
_REFERENCE = re.compile(r"(timm|hf|[^\W\d][\w.]*):[^\s=]+")
_CLOSES = {")": "(", "]": "[", "}": "{"}


def split(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and everything else."""
    flags: list[str] = []
    words: list[str] = []
    rest = iter(args)
    for arg in rest:
        name = arg.partition("=")[0]
        if name not in FLAGS:
            words.append(arg)
            continue
        flags.append(arg)
        if name in _WITH_VALUE and "=" not in arg:
            value = next(rest, None)
            flags += [] if value is None else [value]
    return flags, words


def mistakes(
    words: Sequence[str], keys: Sequence[str], command: str
) -> tuple[list[str], list[str]]:
    """What is wrong with words by their looks, and the words of which nothing is.

    Args:
        words: all that is no flag of Hydra's.
        keys: that the command has, at its top level.
        command: its name.
    """
    wrong: list[str] = []
    right: list[str] = []
    at = 0
    while at < len(words):
        count, problem = _judge(words, at, keys, command)
        if problem is None:
            right += words[at : at + count]
        else:
            wrong.append(problem)
        at += count
    return wrong, right


def _judge(
    words: Sequence[str], at: int, keys: Sequence[str], command: str
) -> tuple[int, str | None]:
    """How many words belong together from here on, and what is wrong with them."""
    word, after = words[at], words[at + 1] if at + 1 < len(words) else ""
    if after == "=" or (after.startswith("=") and "=" not in word):
        end = at + 2 + (after == "=" and at + 2 < len(words))
        typed = "".join(words[at:end])
        return end - at, f"{' '.join(words[at:end])}: no spaces around =, write {typed}"
    if word.startswith("-") and not re.match(r"-\d", word):
        return _flag(word, after, keys, command)
    if word.startswith("~"):
        return 1, None
    if word[:1] in ("'", '"'):
        bare = re.sub(r"""^(["'])(.*?)\1""", r"\2", word)
        return 1, f"{word}: keys stand without quotes, write {bare}"
    if "=" not in word:
        return 1, _no_value(word, keys, command)
    key, _, value = word.partition("=")
    if not key.strip("+"):
        return 1, f"{word}: a key is missing before ="
    if value.startswith("=") and not Path(value).exists():
        return 1, f"{word}: one = only, write {key}={value.lstrip('=')}"
    return 1, None


def _flag(word: str, after: str, keys: Sequence[str], command: str) -> tuple[int, str]:
    """``--checkpoint FILE`` and ``--checkpoint=FILE``."""
    name, equals, value = word.lstrip("-").partition("=")
    key = name.replace("-", "_")
    takes = bool(after) and not after.startswith("-") and "=" not in after
    value = value if equals else after if takes else "VALUE"
    known = "" if key in keys else f"; metanet {command} --help lists the keys"
    shown = f"{word} {after}" if takes and not equals else word
    return 1 + (
        takes and not equals
    ), f"{shown}: there are no options with dashes, write {key}={value}{known}"


def _no_value(word: str, keys: Sequence[str], command: str) -> str:
    """A word alone: the name of a key, a reference, a file."""
    if word in keys:
        return f"{word}: give it a value, {word}=VALUE"
    places = [key for key in ("checkpoint", "a", "models", "run") if key in keys]
    if _REFERENCE.fullmatch(word) and "arch" in keys:
        meant = f"arch={word}"
    elif places and Path(word).expanduser().exists():
        meant = f"{places[0]}=[{word},...]" if places[0] == "models" else f"{places[0]}={word}"
    else:
        return f"{word}: expected key=value; metanet {command} --help lists the keys"
    return f"{word}: expected key=value; did you mean {meant}?"


def unbalanced(text: str) -> str | None:
    """The bracket or quote of a value that has no partner, in words."""
    stack: list[str] = []
    quote = ""
    for before, mark in zip(f" {text}", text, strict=False):
        if quote:
            quote = "" if mark == quote and before != "\\" else quote
        elif mark in "'\"":
            quote = mark
        elif mark in "([{":
            stack.append(mark)
        elif mark in _CLOSES and (not stack or stack.pop() != _CLOSES[mark]):
            return f"the closing {mark} has no opening {_CLOSES[mark]}"
    if quote:
        return f"the quote {quote} is not closed"
    return f"the opening {stack[-1]} is not closed" if stack else None
