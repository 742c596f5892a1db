"""The gate that every command's checkpoints go through: what holds no plain weights is refused, by
name."""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..documents import read_json
from ..errors import CheckpointError
from ._forms import ADAPTER, EIGHT_BITS, NARROW, QUANTISED, SCALE, SCALED, adapter_of, forms_of
from ._mapping import Checkpoint
from ._pipelines import PARTS

_OF_PYTORCH = frozenset({torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4})
_KEYS = (
    "quantization_config",
    "compression_config",
)  # in config.json, or in a part of it (text_config)
_LATER = "A later version will merge adapters themselves."


def check_plain(
    given: Mapping[str, Tensor],
    who: str = "",
    *,
    network: Iterable[str] = (),
    averaged: bool = False,
    taken: Iterable[str] = (),
) -> None:
    """Refuse weights that are no plain numbers: quantised ones and their scales, adapters.

    Told by names and dtypes, and by ``config.json`` or ``adapter_config.json`` beside the file. No
    tensor is read.

    >>> narrow = torch.ones(4, 4).to(torch.float8_e4m3fn)
    >>> check_plain({"l.weight": narrow, "l.weight_scale_inv": torch.ones(1, 1)})
    Traceback (most recent call last):
    metanet.errors.CheckpointError: the checkpoint is quantised (it has l.weight_scale_inv, ...

    Args:
        given: a state dict or a checkpoint.
        who: what to call it in messages where it has no path.
        network: names of the network that the checkpoint is read for. Adapters that are part of it
            are tensors like others, which may be moved and drawn.
        averaged: tensors are going to be averaged: then adapters are refused inside networks, too,
            for the product of averages is not the average of products.
        taken: patterns of names that are not averaged but taken from one checkpoint.

    Raises:
        CheckpointError: it is quantised or an adapter; names the form, one tensor, and what to do.
    """
    check_dequantised(given, who)
    _check_single(given, bool(network))
    _check_adapters(given, called(given, who), list(network), averaged, list(taken))


def check_dequantised(given: Mapping[str, Tensor], who: str = "") -> None:
    """The part of :func:`check_plain` that is about quantised weights.

    Raises:
        CheckpointError: they are quantised.
    """
    sign = next(_signs_of_numbers(dtypes_of(given)), None) or _by_config(given)
    if sign is not None:
        raise CheckpointError(
            f"{called(given, who)} is quantised ({sign}), which averages of its numbers would not "
            "survive, and of which no graph and no alignment can be made: dequantise it first (in "
            "transformers, load it with dequantize=True in its quantization config, or call "
            "model.dequantize(), and save it)"
        )


def are_plain(names: Iterable[str]) -> bool:
    """Whether all these names are those of plain weights.

    None is one of quantised weights, of their scales, or of an adapter.
    """
    return not any(forms_of(name) or SCALE.fullmatch(name) for name in names)


def called(given: Any, who: str = "") -> str:
    """What messages call a checkpoint."""
    if who:
        return who
    return f"checkpoint '{given.path}'" if isinstance(given, Checkpoint) else "the checkpoint"


def dtypes_of(given: Mapping[str, Tensor]) -> Mapping[str, torch.dtype]:
    """Dtype by name; entries of a state dict that are no tensors are left out."""
    if isinstance(given, Checkpoint):
        return given.dtypes
    return {name: tensor.dtype for name, tensor in given.items() if isinstance(tensor, Tensor)}


def _check_single(given: Mapping[str, Tensor], of_network: bool) -> None:
    if not isinstance(given, Checkpoint) or not of_network:
        return
    parts = given.metadata.get(PARTS)
    if parts:
        raise CheckpointError(
            f"{called(given)} is a pipeline of several networks, arch= is one: "
            f"{', '.join(list(parts)[:5])} has weights of its own. Give the file of that one, such "
            f"as '{given.path}'; a merge without arch= takes all"
        )


# ---------------------------------------------------------------- quantised


