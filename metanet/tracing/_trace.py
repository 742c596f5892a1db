"""The recording of one forward pass: values, and the operations between them."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for a tensor among the arguments of an operation: the number of a :class:`Value`."""

    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One tensor of the recording.

    Attributes:
        shape, dtype: of the recorded example; dtype as text, e.g. ``"float32"``.
        origin: ``"input"``, ``"parameter"`` (an entry of the state dict, buffers included, of
            whatever dtype), ``"constant"`` (depends on neither), ``"unknown"`` (a constant on the
            meta device whose values nothing tells) or ``"result"`` of an operation.
        names: state dict names of a parameter; several when tied.
        layout: strides and storage offset, which ``as_strided`` goes by.
    """

    shape: tuple[int, ...]
    dtype: str
    origin: str
    names: tuple[str, ...] = ()
    layout: tuple[tuple[int, ...], int] = ((), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation.

    Attributes:
        name: without overload, in-place writes under the name of the functional operation:
            ``"aten.relu"``.
        call: a function that writes into none of its arguments, save for the few that have no
            functional twin; ``None`` for writes to memory that several tensors share in a way that
            is not known.
        args, kwargs: as called, tensors replaced by :class:`Ref`.
        outputs: value numbers; ``None`` where an output was no tensor.
        module: dotted path of the module whose forward was running.
    """

    name: str
    call: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int | None, ...]
    module: str = ""

    @property
    def short_name(self) -> str:
        """The name without that of its library: ``"relu"``."""
        return self.name.partition(".")[2]

    def inputs(self) -> tuple[int, ...]:
        """Numbers of the values read, in order of appearance."""
        return tuple(r.value for r in references((self.args, self.kwargs)))

    def __reduce__(self) -> tuple[Any, ...]:
        """PyTorch's operations are no objects that pickle knows: they travel by their names."""
        call = None if self.call is None else str(self.call)
        return _op, (self.name, call, self.args, dict(self.kwargs), self.outputs, self.module)


def _op(name: str, call: str | None, *rest: Any) -> Op:
    """The inverse of :meth:`Op.__reduce__`: ``"aten.add.Tensor"`` is
    ``torch.ops.aten.add.Tensor``."""
    function = None if call is None else attrgetter(call)(torch.ops)
    args, kwargs, outputs, module = rest
    return Op(name=name, call=function, args=args, kwargs=kwargs, outputs=outputs, module=module)


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What happened between a network's inputs and its outputs, dead operations removed.

    Attributes:
        values: every tensor, numbered by position.
        ops: in the order of execution.
        inputs, outputs: value numbers.
        parameters: value number of every parameter, by each of its state dict names, in state dict
            order. What the network owns is no constant, whatever values it has when traced: a mask
            of ones may be trained.
        others: state dict names that hold no floating-point numbers (integer and bool buffers).
        constants: the tensors that depend on neither inputs nor parameters, by value number, never
            on the meta device.
        warnings: what the reader of results should know (control flow that depended on data, ...).
        reads: values whose numbers Python read (``item``, ``tolist``, a branch), with ``file:line``
            of the first time.
        defaults: what the parameters of integers and bools held when traced, by value number, never
            on the meta device.
    """

    values: tuple[Value, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    parameters: Mapping[str, int]
    others: tuple[str, ...] = ()
    constants: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()
    reads: Mapping[int, str] = field(default_factory=dict)
    defaults: Mapping[int, Tensor] = field(default_factory=dict, repr=False)

    def replay(
        self, state: Mapping[str, Tensor], *inputs: Tensor, keep: Collection[int] | None = None
    ) -> dict[int, Tensor]:
        """Run the recording again with other parameters and inputs of the same shapes.

        Works under ``torch.func`` transforms, so that ``vmap`` over stacked state dicts runs many
        networks at once.

        Args:
            state: parameters by name. Integers and bools that are left out are as they were when
                traced.
            inputs: tensors of exactly the recorded shapes, in the order they were found among the
                arguments.
            keep: numbers of the values to return; all others are dropped once nothing reads them
                any more.

        Returns:
            Every computed value by its number.

        Raises:
            NotImplementedError: the recording holds a write to memory shared in an unknown way, or
                was made on the meta device and reads a constant whose values are not known.
        """
        device = inputs[0].device if inputs else None
        env: dict[int, Tensor] = {
            n: t.to(device) for n, t in (*self.defaults.items(), *self.constants.items())
        }
        for name, number in self.parameters.items():
            if name in state:
                env[number] = _plain(state[name])
        env.update(zip(self.inputs, inputs, strict=True))
        if keep is None:
            for op in self.ops:
                self._replay_one(op, env, device)
            return env
        ends = self._last_uses()
        for place, op in enumerate(self.ops):
            self._replay_one(op, env, device)
            for touched in {*op.inputs(), *op.outputs}:
                if touched is not None and touched not in keep and ends[touched] == place:
                    env.pop(touched, None)
        return {n: t for n, t in env.items() if n in keep}

    def _replay_one(self, op: Op, env: dict[int, Tensor], device: torch.device | None) -> None:
        """Run one operation on the values so far, and add its results to them."""
        self._refuse_to_replay(op, env)
        args, kwargs = _arguments(op, env)
        if kwargs.get("device") is not None:
            kwargs["device"] = device
        results = _call(op.call, args, kwargs)
        for number, tensor in zip(op.outputs, results, strict=False):
            if number is not None:
                env[number] = _plain(tensor) if isinstance(tensor, Tensor) else tensor

    def _refuse_to_replay(self, op: Op, env: Mapping[int, Tensor]) -> None:
        lacking = [n for n in op.inputs() if n not in env]
        if any(self.values[n].origin == "unknown" for n in lacking):
            why = "reads a constant whose values the meta device did not tell"
        elif op.call is None:
            why = "is no function"
        else:
            return
        raise NotImplementedError(
            f"{op.name} in {op.module or 'the network'} cannot be replayed: it {why}"
        )

    def _last_uses(self) -> dict[int | None, int]:
        """The operation after which nothing reads a value any more, by its place."""
        ends: dict[int | None, int] = {}
        for place, op in enumerate(self.ops):
            ends.update(dict.fromkeys((*op.inputs(), *op.outputs), place))
        return ends

    def known(self, but: Collection[str] = ()) -> dict[int, Tensor]:
        """Constants, and what follows from them and the integers that the network owned when
        traced, by value number.

        Args:
            but: integers that are not to be counted on.
        """
        env = dict(self.constants)
        for number, tensor in self.defaults.items():
            if set(but).isdisjoint(self.values[number].names):
                env[number] = tensor
        if not self.defaults:
            return env
        # ids (owned) + 1 (constant) is known; ids + x (input) is not, nor what follows from it
        for op in self.ops:
            inputs = op.inputs()
            is_known = inputs and env.keys() >= set(inputs)
            if op.call is None or not is_known:
                continue
            results = _call(op.call, *_arguments(op, env))
            for output, tensor in zip(op.outputs, results, strict=False):
                if output is not None:
                    env[output] = tensor
        return env


def _arguments(op: Op, env: Mapping[int, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of an operation, with tensors for references."""
    kwargs = {key: _filled(value, env) for key, value in op.kwargs.items()}
    return _filled(op.args, env), kwargs


