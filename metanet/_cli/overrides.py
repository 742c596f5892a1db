"""``key=value`` on its way to Hydra's grammar: paths are quoted, and a resumed run gets its own
overrides back."""

import re
from collections.abc import Mapping
from pathlib import Path

from .. import trust
from ..errors import MetanetError
from .foreign import doubtful
from .keys import OPEN_KEYS, TEXT_KEYS, TEXT_LIST_KEYS, TREE_KEYS

_LARGEST = 2**20  # bytes of overrides

_QUOTED_KEY = re.compile(r"""(?P<mark>["'])(?P<key>(?:(?!(?P=mark)).)*)(?P=mark)\s*:""")
_BETWEEN_LISTS = re.compile(r"(?<=\])\s*,\s*(?=\[)")
_OVERRIDE = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[^\W\d][\w./@:-]*)=(?P<value>.*)", re.DOTALL)


def quote(text: str) -> str:
    """``text`` as a string of Hydra's grammar; ``${...}`` in it stays an interpolation."""
    text = re.sub(
        r"(\\*)'", r"\1\1\\'", text
    )  # backslashes count only before a quote and at the end
    text = re.sub(r"(\\+)\Z", r"\1\1", text)
    return f"'{text}'"


def unquote(text: str) -> str:
    """The inverse of :func:`quote`; text that isn't quoted stays as it is."""
    if not _is_quoted(text):
        return text
    mark, inner = text[0], text[1:-1]
    inner = re.sub(r"(\\+)\Z", lambda found: found[1][: len(found[1]) // 2], inner)
    return re.sub(rf"(\\*)\\{mark}", lambda found: found[1][: len(found[1]) // 2] + mark, inner)


def prepare(args: list[str], short: Mapping[str, str] | None = None) -> list[str]:
    """Arguments as a person types them -> arguments that Hydra reads the same way.

    ``short`` maps short keys to where they stand in the configuration: ``path`` -> ``zoo.path``.

    Values of :data:`~metanet._cli.keys.TEXT_KEYS` are quoted unless they are quoted already, ``null`` or empty. In a
    sweep (``-m``) commas separate choices, in :data:`TEXT_LIST_KEYS` they separate items; a path
    with a comma needs quotes of its own there. In :data:`TREE_KEYS`, keys may stand in quotes, as
    they do in JSON.
    """
    sweep = is_sweep(args)
    return [_prepare(arg, short or {}, sweep) for arg in args]


def is_sweep(args: list[str]) -> bool:
    return any(arg in ("-m", "--multirun", "hydra.mode=MULTIRUN") for arg in args)


def value_of(key: str, args: list[str]) -> str | None:
    """The value that the last ``key=value`` gives as plain text; None if there is none, or
    ``null``."""
    values = [
        found["value"]
        for arg in args
        if (found := _OVERRIDE.fullmatch(arg)) and found["key"] == key
    ]
    return None if not values or values[-1] == "null" else unquote(values[-1])


def resumed(args: list[str]) -> list[str]:
    """Put a stopped run's own overrides before those given now, and let Hydra write where it wrote.

    Args:
        args: prepared arguments; nothing happens without ``resume=RUN_DIR``.

    A run that was made here goes on as it is. What a stranger's overrides may say is in
    :mod:`metanet._cli.foreign`.

    Raises:
        MetanetError: RUN_DIR is no directory of a run, or is given together with a sweep or another
            run directory.
        TrustError: RUN_DIR is a stranger's, and its overrides are more than values.
    """
    given = value_of("resume", args)
    if not given:
        return args
    if is_sweep(args):
        raise MetanetError(
            "resume=RUN_DIR goes on with one run; it can't be swept (-m). Resume the jobs one by one."
        )
    run_dir = Path(given).expanduser().absolute()
    record = run_dir / ".hydra" / "overrides.yaml"
    if not record.is_file():
        reason = (
            "there is no such folder"
            if not run_dir.exists()
            else "it is no run: .hydra/overrides.yaml is missing"
        )
        if run_dir.is_file():
            reason = "it is a file; give the run's folder"
        raise MetanetError(
            f"can't resume {given}: {reason}. Give the directory that `metanet train` made."
        )
    elsewhere = value_of("hydra.run.dir", args)
    if elsewhere and Path(elsewhere).absolute() != run_dir:
        raise MetanetError(
            f"resume={given} writes into that directory; remove hydra.run.dir={elsewhere}"
        )
    # What is given now wins. Hydra adds a key (+key=value) only once, so what is replaced is left
    # out.
    replaced = {
        "trust",
        *(key_of(arg) for arg in args),
    }  # whom to trust is for the command line alone to say
    old = [override for override in _read(record) if key_of(override) not in replaced]
    _check_origin(run_dir, old, args)
    now = [arg for arg in args if key_of(arg) not in ("resume", "hydra.run.dir")]
    # Hydra would write its record over the old one, and half of it if it is killed:
    # directories.record does that
    here = [
        f"resume={quote(str(run_dir))}",
        f"hydra.run.dir={quote(str(run_dir))}",
        "hydra.output_subdir=null",
    ]
    return [*old, *now, *here]


def _check_origin(run_dir: Path, old: list[str], args: list[str]) -> None:
    """Refuse what a stranger's run would have this one do."""
    with trust.trusting(*trust_named(args)):
        if not trust.is_known(run_dir) and not trust.is_trusted(run_dir):
            trust.check_inside(run_dir)
        trust.require(
            doubtful(old),
            run_dir,
            "overrides that are more than values: code, paths, or Hydra's own",
        )


def trust_named(args: list[str]) -> list[str | bool]:
    """The folders that ``trust=`` on the command line names."""
    given = value_of("trust", args)
    if given is not None and given.startswith("[") and given.endswith("]"):
        return trust.folders_named([unquote(each) for each in _split(given[1:-1])])
    return trust.folders_named(given)


def _read(record: Path) -> list[str]:
    import yaml

    if record.stat().st_size > _LARGEST:
        raise MetanetError(
            f"can't resume: {record} is larger than {_LARGEST:,} bytes, which no list of overrides is"
        )
    try:
        overrides = yaml.safe_load(record.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MetanetError(f"can't resume: {record} is damaged: {str(error)[:300]}") from error
    if not isinstance(overrides, list) or not all(isinstance(each, str) for each in overrides):
        raise MetanetError(f"can't resume: {record} holds no list of overrides")
    return overrides


def key_of(override: str) -> str:
    """What an override is about: ``+optim.lr=1`` -> ``optim.lr``, ``~debug`` -> ``debug``."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _prepare(arg: str, short: Mapping[str, str], sweep: bool) -> str:
    found = _OVERRIDE.fullmatch(arg)
    if found is None:
        return arg
    prefix, key, value = found["prefix"], _long(found["key"], short), found["value"]
    if key != found["key"]:
        prefix = ""  # a short key stands for one that is there: +arch= is arch=
    if key.startswith(OPEN_KEYS) and not prefix:
        prefix = "++"
    if key in TEXT_LIST_KEYS and value.startswith("[") and value.endswith("]"):
        lists = _BETWEEN_LISTS.split(value) if sweep else [value]
        value = ",".join(f"[{','.join(map(_quoted, _split(each[1:-1])))}]" for each in lists)
    elif key in TREE_KEYS and value[:1] in ("{", "["):
        value = _QUOTED_KEY.sub(lambda found: f"{escaped(found['key'])}:", value)
    elif key in TEXT_KEYS or key in TREE_KEYS or key in TEXT_LIST_KEYS:
        value = (
            ",".join(map(_quoted, _split(value))) if sweep and key in TEXT_KEYS else _quoted(value)
        )
    return f"{prefix}{key}={value}"


def _long(key: str, short: Mapping[str, str]) -> str:
    """Where a short key stands: ``path`` -> ``zoo.path``, ``arch_args.width`` ->
    ``zoo.arch_args.width``."""
    first, dot, rest = key.partition(".")
    return f"{short[first]}{dot}{rest}" if first in short else key


def escaped(key: str) -> str:
    """A dictionary's key for Hydra's grammar, which has none in quotes."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", key)


def typed(override: str) -> str:
    """A prepared argument as a person would type it, with no more quotes than it needs."""
    found = _OVERRIDE.fullmatch(override)
    if found is None:
        return override
    key, value = found["key"], found["value"]
    listed = key in TEXT_LIST_KEYS and value.startswith("[")
    plain = f"[{','.join(map(unquote, _split(value[1:-1])))}]" if listed else unquote(value)
    shorter = f"{found['prefix'] if not key.startswith(OPEN_KEYS) else ''}{key}={plain}"
    return shorter if prepare([shorter]) == [override] else override


def _quoted(value: str) -> str:
    return value if value in ("", "null") or _is_quoted(value) else quote(value)


def _is_quoted(value: str) -> bool:
    return len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""


def _split(text: str) -> list[str]:
    """Split at commas that stand outside quotes; spaces around the parts are no part of them."""
    part = re.compile(r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]*?)\s*(?:,|\Z)""", re.DOTALL)
    parts, at = [], 0
    while at < len(text) and (match := part.match(text, at)):
        parts.append(match[1])
        at = match.end()
    return parts
