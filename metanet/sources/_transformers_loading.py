"""What transformers does to a checkpoint while it loads it, as a plan: names come in, and no tensor
is read."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Read = Callable[[str], Tensor]


class Described(NamedTuple):
    """All that conversions ask of a module. It pickles, which hooks of modules may not."""

    config: Any
    shapes: Mapping[str, torch.Size]
    dtypes: Mapping[str, torch.dtype]

    def get_parameter(self, name: str) -> Tensor:
        """One without data."""
        if name not in self.shapes:
            raise AttributeError(f"there is no {name}")  # as modules do
        return torch.empty(self.shapes[name], dtype=self.dtypes[name], device="meta")


class Step(NamedTuple):
    """Tensors that are stacked, joined, split or turned together.

    Attributes:
        converter: a ``WeightConverter`` of transformers.
        layer: the name of the module that its patterns made of the stored names.
        stored: pattern -> stored names in the order of their places in a stack.
    """

    converter: Any
    layer: str
    stored: dict[str, list[str]]

    def names(self) -> list[str]:
        """All stored names."""
        return [name for names in self.stored.values() for name in names]

    def forward(self, read: Read, module: Described) -> dict[str, Tensor]:
        """The module's tensors made of the stored ones, by name."""
        converter = deepcopy(self.converter)
        for pattern, names in self.stored.items():
            converter.collected_tensors[pattern] = [read(name) for name in names]
        return _alone(converter.convert(self.layer, model=module, config=module.config))

    def backward(self, made: Iterable[str], read: Read, stored: Described) -> dict[str, Tensor]:
        """The stored tensors made of the module's, by name.

        Args:
            made: names of the module, as :meth:`forward` gives them.
            read: reads them.
            stored: the stored tensors in place of the module's: here their shapes are those to
                reach.

        Raises:
            ValueError: the conversion has no inverse that gives these names.
        """
        back = self.converter.reverse_transform()
        made = list(made)
        if [type(operation).__name__ for operation in back.operations] == ["Chunk"]:
            # Joined tensors need not have been of one size, but Chunk makes them so.
            names = [
                name
                for pattern in self.converter.source_patterns
                for name in self.stored.get(pattern, ())
            ]
            dim = back.operations[0].dim
            parts = read(made[0]).split([stored.shapes[name][dim] for name in names], dim)
            return dict(zip(names, parts, strict=True))
        tensors: dict[str, Any] = {
            pattern: [read(name)] for pattern, name in zip(back.source_patterns, made, strict=True)
        }
        for operation in back.operations:
            tensors = operation.convert(
                tensors, source_patterns=back.source_patterns, target_patterns=back.target_patterns,
                full_layer_name=self.names()[0], model=stored, config=stored.config, missing_keys=None,
            )  # fmt: skip
        tensors = _alone(tensors)
        results: dict[str, Tensor] = {}
        # Results are told apart by pattern and place, not by name: earlier renamings may have
        # changed that. Of mixtral, "experts.*.w1.weight" at place 3 is "experts.3.w1.weight".
        for pattern, source in zip(
            back.target_patterns, self.converter.source_patterns, strict=True
        ):
            for place, name in enumerate(self.stored.get(source, ())):
                key = pattern.replace("*", str(place))
                if key not in tensors and len(self.stored[source]) == 1:
                    key = pattern
                if key not in tensors:
                    raise ValueError(f"{back} gives {', '.join(tensors)}, but not {name}")
                results[name] = tensors[key]
        return results


@dataclass
class Plan:
    """How the tensors of a module come out of those of a checkpoint.

    Attributes:
        names: name of the module -> stored name, where the tensor is taken as it is.
        steps: the others.
        unknown: stored names that the module has no place for.
        ignored: stored names that transformers passes over without a word.
        unsaved: names of the module that transformers never stores, because their values follow
            from the configuration.
    """

    names: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unsaved: list[str] = field(default_factory=list)


def of_transformers(module: nn.Module) -> bool:
    """Whether a module is a ``PreTrainedModel``; transformers is not imported for the question."""
    return any(
        c.__name__ == "PreTrainedModel" and c.__module__.startswith("transformers.")
        for c in type(module).__mro__
    )


