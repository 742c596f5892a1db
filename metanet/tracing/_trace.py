"""The recording of one forward pass: values, and the operations between them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
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
        env.update(
            {
                number: _plain(state[name])
                for name, number in self.parameters.items()
                if name in state
            }
        )
        env.update(zip(self.inputs, inputs, strict=True))

        last = (
            {}
            if keep is None
            else {n: i for i, op in enumerate(self.ops) for n in (*op.inputs(), *op.outputs)}
        )
        for place, op in enumerate(self.ops):
            unknown = any(n not in env and self.values[n].origin == "unknown" for n in op.inputs())
            if op.call is None or unknown:
                why = (
                    "reads a constant whose values the meta device did not tell"
                    if unknown
                    else "is no function"
                )
                raise NotImplementedError(
                    f"{op.name} in {op.module or 'the network'} cannot be replayed: it {why}"
                )
            args, kwargs = _filled(op.args, env), {k: _filled(v, env) for k, v in op.kwargs.items()}
            if kwargs.get("device") is not None:
                kwargs["device"] = device
            for number, tensor in zip(op.outputs, _call(op.call, args, kwargs), strict=False):
                if number is not None:
                    env[number] = _plain(tensor) if isinstance(tensor, Tensor) else tensor
            if keep is not None:
                for number in {*op.inputs(), *op.outputs}:
                    if number is None or number in keep:
                        continue
                    if last[number] == place:
                        env.pop(number, None)
        return env if keep is None else {n: t for n, t in env.items() if n in keep}

    def known(self, but: Collection[str] = ()) -> dict[int, Tensor]:
        """Constants, and what follows from them and the integers that the network owned when
        traced, by value number.

        Args:
            but: integers that are not to be counted on.
        """
        env = dict(self.constants)
        env.update((n, t) for n, t in self.defaults.items() if not {*self.values[n].names} & {*but})
        if not self.defaults:
            return env
        for op in self.ops:
            inputs = op.inputs()
            if op.call is None or not inputs or not all(n in env for n in inputs):
                continue
            args, kwargs = _filled(op.args, env), {k: _filled(v, env) for k, v in op.kwargs.items()}
            for number, tensor in zip(op.outputs, _call(op.call, args, kwargs), strict=False):
                if number is not None:
                    env[number] = tensor
        return env


def _filled(x: Any, env: Mapping[int, Tensor]) -> Any:
    """Arguments with tensors for references."""
    if isinstance(x, Ref):
        return env[x.value]
    return type(x)(_filled(v, env) for v in x) if isinstance(x, (list, tuple)) else x


def _call(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """What a function returns, then what it writes without returning it; its arguments are left
    alone."""
    schema = call._schema
    # What was laid out in memory as these need it may now be laid out otherwise.
    if call in (aten.view.default, aten._unsafe_view.default):
        call = aten.reshape.default
    elif call in _IN_ORDER:
        args = (args[0].contiguous(), *args[1:])
    if schema.is_mutable:
        args, kwargs = _cloned(args), {k: _cloned(v) for k, v in kwargs.items()}
    out = call(*args, **kwargs)
    results = list(out) if isinstance(out, (list, tuple)) else [] if out is None else [out]
    if schema.is_mutable:
        given = {**dict(zip((a.name for a in schema.arguments), args, strict=False)), **kwargs}
        written = [
            a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write
        ]
        for tensor in tensors_in([given.get(name) for name in written]):
            if not any(tensor is r for r in results):
                results.append(tensor)
    return results


_IN_ORDER = {
    aten.as_strided.default, aten.as_strided_scatter.default, aten.view.dtype, aten.view_as_complex.default,
}  # fmt: skip


def _plain(tensor: Tensor) -> Tensor:
    """A tensor that is not conjugated or negated on reading: ``view_as_real`` refuses one that
    is."""
    return tensor.resolve_conj().resolve_neg() if tensor.is_conj() or tensor.is_neg() else tensor


def _cloned(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.clone()
    return type(x)(map(_cloned, x)) if isinstance(x, (list, tuple)) else x


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
    elif isinstance(x, Mapping):
        for v in x.values():
            yield from tensors_in(v)
    elif isinstance(x, Sequence) and not isinstance(x, str):
        for v in x:
            yield from tensors_in(v)
    elif is_dataclass(x) and not isinstance(x, type):
        for f in fields(x):
            yield from tensors_in(getattr(x, f.name))
