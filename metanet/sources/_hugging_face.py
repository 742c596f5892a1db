"""``hf:ID-OR-FOLDER``: networks of transformers, made from their configuration with random
weights."""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial, wraps
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from torch import nn

from .. import trust
from ..documents import read_json, validated
from ..errors import MetanetError, brief, listed
from ._pinned import offline, pinned, refuse_unpinned
from ._reference import need_extra, scheme

_FIELDS = TypeAdapter(dict[str, Any])
_LARGEST = 16 * 2**20  # bytes of a config.json
_DEEPEST = 10_000
_DEPTH = re.compile(
    r"(^|_)(n|num|number_of)_.*(layers?|blocks?|stages?)$|^n_?layers?$|(^|_)layers$|(^|_)depth$"
)


def _is_model_type(reference: str) -> bool:
    """Whether it is ``hf:MODEL_TYPE``: code of transformers itself, and nothing that is looked up
    elsewhere."""
    if re.fullmatch(r"hf:[\w-]+", reference) is None:
        return False
    return reference.removeprefix("hf:") in need_extra("transformers", reference).CONFIG_MAPPING


trust.allow_references(_is_model_type)


@scheme("hf")
def hugging_face_model(name: str) -> Callable[..., nn.Module]:
    """The function that makes the network of transformers which ``name`` describes.

    Only the configuration is read. Weights are random, never loaded, and code that comes with a
    repository never runs. Keyword arguments replace fields of the configuration
    (``hidden_size=64``, ``text_config={"vocab_size": 99}``); ``dtype`` is float32 unless it is
    given.

    The class is the one that ``config.architectures`` names. Where it names none: with a decoder
    and an encoder ``AutoModelForSeq2SeqLM``, else ``AutoModelForMaskedLM``, else
    ``AutoModelForCausalLM``, else ``AutoModel``, whichever has the model type first.

    Args:
        name: a folder with a ``config.json``; else a model type of transformers (``gpt2``) in its
            default size, unless a repository of that name is in the cache; else a repository of the
            Hub (``org/name``), cached or online.

    Raises:
        MetanetError: transformers is not installed, or there is no such configuration.
    """
    transformers = need_extra("transformers", f"hf:{name}")
    return partial(_create, name, _read(transformers, name))


def _read(transformers: Any, name: str) -> dict[str, Any]:
    """The fields of the configuration."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _read_file(folder)
    families = transformers.CONFIG_MAPPING
    if name in families:
        try:
            return _from_hub(transformers, name, local_files_only=True)
        except OSError:  # not in the cache
            return {"model_type": name}
    try:
        return _from_hub(transformers, name)
    except (OSError, ValueError) as error:
        close = get_close_matches(name, [*families], n=3)
        hint = f" Did you mean the model type {' or '.join(close)}?" if close else ""
        raise MetanetError(
            f"hf:{name}: there is no such folder, and no such repository in the cache or online.{hint}\n"
            f"  {str(error).splitlines()[0]}"
        ) from error


def _read_file(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise MetanetError(
            f"the folder {folder} has no config.json, which would say what network it is of"
        )
    fields = validated(
        _FIELDS, read_json(path, largest=_LARGEST, nan=True), f"'{path}'"
    )  # Infinity is written there
    if isinstance(fields.get("model_type"), str):
        _check_depth(fields, f"'{path}'")
        return fields
    # timm writes a config.json too, with the name of the network instead.
    timm = fields.get("architecture")
    hint = (
        f"; it is one of timm: arch=timm:{brief(timm)}"
        if timm
        else ", so it is no configuration of transformers"
    )
    raise MetanetError(f"{path} has no model_type{hint}")


def _check_depth(fields: Mapping[str, Any], place: str) -> None:
    """Refuse configurations of more layers than there is time to make: ``num_hidden_layers``,
    ``depth``, ...

    Raises:
        MetanetError: names the field.
    """
    for key, value in fields.items():
        if isinstance(value, Mapping):
            _check_depth(value, place)
        elif _DEPTH.search(key) and isinstance(value, int) and not 0 <= value <= _DEEPEST:
            raise MetanetError(
                f"{place} says {brief(key)}={brief(value, 40)}: networks have 0 to {_DEEPEST:,} of these"
            )


def _explained(create: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The same function, whose errors name the configuration: transformers checks few of its
    fields."""

    @wraps(create)
    def explained(name: str, fields: Mapping[str, Any], /, **arch_args: Any) -> nn.Module:
        try:
            return create(name, fields, **arch_args)
        except MetanetError:
            raise
        except Exception as error:
            # whoever made it on the meta device, or gave arguments, says more about these
            if "meta tensor" in str(error) or (
                arch_args and "unexpected keyword argument" in str(error)
            ):
                raise
            raise MetanetError(
                f"hf:{name}: transformers can't make the network of its configuration: "
                f"{type(error).__name__}: {brief(error, 500)}"
            ) from error

    return explained