def plan_loading(model: nn.Module, names: Iterable[str]) -> Plan:
    """What ``from_pretrained`` does with tensors of these names.

    Args:
        model: a ``PreTrainedModel``.
        names: the checkpoint's.
    """
    names = list(names)
    entries = model.state_dict()
    plan = Plan()
    steps: dict[str, Step] = {}
    ignored = _ignored(model, names, entries)
    for name, new, pattern, converter in _renamed(model, names, entries):
        if new not in entries:
            (plan.ignored if ignored(name, new) else plan.unknown).append(name)
        elif pattern is None:
            plan.names.setdefault(new, name)
        else:
            step = steps.setdefault(new, Step(converter, new, {}))
            step.stored.setdefault(pattern, []).append(name)
    plan.steps = [step for new, step in steps.items() if new not in plan.names]
    used = {
        *plan.names.values(),
        *plan.unknown,
        *plan.ignored,
        *(n for step in plan.steps for n in step.names()),
    }
    plan.ignored += [name for name in names if name not in used]  # a second source of one tensor
    unsaved = getattr(model, "_keys_to_ignore_on_save", None) or ()
    plan.unsaved = [name for name in entries if name in unsaved]
    return plan


def _renamed(
    model: Any, names: list[str], entries: Mapping[str, Tensor]
) -> Iterator[tuple[str, str, str | None, Any]]:
    """Stored name, name of the module, and where more than the name changes the pattern and its
    converter."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            dot_natural_key,
            rename_source_key,
        )
    except ImportError:  # before version 5 nothing but names changed
        yield from ((name, _renamed_before_5(model, name, entries), None, None) for name in names)
        return
    mapping = get_model_conversion_mapping(model)
    renamings = [rule for rule in mapping if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in mapping if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    prefix, tensors = model.base_model_prefix, dict(entries)
    for name in sorted(names, key=dot_natural_key):  # their order decides the places in a stack
        new, pattern = rename_source_key(name, renamings, converters, prefix, tensors)
        if new not in entries and name in entries:
            new, pattern = rename_source_key(name, [], [], prefix, tensors)
        yield name, new, pattern, None if pattern is None else by_pattern[pattern]


_OLD_NAMES = {
    "LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias",
    ".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1",
}  # fmt: skip


def _renamed_before_5(model: Any, name: str, entries: Mapping[str, Tensor]) -> str:
    new = name
    if name not in entries:
        for old, now in _OLD_NAMES.items():
            new = new.removesuffix(old) + now if new.endswith(old) else new
    conversions = getattr(model, "_checkpoint_conversion_mapping", None) or {}
    for pattern, now in conversions.items():
        new, count = re.subn(pattern, now, new)
        if count:
            break
    prefix = f"{model.base_model_prefix}."
    ways = [new, new.removeprefix(prefix), prefix + new, name]
    return next((way for way in ways if way in entries), new)


def _ignored(
    model: Any, names: list[str], entries: Mapping[str, Tensor]
) -> Callable[[str, str], bool]:
    """Whether a stored name that the module lacks is no mistake."""
    patterns = list(model._keys_to_ignore_on_load_unexpected or ())
    buffers = [name for name, _ in model.named_buffers()]
    # Buffers that older versions stored in every layer, or stored at all.
    if any(name.endswith("rotary_emb.inv_freq") for name in buffers):
        patterns.append(r"rotary_emb\.inv_freq")
    if any(name.endswith("position_ids") for name in buffers):
        patterns.append(r"(^|\.)position_ids$")
    prefix = f"{model.base_model_prefix}."
    # Of a network with a head, only the part with this prefix is the module's.
    stored_with = any(name.startswith(prefix) for name in names)
    known_with = any(name.startswith(prefix) for name in entries)
    is_part = prefix != "." and stored_with and not known_with

    def ignored(name: str, new: str) -> bool:
        if is_part and not name.startswith(prefix):
            return True  # the head
        return any(re.search(pattern, new) for pattern in patterns)

    return ignored


def _alone(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value[0] if isinstance(value, list) else value for name, value in tensors.items()}
