"""``hf:ID-OR-FOLDER``: networks of transformers, made from their configuration with random weights."""

import json
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from .. import trust
from ..errors import MetanetError
from ._pinned import offline, pinned, refuse_unpinned
from ._reference import need_extra, scheme


def _is_model_type(reference: str) -> bool:
    """Whether it is ``hf:MODEL_TYPE``: code of transformers itself, and nothing that is looked up elsewhere."""
    if re.fullmatch(r"hf:[\w-]+", reference) is None:
        return False
    return reference.removeprefix("hf:") in need_extra("transformers", reference).CONFIG_MAPPING


trust.allow_references(_is_model_type)


@scheme("hf")
def hugging_face_model(name: str) -> Callable[..., nn.Module]:
    """The function that makes the network of transformers which ``name`` describes.

    Only the configuration is read. Weights are random, never loaded, and code that comes with a repository never runs.
    Keyword arguments replace fields of the configuration (``hidden_size=64``, ``text_config={"vocab_size": 99}``);
    ``dtype`` is float32 unless it is given.

    The class is the one that ``config.architectures`` names. Where it names none: with a decoder and an encoder
    ``AutoModelForSeq2SeqLM``, else ``AutoModelForMaskedLM``, else ``AutoModelForCausalLM``, else ``AutoModel``,
    whichever has the model type first.

    Args:
        name: a folder with a ``config.json``; else a model type of transformers (``gpt2``) in its default size, unless
            a repository of that name is in the cache; else a repository of the Hub (``org/name``), cached or online.

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
    known = transformers.CONFIG_MAPPING
    if name in known:
        try:
            return _from_hub(transformers, name, local_files_only=True)
        except OSError:  # not in the cache
            return {"model_type": name}
    try:
        return _from_hub(transformers, name)
    except (OSError, ValueError) as error:
        close = get_close_matches(name, [*known], n=3)
        hint = f" Did you mean the model type {' or '.join(close)}?" if close else ""
        raise MetanetError(
            f"hf:{name}: there is no such folder, and no such repository in the cache or online.{hint}\n"
            f"  {str(error).splitlines()[0]}"
        ) from error


def _read_file(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MetanetError(f"the folder {folder} has no config.json, which would say what network it is of") from None
    except ValueError as error:
        raise MetanetError(f"{path} is damaged: {error}") from error
    if isinstance(fields, dict) and isinstance(fields.get("model_type"), str):
        return fields
    # timm writes a config.json too, with the name of the network instead.
    timm = fields.get("architecture") if isinstance(fields, dict) else None
    hint = f"; it is one of timm: arch=timm:{timm}" if timm else ", so it is no configuration of transformers"
    raise MetanetError(f"{path} has no model_type{hint}")


def _from_hub(transformers: Any, name: str, **options: Any) -> dict[str, Any]:
    fields, _ = transformers.PreTrainedConfig.get_config_dict(name, **options)
    if "model_type" not in fields:
        raise MetanetError(f"hf:{name}: its config.json has no model_type, so it is no configuration of transformers")
    return fields


def _create(name: str, fields: Mapping[str, Any], /, **arch_args: Any) -> nn.Module:
    import transformers

    kind = fields["model_type"]
    if kind not in transformers.CONFIG_MAPPING:
        raise MetanetError(
            f"hf:{name}: transformers {transformers.__version__} has no model type {kind!r}. A newer version may have "
            "it; code that comes with a repository never runs here: wrap it in a function of your own, "
            "arch=my_networks:FUNCTION"
        )
    refuse_unpinned(arch_args, f"hf:{name}")
    try:
        with offline():
            config = _config(transformers.CONFIG_MAPPING[kind], name, pinned(fields, f"hf:{name}"), arch_args)
            return _class(transformers, name, config)._from_config(config, dtype=arch_args.get("dtype", "float32"))
    except OSError as error:
        raise MetanetError(
            f"hf:{name}: its configuration is not whole: transformers would look on the Hub for a part of it, which no "
            f"configuration may here. Give the part itself, as backbone_config\n  {str(error)[:300]}"
        ) from error


def _config(kind: Any, name: str, fields: Mapping[str, Any], arch_args: Mapping[str, Any]) -> Any:
    """The configuration with some fields replaced, as if it had been written so: derived fields follow."""
    given = {key: value for key, value in arch_args.items() if key != "dtype"}
    known = kind.from_dict(dict(fields)) if given else None
    for key in given:
        if not hasattr(known, key):
            close = get_close_matches(key, known.to_dict(), n=3)
            listed = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known.to_dict())}"
            raise MetanetError(f"hf:{name}: {kind.__name__} has no field {key!r}; {listed}")
    try:
        return kind.from_dict(_merged(fields, given))
    except Exception as error:
        if not given:
            raise
        listed = ", ".join(f"arch_args.{key}={value!r}" for key, value in given.items())
        raise MetanetError(f"hf:{name} can't be configured with {listed}: {type(error).__name__}: {error}") from error


def _merged(fields: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(fields)
    for key, value in given.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


def _class(transformers: Any, name: str, config: Any) -> Any:
    if names := getattr(config, "architectures", None):
        found = getattr(transformers, names[0], None)
        if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
            raise MetanetError(
                f"hf:{name} is a {names[0]}, which transformers {transformers.__version__} doesn't have. "
                "Another class of its model type: arch_args.architectures=[NAME]"
            )
        return found
    kinds = ["SEQ_TO_SEQ_CAUSAL_LM"] if config.is_encoder_decoder else ["MASKED_LM", "CAUSAL_LM"]
    mappings = [getattr(transformers, f"MODEL_FOR_{kind}_MAPPING") for kind in kinds]
    for mapping in [*mappings, transformers.MODEL_MAPPING]:
        if type(config) in mapping:
            found = mapping[type(config)]
            return found[0] if isinstance(found, tuple | list) else found
    raise MetanetError(f"hf:{name}: give its class, arch_args.architectures=[NAME]: {config.model_type} has no default")
