"""What training code puts around a state dict: entries beside it, and prefixes before its names."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError, brief, listed
from ._spelling import WRAPPERS as WRAPPED
from ._spelling import unwrapped

# Keys under which a network's state dict is found whatever stands beside it. Averaged copies
# ("ema") are no synonyms.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "model_state",
    "module",
    "net",
    "network",
    "weights",
    "params",
)
_DEPTH = 3  # {"model": {"module": {"state_dict": ...}}}


def find_state_dict(
    path: Path,
    content: Any,
    key: str | None = None,
    is_tensor: Callable[[Any], bool] = lambda value: isinstance(value, Tensor),
    view: Callable[[Any], Any] = lambda value: value,
) -> Mapping[str, Any]:
    """The state dict in what a torch file holds.

    Followed are, a few levels deep: the entry named ``key``; else the one of ``WRAPPERS`` that
    holds tensors; else the only entry that is a dict of tensors. Where that leaves several, the
    caller has to say which.

    Args:
        is_tensor: tells tensors, or what stands for them.
        view: gives the mapping that a value stands for; other values unchanged.

    Raises:
        CheckpointError: no state dict, several, or no entry ``key``.
    """

    known: dict[
        tuple[int, int], bool
    ] = {}  # mappings may be shared: each is looked into once at a depth

    def holds(value: Any, depth: int) -> bool:
        """Whether a value is a mapping with tensors in it, or in mappings in it."""
        key = id(value), depth
        if key not in known:
            inside = view(value)
            known[key] = isinstance(inside, Mapping) and any(
                is_tensor(each) or (depth > 0 and holds(each, depth - 1))
                for each in inside.values()
            )
        return known[key]

    def chosen(content: Mapping) -> list[str]:
        usual = [name for name in WRAPPERS if name in content and holds(content[name], _DEPTH)]
        return usual or [
            name
            for name, value in content.items()
            # A module's extra state may be a dict with tensors: it stands inside a state dict, not
            # around it.
            if isinstance(name, str) and not name.endswith("_extra_state") and holds(value, 0)
        ]

    content = view(content)
    if key is not None:
        content = view(_entry(path, content, key, view))
    for _ in range(_DEPTH + 1):
        if not isinstance(content, Mapping):
            break
        names = chosen(content)
        if len(names) > 1:
            raise CheckpointError(
                f"checkpoint '{path}' holds several state dicts, {listed(names)}: "
                f"name one, as in load_checkpoint(path, key={brief(names[0])!r})"
            )
        if not names:
            break
        content = view(content[names[0]])
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"checkpoint '{path}' holds a {type(content).__name__}, expected a state dict: name -> "
            "tensor"
        )
    if content and not any(is_tensor(value) for value in content.values()):
        raise CheckpointError(
            f"checkpoint '{path}' has no tensors at its top level, only {listed(content)}; "
            f"save the state dict alone, or under one of {', '.join(WRAPPERS)}, or name the entry "
            "by key="
        )
    return content


def _entry(path: Path, content: Any, key: str, view: Callable[[Any], Any]) -> Any:
    if isinstance(content, Mapping):
        if key in content:
            return content[key]
        first, _, rest = key.partition(".")
        if rest and first in content:
            return _entry(path, view(content[first]), rest, view)
        raise CheckpointError(
            f"checkpoint '{path}' has no entry {brief(key)!r}; it has {listed(content)}"
        )
    raise CheckpointError(
        f"checkpoint '{path}': there is no entry {key!r} in a {type(content).__name__}"
    )


def bare_names(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Stored name -> name without what DistributedDataParallel, FSDP, torch.compile and their like
    put into it."""
    bare = {name: unwrapped(name) for name in names}
    while bare and all(name.startswith("module.") for name in bare.values()):
        bare = {stored: name.removeprefix("module.") for stored, name in bare.items()}
    if len(set(bare.values())) < len(bare):
        raise CheckpointError(
            f"checkpoint '{path}': without the wrappers' names ({', '.join(WRAPPED)}) two tensors "
            f"have one name; load_checkpoint(path, unwrap=False) gives them as stored"
        )
    return bare
