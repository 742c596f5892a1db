"""``recipe=FILE``: a merge again, from what an earlier one wrote beside its result.

A recipe is data: it names files, registered methods and plain values. What would make us run code
(references ``package.module:factory``) has to be typed on the command line again.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import MetanetError
from ..registry import is_own
from .overrides import escaped, key_of, quote, value_of

CONFIG_FILE = "merge_config.yaml"
DIGESTS = "digests"
_LARGEST = 4 * 2**20  # bytes of a recipe, or of the card that has one
_LARGEST_YAML = 256 * 2**10  # characters of it: the parser takes a second for 60,000
_DEEPEST = 32
_GROUPS = ("method", "matcher")
_OPEN = ("arch_args", "data_args")
_REFERENCES = ("arch", "data", "loss")
_REGISTERED = ("loss", "repair")
_ROW = re.compile(
    r"^\| (.+) \| `([0-9a-f]{64})` \|$", re.MULTILINE
)  # of the table of files in a model card
_CODE = re.compile(r"(?!(?:timm|hf):)[^\W\d][\w.]*:[^\W\d]\w*")
_NAME = re.compile(r"[A-Za-z]\w*")
_WORDS = ("null", "true", "false", "nan", "inf")  # that Hydra's grammar takes for something else


def check_primary(args: Sequence[str]) -> None:
    """Refuse to take a merge's configuration for a primary config of Hydra's, which it is not.

    Raises:
        MetanetError: ``--config-name`` is among the arguments; before anything is written.
    """
    if any(arg.startswith(("--config-n", "-cn")) for arg in args):
        raise MetanetError(
            "--config-name: the configuration that a merge leaves is no primary config. "
            f"For the same merge again, give recipe=FOLDER/{CONFIG_FILE} and a new out="
        )


def replayed(args: list[str]) -> list[str]:
    """The overrides of a recipe before those given now, which win.

    ``["recipe=out/merge_config.yaml", "out=new"]`` -> ``["models=['a','b']", "method=ties",
    "method.density=0.3", ..., "recipe=out/merge_config.yaml", "out=new"]``

    Args:
        args: prepared arguments; nothing happens without ``recipe=``.

    Raises:
        MetanetError: it can't be read, has keys that merges have not, refers to code, or one of its
            inputs is not the file that it was made with.
    """
    given = value_of("recipe", args)
    if not given:
        return args
    path = Path(given).expanduser()
    values = read_recipe(path)
    digests = values.pop(DIGESTS, None) or {}
    given_now = {key_of(arg) for arg in args}
    values = {key: value for key, value in values.items() if key not in given_now and key != "out"}
    values = _known(path, values)
    _check_references(path, values)
    _check_inputs(path, values, digests)
    return [
        *(text for key, value in values.items() for text in _overrides(path, key, value)),
        *args,
    ]


def read_recipe(path: Path) -> dict[str, Any]:
    """What a recipe says.

    Args:
        path: ``merge_config.yaml``, a model card that has one inside, or the folder of either.

    Raises:
        MetanetError: it can't be read, or is none.
    """
    path = path / CONFIG_FILE if path.is_dir() else path
    try:
        if not path.is_file():
            raise MetanetError(
                f"recipe={path}: there is no such file; give {CONFIG_FILE} or README.md of a merge"
            )
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise MetanetError(
                f"recipe={path} is larger than {_LARGEST:,} bytes, which no recipe is"
            )
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise MetanetError(
            f"recipe={path} can't be read: {getattr(error, 'strerror', None) or 'no text'}"
        ) from error
    card = path.suffix == ".md"
    digests = (
        {file.replace("\\|", "|"): digest for file, digest in _ROW.findall(text)} if card else {}
    )
    if card:
        text = _last_block(path, text)
    if len(text) > _LARGEST_YAML:
        raise MetanetError(
            f"recipe={path} has {len(text):,} characters of YAML, which no recipe has"
        )
    found = _parsed(path, text)
    if not isinstance(found, dict) or "models" not in found:
        raise MetanetError(f"recipe={path} is no recipe of a merge: it has no models")
    return found | {DIGESTS: digests} if card else found


def _last_block(path: Path, card: str) -> str:
    """The last block ```yaml of a model card."""
    _, opening, rest = f"\n{card}\n".rpartition("\n```yaml\n")
    block, closing, _ = f"\n{rest}".partition("\n```\n")
    if not (opening and closing):
        raise MetanetError(f"recipe={path}: this model card has no recipe in it (a block ```yaml)")
    return block


