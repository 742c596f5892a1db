"""Words that are no ``key=value``: what was meant by ``--checkpoint FILE``, ``seed = 1`` or
``timm:resnet18``."""

import re
from collections.abc import Sequence
from pathlib import Path

_WITH_VALUE = frozenset(
    {
        "-c",
        "-cd",
        "-cn",
        "-cp",
        "-i",
        "-p",
        "-sc",
        "--cfg",
        "--config-dir",
        "--config-name",
        "--config-path",
        "--experimental-rerun",
        "--info",
        "--package",
        "--shell-completion",
    }
)
_WITHOUT_VALUE = frozenset(
    {
        "-h",
        "-m",
        "-r",
        "--help",
        "--hydra-help",
        "--multirun",
        "--resolve",
        "--run",
        "--version",
    }
)
FLAGS = _WITH_VALUE | _WITHOUT_VALUE
"""Hydra's own."""

_REFERENCE = re.compile(r"(timm|hf|[^\W\d][\w.]*):[^\s=]+")
_CLOSES = {")": "(", "]": "[", "}": "{"}


def split(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and everything else."""
    flags: list[str] = []
    words: list[str] = []
    is_value = False
    for arg in args:
        name, equals, _ = arg.partition("=")
        if is_value or name in FLAGS:
            flags.append(arg)
        else:
            words.append(arg)
        is_value = not is_value and name in _WITH_VALUE and not equals
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
    word, after, *_ = [*words[at : at + 2], ""]
    if after == "=" or (after.startswith("=") and "=" not in word):
        # seed = 1, or seed =1
        count = 3 if after == "=" else 2
        parts = words[at : at + count]
        return len(parts), f"{' '.join(parts)}: no spaces around =, write {''.join(parts)}"
    if word.startswith("-") and not re.match(r"-\d", word):
        return _flag(word, after, keys, command)
    return 1, _wrong(word, keys, command)


def _wrong(word: str, keys: Sequence[str], command: str) -> str | None:
    """What is wrong with a word that stands by itself; ``None`` if it looks right."""
    if word.startswith("~"):
        return None
    if word[:1] in ("'", '"'):
        bare = re.sub(r"""^(["'])(.*?)\1""", r"\2", word)
        return f"{word}: keys stand without quotes, write {bare}"
    if "=" not in word:
        return _no_value(word, keys, command)
    key, _, value = word.partition("=")
    if not key.strip("+"):
        return f"{word}: a key is missing before ="
    if value.startswith("=") and not Path(value).exists():
        return f"{word}: one = only, write {key}={value.lstrip('=')}"
    return None


def _flag(word: str, after: str, keys: Sequence[str], command: str) -> tuple[int, str]:
    """``--checkpoint FILE`` and ``--checkpoint=FILE``."""
    name, equals, value = word.lstrip("-").partition("=")
    key = name.replace("-", "_")
    count = 1
    shown = word
    if not equals:
        is_value = bool(after) and not after.startswith("-") and "=" not in after
        count = 2 if is_value else 1
        value = after if is_value else "VALUE"
        shown = f"{word} {after}" if is_value else word
    hint = "" if key in keys else f"; metanet {command} --help lists the keys"
    return count, f"{shown}: there are no options with dashes, write {key}={value}{hint}"


def _no_value(word: str, keys: Sequence[str], command: str) -> str:
    """A word alone: the name of a key, a reference, a file."""
    if word in keys:
        return f"{word}: give it a value, {word}=VALUE"
    places = [key for key in ("checkpoint", "a", "models", "run") if key in keys]
    if _REFERENCE.fullmatch(word) and "arch" in keys:
        meant = f"arch={word}"
    elif places and Path(word).expanduser().exists():
        key = places[0]
        meant = f"{key}=[{word},...]" if key == "models" else f"{key}={word}"
    else:
        return f"{word}: expected key=value; metanet {command} --help lists the keys"
    return f"{word}: expected key=value; did you mean {meant}?"


def unbalanced(text: str) -> str | None:
    """The bracket or quote of a value that has no partner, in words."""
    stack: list[str] = []
    quote = ""
    # in a=[b,{c:'}']] the quoted } counts for nothing, and the first ] meets { instead of [
    for before, mark in zip(f" {text}", text, strict=False):
        if quote:
            ends = mark == quote and before != "\\"
            quote = "" if ends else quote
        elif mark in "'\"":
            quote = mark
        elif mark in "([{":
            stack.append(mark)
        elif mark in _CLOSES and (not stack or stack.pop() != _CLOSES[mark]):
            return f"the closing {mark} has no opening {_CLOSES[mark]}"
    if quote:
        return f"the quote {quote} is not closed"
    return f"the opening {stack[-1]} is not closed" if stack else None