def _filled(x: Any, env: Mapping[int, Tensor]) -> Any:
    """Arguments with tensors for references."""
    if isinstance(x, Ref):
        return env[x.value]
    if isinstance(x, (list, tuple)):
        return type(x)([_filled(v, env) for v in x])
    return x


def _call(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """What a function returns, then what it writes without returning it; its arguments are left
    alone."""
    schema = call._schema
    # What was laid out in memory as these need it may now be laid out otherwise.
    if call in (aten.view.default, aten._unsafe_view.default):
        call = aten.reshape.default
    elif call in _IN_ORDER:
        args = (args[0].contiguous(), *args[1:])
    if not schema.is_mutable:
        return _as_list(call(*args, **kwargs))
    args = _cloned(args)
    kwargs = {key: _cloned(value) for key, value in kwargs.items()}
    results = _as_list(call(*args, **kwargs))
    for tensor in tensors_in(_written(schema, args, kwargs)):
        if not any(tensor is result for result in results):
            results.append(tensor)
    return results


def _as_list(out: Any) -> list[Any]:
    """What a function returned, be it several things, one or nothing."""
    if out is None:
        return []
    return list(out) if isinstance(out, (list, tuple)) else [out]


def _written(schema: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments that a function has written into."""
    names = [argument.name for argument in schema.arguments]
    by_name = {**dict(zip(names, args, strict=False)), **kwargs}
    written: list[Any] = []
    for argument in schema.arguments:
        alias = argument.alias_info
        if alias is not None and alias.is_write:
            written.append(by_name.get(argument.name))
    return written


_IN_ORDER = {
    aten.as_strided.default, aten.as_strided_scatter.default, aten.view.dtype, aten.view_as_complex.default,
}  # fmt: skip


def _plain(tensor: Tensor) -> Tensor:
    """A tensor that is not conjugated or negated on reading: ``view_as_real`` refuses one that
    is."""
    is_lazy = tensor.is_conj() or tensor.is_neg()
    return tensor.resolve_conj().resolve_neg() if is_lazy else tensor


def _cloned(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.clone()
    if isinstance(x, (list, tuple)):
        return type(x)(map(_cloned, x))
    return x


def references(x: Any) -> Iterator[Ref]:
    """All references in nested arguments, in order."""
    if isinstance(x, Ref):
        yield x
    elif isinstance(x, Mapping):
        for v in x.values():
            yield from references(v)
    elif isinstance(x, (list, tuple)):
        for v in x:
            yield from references(v)


def is_integer(dtype: torch.dtype | str) -> bool:
    """Whether a dtype holds whole numbers or truth values.

    It may be given by its name, as in :class:`Value`.
    """
    return str(dtype).removeprefix("torch.") in _INTEGERS


_INTEGERS = {"bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}


def tensors_in(x: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclasses, in order."""
    if isinstance(x, Tensor):
        yield x
        return
    for part in _parts(x):
        yield from tensors_in(part)


def _parts(x: Any) -> Iterable[Any]:
    """What a container holds; nothing of all else."""
    if isinstance(x, str):
        return ()
    if isinstance(x, Mapping):
        return x.values()
    if isinstance(x, Sequence):
        return x
    if is_dataclass(x) and not isinstance(x, type):
        return [getattr(x, field.name) for field in fields(x)]
    return ()
