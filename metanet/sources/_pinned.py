"""What a configuration may not ask for: code, weights and configurations from elsewhere.

A ``config.json`` is data of whoever wrote it, and transformers obeys it far: ``attn_implementation:
"org/kernel"`` fetches and imports code from the Hub, ``auto_map`` names code in the folder,
``use_pretrained_backbone`` loads weights. Networks here have random weights and eager attention, so
nothing of that is needed: :func:`pinned` takes it out before transformers sees it, and
:func:`offline` shuts the Hub while a network is made.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import MetanetError

_LOCAL = frozenset({None, "eager", "sdpa", "flex_attention", "batched_mm", "grouped_mm"})
_IMPLEMENTATIONS = frozenset(
    f"{before}{kind}_implementation{after}"
    for kind in ("attn", "experts")
    for before, after in (("", ""), ("_", ""), ("_", "_internal"))
)
# auto_map, ...: code of a repository; quantization_config: its kernels; pretrained,
# checkpoint_path: weights for timm
_TAKEN_OUT = frozenset(
    {"auto_map", "trust_remote_code", "quantization_config", "kernel_config", "use_kernels"}
    | {
        "pretrained",
        "checkpoint_path",
        "use_pretrained_backbone",
        "pretrained_cfg_overlay",
        "cache_dir",
    }
)
_NAMES = frozenset({"backbone", "architecture"})  # of networks of timm, or of repositories


def pinned(fields: Mapping[str, Any], who: str) -> dict[str, Any]:
    """The fields of a configuration without those that reach for code, weights or files; nested
    ones too.

    >>> pinned({"model_type": "gpt2", "attn_implementation": "org/kernel", "n_layer": 2}, "hf:a")
    {'model_type': 'gpt2', 'n_layer': 2}

    Raises:
        MetanetError: a backbone of the Hub or of another folder, without which there is no network.
    """
    try:
        return {
            key: _inner(value, who)
            for key, value in fields.items()
            if not _reaches_out(key, value, who)
        }
    except RecursionError:
        raise MetanetError(f"{who}: its configuration is nested too deep") from None


def refuse_unpinned(arguments: Mapping[str, Any], who: str) -> None:
    """The same for what is given by ``arch_args.``, where it is refused rather than taken out.

    Raises:
        MetanetError: names the argument.
    """
    local = pinned(arguments, who)
    for key, value in arguments.items():
        if key not in local or local[key] != value:
            raise MetanetError(
                f"{who} is made of local code, with random weights: remove arch_args.{key}. "
                "Weights come from a checkpoint; attention is eager here"
            )


@contextmanager
def offline() -> Iterator[None]:
    """While open, the Hugging Face Hub is out of reach; its cache is not.

    As with ``HF_HUB_OFFLINE=1``.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _inner(value: Any, who: str) -> Any:
    if isinstance(value, Mapping):
        return pinned(value, who)
    if isinstance(value, list | tuple):
        return [_inner(item, who) for item in value]
    return value


def _reaches_out(key: str, value: Any, who: str) -> bool:
    if key in _IMPLEMENTATIONS:
        return not all(leaf in _LOCAL for leaf in _leaves(value))
    if key in _NAMES and isinstance(value, str) and any(mark in value for mark in "/\\:"):
        raise MetanetError(
            f"{who}: its configuration takes the part {key}={value[:100]!r} from a repository or "
            "another folder, which no configuration may here. Give the part itself, as backbone_config"
        )
    return key in _TAKEN_OUT


def _leaves(value: Any) -> Iterator[Any]:
    """The implementations that are named: one, or one for each part of the network."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _leaves(part)
    else:
        yield value if isinstance(value, str | None) else "unknown"