def _signs_of_numbers(dtypes: Mapping[str, torch.dtype]) -> Iterator[str]:
    for name, dtype in dtypes.items():
        if dtype in _OF_PYTORCH:
            yield f"{name} is {dtype}"
        if (owner := _scaled_by(name, dtypes)) is not None:
            yield f"it has {name}, by which {owner} ({dtypes[owner]}) is to be multiplied"
        for form in forms_of(name):
            if form.kind == QUANTISED and (form.dtypes is None or dtype in form.dtypes):
                yield f"it has {name}: {form.word}"


def _scaled_by(name: str, dtypes: Mapping[str, torch.dtype]) -> str | None:
    """The tensor of few bits that a tensor is the scale of, by its name.

    ``l.weight_scale`` and ``l.scale`` belong to ``l.weight``, ``e.up_scales`` to ``e.up_blocks``.
    In a network cast to 8 bits as a whole, a parameter called ``scale`` has 8 bits too: that is no
    scale of numbers.
    """
    if dtypes[name] in EIGHT_BITS and not name.endswith(("_scale", "_scales")):
        return None
    return next((owner for owner in _owners(name) if dtypes.get(owner) in NARROW), None)


@lru_cache(maxsize=1 << 16)  # graphs of many checkpoints ask for the same names
def _owners(name: str) -> tuple[str, ...]:
    """What a tensor may be the scale of, by its name; nothing if it is called otherwise."""
    scale = SCALE.fullmatch(name)
    if scale is None:
        return ()
    stem = scale["of"] if scale["of"] is not None else scale["module"]
    owners = (f"{stem}{behind}" if stem else behind.lstrip(".") for behind in SCALED)
    return tuple(owner for owner in owners if owner != name)


def _by_config(given: Mapping[str, Tensor]) -> str | None:
    """What a configuration beside the weights says of their numbers."""
    config = _config(given)
    parts = [config]
    for key, value in config.items():
        if key.endswith("_config") and isinstance(value, dict):
            parts.append(value)
    entries = [part[key] for part in parts for key in _KEYS if part.get(key)]
    if not entries:
        return None
    how = entries[0]
    if isinstance(how, dict):
        how = how.get("quant_method", "unknown method")
    return f"{how:.40}, says its config.json" if isinstance(how, str) else "says its config.json"


def _config(given: Mapping[str, Tensor]) -> dict[str, Any]:
    if not isinstance(given, Checkpoint):
        return {}
    config = given.metadata.get("config")
    beside = Path(given.path).parent / "config.json"
    if config is None and Path(given.path).is_file() and beside.is_file():
        config = read_json(beside, error=CheckpointError, nan=True)  # transformers writes Infinity
    return config if isinstance(config, dict) else {}


# ---------------------------------------------------------------- adapters


def _check_adapters(
    given: Mapping[str, Tensor], who: str, network: list[str], averaged: bool, taken: list[str]
) -> None:
    names = [
        name
        for name in dtypes_of(given)
        if not any(fnmatchcase(name, pattern) for pattern in taken)
    ]
    parts = {name: word for name in names if (word := adapter_of(name)) is not None}
    kind = next(iter(parts.values()), None) or _by_adapter_config(given)
    if kind is None or (not averaged and any(adapter_of(name) for name in network)):
        return
    shown = f"{next(iter(parts))}, ...: {kind}" if parts else kind
    inside = parts and (2 * len(parts) < len(names) or any("base_layer." in name for name in names))
    what = f"has adapters inside ({shown})" if inside else f"is {ADAPTER} ({shown})"
    raise CheckpointError(
        f"{who} {what}: what it changes of its base is a product of its tensors, with a scale that "
        "is not among them (lora_alpha), so that tensors can't be averaged or read one by one. "
        "Merge it into its base with PEFT, PeftModel.from_pretrained(base, "
        f"folder).merge_and_unload().save_pretrained(new), and give that. {_LATER}"
    )


def _by_adapter_config(given: Mapping[str, Tensor]) -> str | None:
    """What ``adapter_config.json`` says beside a file of an adapter's name."""
    if not isinstance(given, Checkpoint) or not Path(given.path).name.startswith("adapter_model"):
        return None
    beside = Path(given.path).parent / "adapter_config.json"
    content = read_json(beside, error=CheckpointError) if beside.is_file() else {}
    kind = content.get("peft_type") if isinstance(content, dict) else None
    return f"{kind:.40}" if isinstance(kind, str) else "PEFT"
