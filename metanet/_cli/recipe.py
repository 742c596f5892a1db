"""``recipe=FILE``: a merge again, from what an earlier one wrote beside its result.

A recipe is data: it names files, registered methods and plain values. What would make us run code
(references ``package.module:factory``) has to be typed on the command line again.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

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
# of the table of files in a model card
_ROW = re.compile(r"^\| (.+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)
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
    text = value_of("recipe", args)
    if not text:
        return args
    path = Path(text).expanduser()
    recipe = read_recipe(path)
    digests = recipe.pop(DIGESTS, None) or {}
    replaced = {"out", *map(key_of, args)}
    values = {key: value for key, value in recipe.items() if key not in replaced}
    values = _meaningful(path, values)
    _check_references(path, values)
    _check_inputs(path, values, digests)
    overrides: list[str] = []
    for key, value in values.items():
        overrides += _overrides(path, key, value)
    return [*overrides, *args]


def read_recipe(path: Path) -> dict[str, Any]:
    """What a recipe says.

    Args:
        path: ``merge_config.yaml``, a model card that has one inside, or the folder of either.

    Raises:
        MetanetError: it can't be read, or is none.
    """
    path = path / CONFIG_FILE if path.is_dir() else path
    text = _text_of(path)
    is_card = path.suffix == ".md"
    recipe = _parsed(path, _last_block(path, text) if is_card else text)
    if not isinstance(recipe, dict) or "models" not in recipe:
        raise MetanetError(f"recipe={path} is no recipe of a merge: it has no models")
    if is_card:
        rows = _ROW.findall(text)
        recipe[DIGESTS] = {file.replace("\\|", "|"): digest for file, digest in rows}
    return recipe


def _text_of(path: Path) -> str:
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
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise MetanetError(f"recipe={path} can't be read: {reason}") from error


def _last_block(path: Path, card: str) -> str:
    """The last block ```yaml of a model card."""
    _, opening, end = f"\n{card}\n".rpartition("\n```yaml\n")
    block, closing, _ = f"\n{end}".partition("\n```\n")
    if not (opening and closing):
        raise MetanetError(f"recipe={path}: this model card has no recipe in it (a block ```yaml)")
    return block


def _parsed(path: Path, text: str) -> Any:
    """Plain values; no aliases, by which a small file becomes a large one."""
    if len(text) > _LARGEST_YAML:
        raise MetanetError(
            f"recipe={path} has {len(text):,} characters of YAML, which no recipe has"
        )
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
                raise MetanetError(
                    f"recipe={path} has aliases or is nested too deep, which no recipe is"
                )
        values = yaml.safe_load(text)
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
    _check_plain(path, values)
    return values


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


def _meaningful(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without those that say nothing beyond what a merge does by itself.

    Raises:
        MetanetError: keys that merges have not.
    """
    from ..config import conf_dir

    defaults = yaml.safe_load((conf_dir() / "merge.yaml").read_text())
    keys = (set(defaults) - {"defaults", "hydra", "recipe"}) | {*_GROUPS, "device"}
    unknown = [str(key)[:40] for key in values if key not in keys]
    if unknown:
        raise MetanetError(
            f"recipe={path}: a merge has no {', '.join(unknown[:5])}; "
            f"keys are {', '.join(sorted(keys))}"
        )
    null_anyway = {key for key, default in defaults.items() if default is None}
    return {
        key: value for key, value in values.items() if value is not None or key not in null_anyway
    }


def _check_references(path: Path, values: Mapping[str, Any]) -> None:
    for key in _REFERENCES:
        value = values.get(key)
        references = value if isinstance(value, list) else [value]
        for reference in references:
            if isinstance(reference, str) and _CODE.fullmatch(reference):
                raise _of_code(path, key, reference)
    names = {key: values.get(key) for key in _REGISTERED}
    for group in _GROUPS:
        options = values.get(group)
        names[group] = options.get("name") if isinstance(options, Mapping) else None
    for key, name in names.items():
        if is_own(name):
            raise _of_code(path, key, str(name))


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
    models = values.get("models", [])
    base = values.get("base")
    are_paths = isinstance(models, list) and all(isinstance(model, str) for model in models)
    if not are_paths or not isinstance(base or "", str):
        raise MetanetError(f"recipe={path}: models must be a list of paths, and base a path")
    inputs = [*models, base] if base else models
    for name in inputs:
        checkpoint = load_checkpoint(Path(name).expanduser())
        if not digests:
            continue
        for main in mains_of(checkpoint):
            for file in files_of(main):
                _check_digest(path, file, digests.get(str(file)))


def _check_digest(path: Path, file: Path, digest: Any) -> None:
    with file.open("rb") as content:
        present = hashlib.file_digest(content, "sha256").hexdigest()
    if present != digest:
        raise MetanetError(
            f"recipe={path}: {file} is not the file that it was made with (another "
            "SHA-256). Restore it, or give models= (base=) on the command line to "
            "merge what is there now"
        )


def _overrides(path: Path, key: str, value: Any) -> Iterator[str]:
    """What one key of a recipe is on the command line.

    dtype: float32                     ->  dtype=float32
    method: {name: ties, density: .3}  ->  method=ties method.density=0.3
    arch_args: {width: 8}              ->  ++arch_args.width=8
    """
    if key in _OPEN:
        options = value if isinstance(value, dict) else {}
        for option, inner in options.items():
            _check_option(path, key, option)
            if inner is not None:
                yield _one(path, f"++{key}.{option}", inner)
    elif key not in _GROUPS:
        yield _one(path, key, value)
    elif value is not None:
        yield from _choice(path, key, value)


def _choice(path: Path, group: str, value: Any) -> Iterator[str]:
    """A method or matcher with its options."""
    name = value.get("name") if isinstance(value, dict) else None
    if not _is_name(name):
        raise MetanetError(
            f"recipe={path}: {group} needs a name and options, got {str(value)[:80]}"
        )
    yield f"{group}={name}"
    options = {option: inner for option, inner in value.items() if option != "name"}
    allowed = _options_of(group, name)
    for option in options:
        if allowed is not None and option not in allowed:
            raise MetanetError(
                f"recipe={path}: {group} {name} has no option {str(option)[:40]}; "
                f"its options are {', '.join(allowed)}"
            )
    for option, inner in options.items():
        _check_option(path, group, option)
        yield _one(path, f"{group}.{option}", inner)


def _check_option(path: Path, key: str, option: Any) -> None:
    if not _is_name(option):
        raise MetanetError(f"recipe={path}: {key} has no option {str(option)[:40]!r}")


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _options_of(group: str, name: str) -> list[str] | None:
    """Options of a method or matcher, by the file that has their defaults; ``None`` if there is
    none of this name."""
    from ..config import conf_file

    path = conf_file(group, name)
    defaults = None if path is None else yaml.safe_load(path.read_text())
    if not isinstance(defaults, dict):
        return None
    return [option for option in defaults if option != "name"]


def _one(path: Path, key: str, value: Any) -> str:
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
    return text


def _written(value: Any) -> str:
    """A plain value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        pairs = [f"{escaped(str(key))}:{_written(inner)}" for key, inner in value.items()]
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, str):
        stays = _is_name(value) and value.lower() not in _WORDS
        return value if stays else quote(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)
