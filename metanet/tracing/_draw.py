"""One set of example inputs for a network of transformers in the making, and the register of what makes
them."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ._examples import BATCHES

TEXT = ("text_encoder", "text_config", "encoder")
VISION = ("vision_config", "encoder", "backbone_config")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One set of inputs in the making."""

    model: nn.Module
    step: int  # 0: the example, 1: its check
    parameters: Mapping[str, inspect.Parameter]
    generator: torch.Generator = field(default_factory=torch.Generator)

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def batch(self) -> int:
        return BATCHES[self.step]

    def takes(self, name: str) -> bool:
        return name in self.parameters

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, generator=self.generator)

    def integers(self, allowed: list[int], *shape: int) -> Tensor:
        picks = torch.randint(len(allowed), (self.batch, *shape), generator=self.generator)
        return torch.tensor(allowed)[picks]

    def part(self, *names: str) -> Any:
        """The first of these configurations that is nested in the whole one; else the whole one."""
        nested = (getattr(self.config, name, None) for name in names)
        return next((each for each in nested if hasattr(each, "to_dict")), self.config)

    def find(self, *names: str, default: Any = None, within: Any = None) -> Any:
        """The first of these settings that the configuration, or one nested in it, has."""
        for config in nested(self.config if within is None else within):
            for name in names:
                value = getattr(config, name, None)
                if value is not None:
                    return value
        return default


INPUTS: dict[str, Callable[[Draw], Any]] = {}
OFFERED: set[str] = set()


def makes(*names: str, offered: bool = True) -> Callable:
    """Register a function that makes the input called ``names``; one that returns ``None`` leaves
    it out.

    ``offered``: given whenever ``forward`` takes it, else only where ``forward`` has no default for
    it.
    """

    def register(make: Callable[[Draw], Any]) -> Callable[[Draw], Any]:
        for name in names:
            INPUTS[name] = make
            if offered:
                OFFERED.add(name)
        return make

    return register


def one(value: Any) -> Any:
    """The largest where a setting is given layer by layer."""
    return max(value) if isinstance(value, list | tuple) and value else value


def nested(config: Any) -> Iterator[Any]:
    """The configuration and those in it, breadth first."""
    level = [config]
    while level:
        yield from level
        inside = chain.from_iterable(vars(outer).values() for outer in level)
        level = [value for value in inside if _is_config(value)]


def _is_config(value: Any) -> bool:
    return hasattr(value, "model_type") and hasattr(value, "to_dict")


def reads(draw: Draw, what: str) -> bool:
    """Whether this is a language model that reads images or sound where its text has placeholders:
    text will do."""
    placeholder = draw.find(f"{what}_token_id", f"{what}_token_index")
    return draw.takes("input_ids") and placeholder is not None