def _parsed(path: Path, text: str) -> Any:
    """Plain values; no aliases, by which a small file becomes a large one."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
                event, yaml.CollectionEndEvent
            )
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
                raise MetanetError(
                    f"recipe={path} has aliases or is nested too deep, which no recipe is"
                )
        found = yaml.safe_load(text)
    # Its constructors pass on what int(), float() and datetime make of a value.
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        OverflowError,
    ) as error:
        raise MetanetError(f"recipe={path} is no YAML: {str(error)[:300]}") from error
    _check_plain(path, found)
    return found


def _check_plain(path: Path, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_plain(path, key)
            _check_plain(path, inner)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(path, inner)
    elif not isinstance(value, str | int | float | None):
        raise MetanetError(
            f"recipe={path}: {str(value)[:60]!r} is a {type(value).__name__}, no plain value"
        )
    elif isinstance(value, str) and "${" in value:
        raise MetanetError(
            f"recipe={path}: {value[:60]!r} is to be filled in by Hydra; a recipe has plain values"
        )


def _known(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without those that say nothing beyond what a merge does by itself.

    Raises:
        MetanetError: keys that merges have not.
    """
    from ..config import conf_dir

    defaults = yaml.safe_load((conf_dir() / "merge.yaml").read_text())
    known = (set(defaults) - {"defaults", "hydra", "recipe"}) | {*_GROUPS, "device"}
    if unknown := [str(key)[:40] for key in values if key not in known]:
        there = ", ".join(sorted(known))
        raise MetanetError(
            f"recipe={path}: a merge has no {', '.join(unknown[:5])}; keys are {there}"
        )
    return {
        key: value
        for key, value in values.items()
        if value is not None or defaults.get(key, "") is not None
    }


def _check_references(path: Path, values: Mapping[str, Any]) -> None:
    for key in _REFERENCES:
        value = values.get(key)
        for ref in value if isinstance(value, list) else [value]:
            if isinstance(ref, str) and _CODE.fullmatch(ref):
                raise _of_code(path, key, ref)
    for key in _REGISTERED:
        if is_own(values.get(key)):
            raise _of_code(path, key, str(values[key]))
    for group in _GROUPS:
        chosen = values.get(group)
        name = chosen.get("name") if isinstance(chosen, Mapping) else None
        if is_own(name):
            raise _of_code(path, group, str(name))


def _of_code(path: Path, key: str, reference: str) -> MetanetError:
    return MetanetError(
        f"recipe={path} refers to code, {key}={reference[:80]}: a file can't make metanet run "
        f"it. If you trust it, type {key}={reference[:80]} on the command line, too"
    )


def _check_inputs(path: Path, values: Mapping[str, Any], digests: Any) -> None:
    """Raises MetanetError if an input that the recipe names is another file now."""
    from ..checkpoints import files_of, load_checkpoint
    from ..merging import mains_of

    if not isinstance(digests, Mapping):
        raise MetanetError(f"recipe={path}: {DIGESTS} must be file: SHA-256")
    models, base = values.get("models", []), values.get("base")
    if not isinstance(models, list) or not all(
        isinstance(each, str) for each in [*models, base or ""]
    ):
        raise MetanetError(f"recipe={path}: models must be a list of paths, and base a path")
    for given in [*models, *([base] if base else [])]:
        opened = load_checkpoint(Path(given).expanduser())
        for file in (
            (file for main in mains_of(opened) for file in files_of(main)) if digests else ()
        ):
            with file.open("rb") as content:
                if hashlib.file_digest(content, "sha256").hexdigest() != digests.get(str(file)):
                    raise MetanetError(
                        f"recipe={path}: {file} is not the file that it was made with (another "
                        "SHA-256). Restore it, or give models= (base=) on the command line to "
                        "merge what is there now"
                    )


def _overrides(path: Path, key: str, value: Any) -> Iterator[str]:
    if key in _GROUPS:
        if value is None:
            return
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise MetanetError(
                f"recipe={path}: {key} needs a name and options, got {str(value)[:80]}"
            )
        yield f"{key}={name}"
        value = {option: inner for option, inner in value.items() if option != "name"}
        known = _options_of(key, name)
        if known is not None and (
            unknown := [str(option)[:40] for option in value if option not in known]
        ):
            raise MetanetError(
                f"recipe={path}: {key} {name} has no option {unknown[0]}; its options are {', '.join(known)}"
            )
    if key in _GROUPS or key in _OPEN:
        for option, inner in (value or {}).items() if isinstance(value, dict | None) else ():
            if not isinstance(option, str) or not _NAME.fullmatch(option):
                raise MetanetError(f"recipe={path}: {key} has no option {str(option)[:40]!r}")
            if inner is not None or key not in _OPEN:
                yield from _one(path, f"{'++' if key in _OPEN else ''}{key}.{option}", inner)
    else:
        yield from _one(path, key, value)


def _options_of(group: str, name: str) -> list[str] | None:
    """Options of a method or matcher, by the file that has their defaults; ``None`` if there is
    none of this name."""
    from ..config import conf_file

    defaults = conf_file(group, name)
    found = None if defaults is None else yaml.safe_load(defaults.read_text())
    return [option for option in found if option != "name"] if isinstance(found, dict) else None


def _one(path: Path, key: str, value: Any) -> Sequence[str]:
    """An override that Hydra reads as this value.

    Raises:
        MetanetError: its grammar has no words for it.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    text = f"{key}={_written(value)}"
    try:
        same = OverridesParser.create().parse_override(text).value() == value
    except HydraException:  # of its grammar, or of its words
        same = False
    if not same:
        raise MetanetError(
            f"recipe={path}: {key} can't be taken from there: give {key.lstrip('+')}=... yourself"
        )
    return [text]


def _written(value: Any) -> str:
    """A plain value in Hydra's grammar."""
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{escaped(str(key))}:{_written(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, str):
        return value if _NAME.fullmatch(value) and value.lower() not in _WORDS else quote(value)
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    )
