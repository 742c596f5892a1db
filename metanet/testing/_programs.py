"""Random programs: networks that nobody would write, to find what the rules for operations get
wrong together.

A program is drawn step by step: each step applies an operation, drawn from :data:`STEPS`, to
tensors that earlier steps made. New kinds of steps are one function with ``@step``; what a step
cannot be applied to it declines by returning ``None``, and another one is drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = Mapping[str, Tensor]
Run = Callable[[State, list[Tensor]], Tensor]
STEPS: dict[str, Callable[["Draw", list[Tensor]], Run | None]] = {}
"""Every kind of step by its name."""


def step(
    function: Callable[["Draw", list[Tensor]], Run | None],
) -> Callable[["Draw", list[Tensor]], Run | None]:
    """Register a kind of step.

    A function from what is drawn and the tensors so far to what makes the next tensor, or ``None``.
    """
    STEPS[function.__name__] = function
    return function


@dataclass
class Draw:
    """The source of randomness of one program, and the parameters and buffers it has made."""

    generator: torch.Generator
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)

    def below(self, n: int) -> int:
        return int(torch.randint(n, (), generator=self.generator))

    def pick(self, *choices: Any) -> Any:
        return choices[self.below(len(choices))]

    def tensor(self, tensors: list[Tensor]) -> int:
        """One of the tensors, more often a late one."""
        return max(self.below(len(tensors)), self.below(len(tensors)))

    def parameter(self, *shape: int) -> str:
        """A new parameter, now and then one of the same shape that is there already (a tied
        weight)."""
        same = [
            n
            for n, p in self.parameters.items()
            if tuple(p.shape) == shape and p.is_floating_point()
        ]
        if same and self.below(4) == 0:
            return self.pick(*same)
        name = f"p{len(self.parameters)}"
        scale = max(1, shape[-1]) ** -0.5
        self.parameters[name] = nn.Parameter(torch.randn(shape, generator=self.generator) * scale)
        return name

    def buffer(self, values: Tensor) -> str:
        """A new buffer of integers or truth values, in the state dict."""
        name = f"b{len(self.buffers)}"
        self.buffers[name] = values
        return name


class Program(nn.Module):
    """A random program as a module. ``program.kinds`` names its steps.

    Args:
        seed: which one.
        length: number of steps before the outputs.
        kinds: names of the steps to draw from, all of :data:`STEPS` when left out. A seed is
            another program whenever one is added.
    """

    def __init__(self, seed: int, length: int = 12, kinds: Sequence[str] = ()) -> None:
        super().__init__()
        draw = Draw(torch.Generator().manual_seed(seed))
        self.example = torch.randn(2, draw.pick(3, 5), draw.pick(4, 6), generator=draw.generator)
        tensors = [self.example]
        self.runs: list[Run] = []
        self.kinds: list[str] = []
        names = list(kinds or STEPS)
        tries = 0
        while len(self.runs) < length and tries < 20 * length:
            tries += 1
            kind = draw.pick(*names) if self.runs else "linear"
            run = STEPS[kind](draw, tensors)
            if run is None:
                continue
            with torch.no_grad():
                out = run({**draw.parameters, **draw.buffers}, tensors)
            if out.numel() > 5_000 or out.ndim > 6 or not out.numel() or not out.isfinite().all():
                continue
            tensors.append(out)
            self.runs.append(run)
            self.kinds.append(kind)
        self.heads: list[tuple[int, str | None]] = []
        for i in {len(tensors) - 1, draw.tensor(tensors), draw.tensor(tensors)}:
            x = tensors[i]
            width = x.shape[-1] if x.ndim > 1 else 1
            self.heads.append(
                (i, draw.parameter(3, width) if x.ndim > 1 and draw.below(4) else None)
            )
        for name, parameter in draw.parameters.items():
            self.register_parameter(name, parameter)
        for name, values in draw.buffers.items():
            self.register_buffer(name, values)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        state: State = {
            **dict(self.named_parameters(remove_duplicate=False)),
            **dict(self.named_buffers(remove_duplicate=False)),
        }
        tensors = [x]
        for run in self.runs:
            tensors.append(run(state, tensors))
        return tuple(
            tensors[i] if w is None else F.linear(tensors[i], state[w]) for i, w in self.heads
        )


def some_axis(draw: Draw, x: Tensor, low: int = 1) -> int | None:
    """One of the axes from ``low`` on that has more than one item."""
    axes = [a for a in range(low, x.ndim) if x.shape[a] > 1]
    return draw.pick(*axes) if axes else None
