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
_PART = re.compile(r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]*?)\s*(?:,|\Z)""", re.DOTALL)
_BETWEEN_LISTS = re.compile(r"(?<=\])\s*,\s*(?=\[)")
_OVERRIDE = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[^\W\d][\w./@:-]*)=(?P<value>.*)", re.DOTALL)


def quote(text: str) -> str:
    """``text`` as a string of Hydra's grammar; ``${...}`` in it stays an interpolation."""
    # backslashes count only before a quote and at the end: C:\x stays, it\'s -> it\\\'s, a\ -> a\\
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    text = re.sub(r"(\\+)\Z", r"\1\1", text)
    return f"'{text}'"


def unquote(text: str) -> str:
    """The inverse of :func:`quote`; text that isn't quoted stays as it is."""
    if not _is_quoted(text):
        return text
    mark = text[0]
    inner = re.sub(r"(\\+)\Z", _half, text[1:-1])
    return re.sub(rf"(\\*)\\{mark}", lambda match: _half(match) + mark, inner)


def _half(backslashes: re.Match[str]) -> str:
    return backslashes[1][: len(backslashes[1]) // 2]


def prepare(args: list[str], short: Mapping[str, str] | None = None) -> list[str]:
    """Arguments as a person types them -> arguments that Hydra reads the same way.

    ``short`` maps short keys to where they stand in the configuration: ``path`` -> ``zoo.path``.

    Values of :data:`~metanet._cli.keys.TEXT_KEYS` are quoted unless they are quoted already,
    ``null`` or empty. In a sweep (``-m``) commas separate choices, in :data:`TEXT_LIST_KEYS` they
    separate items; a path with a comma needs quotes of its own there. In :data:`TREE_KEYS`, keys
    may stand in quotes, as they do in JSON.
    """
    sweep = is_sweep(args)
    return [_prepare(arg, short or {}, sweep) for arg in args]


def is_sweep(args: list[str]) -> bool:
    return any(arg in ("-m", "--multirun", "hydra.mode=MULTIRUN") for arg in args)


def value_of(key: str, args: list[str]) -> str | None:
    """The value that the last ``key=value`` gives as plain text; None if there is none, or
    ``null``."""
    value = "null"
    for override in map(_OVERRIDE.fullmatch, args):
        if override is not None and override["key"] == key:
            value = override["value"]
    return None if value == "null" else unquote(value)


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
    text = value_of("resume", args)
    if not text:
        return args
    if is_sweep(args):
        raise MetanetError(
            "resume=RUN_DIR goes on with one run; it can't be swept (-m). Resume the jobs one by one."
        )
    run_dir = Path(text).expanduser().absolute()
    record = run_dir / ".hydra" / "overrides.yaml"
    if not record.is_file():
        raise MetanetError(
            f"can't resume {text}: {_no_run(run_dir)}. Give the directory that `metanet train` made."
        )
    elsewhere = value_of("hydra.run.dir", args)
    if elsewhere and Path(elsewhere).absolute() != run_dir:
        raise MetanetError(
            f"resume={text} writes into that directory; remove hydra.run.dir={elsewhere}"
        )
    # What the command line says now wins. Hydra adds a key (+key=value) only once, so what is
    # replaced is left out. Whom to trust is for the command line alone to say.
    replaced = {"trust", *map(key_of, args)}
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


def _no_run(path: Path) -> str:
    if not path.exists():
        return "there is no such folder"
    if path.is_file():
        return "it is a file; give the run's folder"
    return "it is no run: .hydra/overrides.yaml is missing"


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
    text = value_of("trust", args)
    if text is not None and _is_list(text):
        return trust.folders_named(list(map(unquote, _split(text[1:-1]))))
    return trust.folders_named(text)


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
    are_texts = isinstance(overrides, list) and all(isinstance(text, str) for text in overrides)
    if not are_texts:
        raise MetanetError(f"can't resume: {record} holds no list of overrides")
    return overrides


def key_of(override: str) -> str:
    """What an override is about: ``+optim.lr=1`` -> ``optim.lr``, ``~debug`` -> ``debug``."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _prepare(arg: str, short: Mapping[str, str], sweep: bool) -> str:
    override = _OVERRIDE.fullmatch(arg)
    if override is None:
        return arg
    key = _long(override["key"], short)
    is_short = key != override["key"]  # it stands for one that is there: +arch= is arch=
    prefix = "" if is_short else override["prefix"]
    if key.startswith(OPEN_KEYS):
        prefix = prefix or "++"
    return f"{prefix}{key}={_prepared(key, override['value'], sweep)}"


def _prepared(key: str, value: str, sweep: bool) -> str:
    """The value of a key as Hydra's grammar has it.

    base   my dir/a.pt      -> 'my dir/a.pt'
    models [a b.pt,c.pt]    -> ['a b.pt','c.pt']
    data   x,y   in a sweep -> 'x','y'
    """
    if key in TEXT_LIST_KEYS and _is_list(value):
        lists = _BETWEEN_LISTS.split(value) if sweep else [value]
        return ",".join(map(_quoted_items, lists))
    if key in TREE_KEYS and value[:1] in ("{", "["):
        return _QUOTED_KEY.sub(lambda match: f"{escaped(match['key'])}:", value)
    if key in TEXT_KEYS and sweep:
        return ",".join(map(_quoted, _split(value)))
    is_text = key in TEXT_KEYS | TREE_KEYS | TEXT_LIST_KEYS
    return _quoted(value) if is_text else value


def _is_list(value: str) -> bool:
    return value.startswith("[") and value.endswith("]")


def _quoted_items(value: str) -> str:
    return f"[{','.join(map(_quoted, _split(value[1:-1])))}]"


def _long(key: str, short: Mapping[str, str]) -> str:
    """Where a short key stands: ``path`` -> ``zoo.path``, ``arch_args.width`` ->
    ``zoo.arch_args.width``."""
    first, dot, path = key.partition(".")
    return f"{short[first]}{dot}{path}" if first in short else key


def escaped(key: str) -> str:
    """A dictionary's key for Hydra's grammar, which has none in quotes."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", key)


def typed(override: str) -> str:
    """A prepared argument as a person would type it, with no more quotes than it needs."""
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return override
    key = match["key"]
    value = match["value"]
    if key in TEXT_LIST_KEYS and value.startswith("["):
        plain = f"[{','.join(map(unquote, _split(value[1:-1])))}]"
    else:
        plain = unquote(value)
    prefix = "" if key.startswith(OPEN_KEYS) else match["prefix"]
    shorter = f"{prefix}{key}={plain}"
    return shorter if prepare([shorter]) == [override] else override


def _quoted(value: str) -> str:
    return value if value in ("", "null") or _is_quoted(value) else quote(value)


def _is_quoted(value: str) -> bool:
    return len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""


def _split(text: str) -> list[str]:
    """Split at commas that stand outside quotes; spaces around the parts are no part of them."""
    parts = []
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            break
        parts.append(match[1])
        at = match.end()
    return parts