def _from_hub(transformers: Any, name: str, **options: Any) -> dict[str, Any]:
    fields, _ = transformers.PreTrainedConfig.get_config_dict(name, **options)
    if "model_type" not in fields:
        raise MetanetError(
            f"hf:{name}: its config.json has no model_type, so it is no configuration of transformers"
        )
    return fields


@_explained
def _create(name: str, fields: Mapping[str, Any], /, **arch_args: Any) -> nn.Module:
    import transformers

    kind = fields["model_type"]
    if kind not in transformers.CONFIG_MAPPING:
        raise MetanetError(
            f"hf:{name}: transformers {transformers.__version__} has no model type "
            f"{brief(kind)!r}. A newer version may have it; code that comes with a repository "
            "never runs here: wrap it in a function of your own, arch=my_networks:FUNCTION"
        )
    refuse_unpinned(arch_args, f"hf:{name}")
    try:
        with offline():
            config = _config(
                transformers.CONFIG_MAPPING[kind], name, pinned(fields, f"hf:{name}"), arch_args
            )
            return _class(transformers, name, config)._from_config(
                config, dtype=arch_args.get("dtype", "float32")
            )
    except OSError as error:
        raise MetanetError(
            f"hf:{name}: its configuration is not whole: transformers would look on the Hub for "
            "a part of it, which no configuration may here. Give the part itself, "
            f"as backbone_config\n  {str(error)[:300]}"
        ) from error


def _config(kind: Any, name: str, fields: Mapping[str, Any], arch_args: Mapping[str, Any]) -> Any:
    """The configuration with some fields replaced, as if it had been written so: derived fields
    follow."""
    changes = {key: value for key, value in arch_args.items() if key != "dtype"}
    if changes:
        _check_fields(kind.from_dict(dict(fields)), changes, f"hf:{name}: {kind.__name__}")
    try:
        return kind.from_dict(_merged(fields, changes))
    except Exception as error:
        if not changes:
            raise
        options = ", ".join(f"arch_args.{key}={value!r}" for key, value in changes.items())
        raise MetanetError(
            f"hf:{name} can't be configured with {options}: {type(error).__name__}: {error}"
        ) from error


def _check_fields(config: Any, names: Iterable[str], what: str) -> None:
    """Refuse names of fields that the configuration doesn't have."""
    fields = config.to_dict()
    for name in names:
        if hasattr(config, name):
            continue
        close = get_close_matches(name, fields, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has {listed(fields, 40)}"
        raise MetanetError(f"{what} has no field {name!r}; {hint}")


def _merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(fields)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


def _class(transformers: Any, name: str, config: Any) -> Any:
    if names := getattr(config, "architectures", None):
        choice = getattr(transformers, names[0], None)
        if not isinstance(choice, type) or not issubclass(choice, transformers.PreTrainedModel):
            raise MetanetError(
                f"hf:{name} is a {brief(names[0])}, "
                f"which transformers {transformers.__version__} doesn't have. "
                "Another class of its model type: arch_args.architectures=[NAME]"
            )
        return choice
    kinds = ["SEQ_TO_SEQ_CAUSAL_LM"] if config.is_encoder_decoder else ["MASKED_LM", "CAUSAL_LM"]
    mappings = [getattr(transformers, f"MODEL_FOR_{kind}_MAPPING") for kind in kinds]
    for mapping in [*mappings, transformers.MODEL_MAPPING]:
        if type(config) in mapping:
            choice = mapping[type(config)]
            return choice[0] if isinstance(choice, tuple | list) else choice
    raise MetanetError(
        f"hf:{name}: give its class, arch_args.architectures=[NAME]: {config.model_type} has no default"
    )
