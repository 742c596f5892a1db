"""Running both networks over data and looking at their neurons."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..architecture import Architecture
from ..errors import MetanetError
from ..evaluation import batch_inputs
from ..graph import real_parts
from ..symmetry import derive
from ..tracing import Trace, is_integer, record, tensors_in
from ._taps import Tap, find_taps


class NeuronRunner:
    """Runs states of one architecture by its recording.

    The recording is made anew for every shape of inputs.

    Args:
        arch: with its recording.
        model: the module.
        device: where to run.

    Raises:
        MetanetError: the architecture has no recording, as it was loaded from a file.
    """

    def __init__(self, arch: Architecture, model: nn.Module, device: torch.device) -> None:
        if arch.recording is None:
            raise MetanetError(
                "neurons are run by a recording: give arch=metanet.trace(model, inputs)"
            )
        self.arch, self.model, self.device = arch, model, device
        self._example = arch.recording
        self._recordings: dict[Any, tuple[Trace, list[Tap]]] = {}

    def samples(
        self,
        sides: Sequence[Mapping[str, Tensor]],
        data: Iterable[Any],
        positions: int | None = None,
    ) -> Iterator[list[tuple[Tap, list[Tensor]]]]:
        """For every batch what every tap shows in each state, ``(neurons, samples)``.

        Args:
            sides: state dicts.
            data: batches.
            positions: at most so many samples per tap and batch, evenly spaced.

        Raises:
            MetanetError: no batch, or one that is no batch.
        """
        states: list[dict[str, Tensor]] | None = None
        for batch in data:
            args, kwargs = batch_inputs(batch)
            trace, taps = self._recording(args, kwargs)
            if states is None:
                states = [self._prepared(trace, side) for side in sides]
            inputs = [t.to(self.device) for t in tensors_in((args, kwargs))]
            needed = {tap.value for tap in taps}
            mask = kwargs.get("attention_mask")
            shown = []
            with torch.no_grad():
                for state in states:
                    values = trace.replay(state, *inputs, keep=needed)
                    shown.append([_flat(values[t.value], t.axis, mask, positions) for t in taps])
            yield [(tap, [side[n] for side in shown]) for n, tap in enumerate(taps)]
        if states is None:
            raise MetanetError(
                "the data yielded no batch: is it an iterator that was used up, or an empty folder?"
            )

    def _recording(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Trace, list[Tap]]:
        shapes = tuple((tuple(t.shape), t.dtype) for t in tensors_in((args, kwargs)))
        key = (shapes, tuple(kwargs))
        if key not in self._recordings:
            trace = record(self.model, args, kwargs)
            # the traced example rules out what only this shape allows
            solved = derive(trace, self._example)
            self._recordings[key] = trace, find_taps(trace, solved, self.arch.spec)
        return self._recordings[key]

    def _prepared(self, trace: Trace, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters on the device, in the dtype that the model has them in; tied names from
        one another."""
        out = {}
        for name, number in trace.parameters.items():
            value = trace.values[number]
            stored = next((n for n in (name, *value.names) if n in state), name)
            if stored not in state and is_integer(value.dtype):  # checkpoints may lack integers
                continue
            dtype = getattr(torch, value.dtype)
            out[name] = state[stored].detach().to(self.device, dtype)
        return out


def _flat(value: Tensor, axis: int, mask: Tensor | None, positions: int | None) -> Tensor:
    """A value as ``(neurons, samples)``, padding left out; real and imaginary parts are samples of
    their own."""
    if mask is not None:
        value, axis = _without_padding(value, axis, mask.to(value.device).bool())
    samples = real_parts(value).movedim(axis, 0).flatten(1)
    count = samples.shape[1]
    if positions is None or count <= positions:
        return samples
    evenly_spaced = torch.linspace(0, count - 1, positions).long()
    return samples[:, evenly_spaced.to(value.device)]


def _without_padding(value: Tensor, axis: int, mask: Tensor) -> tuple[Tensor, int]:
    """A value without the tokens that a mask ``(batch, tokens)`` leaves out, and its axis then.

    ::

        mask [[1, 1, 0], [1, 0, 0]]    (2, 3, neurons)  ->  (3, neurons)
                                       (6, neurons)     ->  (3, neurons)
    """
    if axis > 1 and value.shape[:2] == mask.shape:
        return value[mask], axis - 1
    if axis > 0 and len(value) == mask.numel():  # linear layers run on (batch x tokens, neurons)
        return value[mask.flatten()], axis
    return value, axis
