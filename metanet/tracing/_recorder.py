"""The recorder: a dispatch mode that sees every ATen operation of one forward pass."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import TraceError
from ._meta import Meta, on_meta
from ._outputs import results
from ._prepare import prepare
from ._trace import Op, Ref, Trace, Value, tensors_in
from ._writes import put_back


def record(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
    """Run ``model(*args, **kwargs)`` once on a copy, in eval mode and without gradients, and record it.

    The parameters may be on the meta device: then no weights are needed, and what depends on them is not computed.

    Raises:
        TraceError: no module, no tensor among the inputs or outputs, a forward that raises, uninitialised parameters.
    """
    if not isinstance(model, nn.Module):
        raise TraceError(f"expected a torch.nn.Module to trace, got {type(model).__name__}")
    if not any(True for _ in tensors_in((args, kwargs))):
        raise TraceError(
            f"tracing {type(model).__name__} needs example inputs: trace(model, x) with x as in model(x), "
            "batch size 2 or more"
        )
    lazy = [n for n, p in model.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]
    if lazy:
        raise TraceError(
            f"{type(model).__name__} has parameters without a shape yet ({', '.join(lazy[:3])}): run the model once "
            "on example inputs, then trace it"
        )
    # Copies: some models cache tensors on themselves, some write into their inputs, and hooks are added below.
    model, args, kwargs = prepare(model), _copied(args), _copied(kwargs)
    recorder = _Recorder(model)
    for tensor in tensors_in((args, kwargs)):
        recorder.add_input(tensor)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_plain_kernels())
        for name, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(recorder.enter(name)).remove)
            stack.callback(module.register_forward_hook(recorder.leave, always_call=True).remove)
        stack.enter_context(recorder)
        try:
            out = model(*args, **kwargs)
        except TraceError:
            raise
        except Exception as e:
            where = f" (in {recorder.deepest!r})" if recorder.deepest else ""
            raise TraceError(
                f"the forward pass of {type(model).__name__} raised {type(e).__name__}{where}: {e}\n"
                "  Check that model(*inputs) runs in eval mode with the example inputs given to trace()."
            ) from e
    outputs = [recorder.refer(t).value for t in results(out)]
    outputs = [n for n in outputs if recorder.values[n].origin != "constant"]
    if not outputs:
        raise TraceError(f"{type(model).__name__} returned {type(out).__name__} without a tensor that was computed")
    return recorder.finish(tuple(outputs))


@dataclass(frozen=True, slots=True)
class _View:
    """How a tensor came out of another whose memory it shares."""

    whole: Tensor
    call: Any
    name: str
    args: tuple[Any, ...]  # as recorded; the first is the whole
    kwargs: dict[str, Any]
    position: int  # among the outputs
    count: int  # of the outputs


class _Recorder(TorchDispatchMode):
    """Numbers every tensor it meets, and anew when it is written in place, with all that shares its memory."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.values: list[Value] = []
        self.ops: list[Op] = []
        self.numbers: dict[int, int] = {}  # id(tensor) -> value number
        self.alive: list[Tensor] = []  # keeps every numbered tensor, so that no id is used twice
        self.views: dict[int, _View] = {}
        self.parts: dict[int, list[Tensor]] = {}  # id(tensor) -> views of it
        self.stale: set[int] = set()  # views to look at again: their memory was written
        self.constants: dict[int, Tensor] = {}
        self.inputs: list[int] = []
        self.parameters: dict[str, int] = {}
        self.others: list[str] = []
        self.warnings: list[str] = []
        self.path: list[str] = []
        self.deepest = ""
        self.meta = Meta()
        names: dict[int, list[str]] = {}
        state = model.state_dict(keep_vars=True)
        for name, tensor in state.items():
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                names.setdefault(id(tensor), []).append(name)
            else:
                self.others.append(name)
        for name, tensor in state.items():
            if id(tensor) in names:
                if id(tensor) not in self.numbers:
                    self._number(tensor, "parameter", names=tuple(names[id(tensor)]))
                self.parameters[name] = self.numbers[id(tensor)]

    @property
    def module(self) -> str:
        return self.path[-1] if self.path else ""

    def enter(self, name: str) -> Any:
        def push(*_: Any) -> None:
            self.path.append(name)
            self.deepest = name  # where a forward that raises was: `leave` runs for it too

        return push

    def leave(self, *_: Any) -> None:
        self.path.pop()

    def add_input(self, tensor: Tensor) -> None:
        if id(tensor) not in self.numbers:
            self.inputs.append(self._number(tensor, "input"))

    # ---------------------------------------------------------------- numbers

    def _new(self, like: Tensor, origin: str, names: tuple[str, ...] = ()) -> int:
        dtype = str(like.dtype).removeprefix("torch.")
        layout = (like.stride(), like.storage_offset()) if like.layout == torch.strided else ((), 0)
        self.values.append(Value(shape=tuple(like.shape), dtype=dtype, origin=origin, names=names, layout=layout))
        return len(self.values) - 1

    def _number(self, tensor: Tensor, origin: str, known: Tensor | None = None, names: tuple[str, ...] = ()) -> int:
        """Number a tensor; of a constant keep the values, which may be written over later.

        Args:
            known: the values of a constant, if not those of ``tensor`` itself (which may be on the meta device).
        """
        if origin == "constant":
            known = tensor if known is None else known
            if known.is_meta:
                origin = "unknown"
        number = self._new(tensor, origin, names)
        if origin == "constant":
            self.constants[number] = known.detach().clone()
        if id(tensor) not in self.numbers:
            self.alive.append(tensor)
        self.numbers[id(tensor)] = number
        return number

    def refer(self, tensor: Tensor) -> Ref:
        """The tensor's present value."""
        if id(tensor) not in self.numbers:  # a tensor from outside: a constant of the network
            self._number(tensor, "constant")
        if id(tensor) in self.stale:
            view = self.views[id(tensor)]
            self.stale.discard(id(tensor))
            args = (self.refer(view.whole), *view.args[1:])
            self.numbers[id(tensor)] = self._emit(
                view.call, view.name, args, view.kwargs, tensor, view.position, view.count
            )
        return Ref(self.numbers[id(tensor)])

    def _refer(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            return self.refer(x)
        return type(x)(map(self._refer, x)) if type(x) in (list, tuple) else x

    def _emit(
        self, call: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], like: Tensor,
        position: int = 0, count: int = 1,
    ) -> int:  # fmt: skip
        """An operation of ours that yields the present value of ``like``; returns the value's number."""
        op = Op(name=name, call=call, args=args, kwargs=kwargs, outputs=(), module=self.module)
        if call is not None and all(v in self.constants for v in op.inputs()):
            out = self.meta.evaluate(call, args, kwargs, self.constants)
            number = self._new(like, "constant")
            self.constants[number] = out[position] if isinstance(out, (list, tuple)) else out
            return number
        number = self._new(like, "result")
        self.ops.append(replace(op, outputs=tuple(number if i == position else None for i in range(count))))
        return number

    # ---------------------------------------------------------------- operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        written = _written(func, args, kwargs)
        for tensor in written:  # before the write: the whole must be known as it was
            self._refresh_wholes(tensor)
        recorded = self._refer(args), {k: self._refer(v) for k, v in kwargs.items()}
        op = Op(name=_name(func), call=func, args=recorded[0], kwargs=recorded[1], outputs=(), module=self.module)
        constant = all(self.values[v].origin == "constant" for v in op.inputs())
        known: Any = None
        if on_meta(args, kwargs):
            out, known = self.meta.call(func, args, kwargs, op, self.constants if constant else None, self.module)
        else:
            out = func(*args, **kwargs)
        results = out if isinstance(out, (list, tuple)) else (out,)
        if not constant and any(isinstance(x, (bool, int, float)) for x in results):
            self.warnings.append(
                f"{op.name} in {op.module or 'the network'} turned data into a Python number: only the path taken "
                "by the example inputs is covered"
            )
        values = known if isinstance(known, (list, tuple)) else (known,) * len(results)
        if constant and op.name in _UNSPECIFIED:  # whoever reads it before it is written cannot tell its items apart
            values = tuple(torch.zeros(r.shape, dtype=r.dtype) for r in results)
        origin = "constant" if constant else "result"
        outputs: list[int | None] = []
        for position, (r, value) in enumerate(zip(results, values, strict=True)):
            if not isinstance(r, Tensor):
                outputs.append(None)
                continue
            outputs.append(self._number(r, origin, value))
            if not any(r is w for w in written):
                self._note_view(r, op, args, position, len(results))
        for w in written:
            if not any(r is w for r in results):  # written, but not returned
                outputs.append(self._number(w, origin, known if isinstance(known, Tensor) else None))
        if not constant:
            self.ops.append(replace(op, outputs=tuple(outputs)))
        for w in written:
            self._spread(w)
        return out

    def _note_view(self, tensor: Tensor, op: Op, args: tuple[Any, ...], position: int, count: int) -> None:
        whole = args[0] if args and isinstance(args[0], Tensor) else None
        # Of an "unsafe" view PyTorch promises that the whole is not read again.
        if whole is None or tensor is whole or "unsafe" in op.name or not _share(tensor, whole):
            return
        self.views[id(tensor)] = _View(whole, op.call, op.name, op.args, dict(op.kwargs), position, count)
        self.parts.setdefault(id(whole), []).append(tensor)

    def _refresh_wholes(self, tensor: Tensor) -> None:
        while id(tensor) in self.views:
            tensor = self.views[id(tensor)].whole
            self.refer(tensor)

    def _spread(self, tensor: Tensor) -> None:
        """A tensor was written: what it is a view of has changed, and so have all other views of that."""
        self.stale.discard(id(tensor))
        self._forget_parts(tensor, keep=None)
        while id(tensor) in self.views:
            view = self.views[id(tensor)]
            whole, written = view.whole, Ref(self.numbers[id(tensor)])
            args = (Ref(self.numbers[id(whole)]), *view.args[1:])
            emission = put_back(view.name, tuple(whole.shape), args, view.position, written)
            if emission is None:  # no rule: pins what it touches, which is sound; dropped again if nothing reads it
                number = self._emit(None, "metanet.write_through_view", (written, args[0]), {}, whole)
            else:
                number = self._emit(emission[0], _name(emission[0]), emission[1], {}, whole)
            self.numbers[id(whole)] = number
            self._forget_parts(whole, keep=tensor)
            tensor = whole

    def _forget_parts(self, tensor: Tensor, keep: Tensor | None) -> None:
        stack = [p for p in self.parts.get(id(tensor), ()) if p is not keep]
        while stack:
            part = stack.pop()
            self.stale.add(id(part))
            stack += self.parts.get(id(part), ())

    def finish(self, outputs: tuple[int, ...]) -> Trace:
        needed, kept = set(outputs), []
        for op in reversed(self.ops):
            if any(o in needed for o in op.outputs):
                kept.append(op)
                needed.update(op.inputs())
        return Trace(
            values=tuple(self.values),
            ops=tuple(reversed(kept)),
            inputs=tuple(self.inputs),
            outputs=outputs,
            parameters=self.parameters,
            others=tuple(self.others),
            constants={n: t for n, t in self.constants.items() if n in needed},
            warnings=tuple(dict.fromkeys(self.warnings)),
        )


_UNSPECIFIED = {"aten.empty", "aten.empty_like", "aten.new_empty", "aten.empty_strided", "aten.new_empty_strided"}


def _share(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage()._cdata == b.untyped_storage()._cdata


def _name(func: Any) -> str:
    namespace, name = func._schema.name.split("::")
    if func._schema.is_mutable and name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    return f"{namespace}.{name}"


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    if not func._schema.is_mutable:
        return []
    out = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[i] if i < len(args) else kwargs.get(argument.name)
            out += list(tensors_in(given))
    return out


def _copied(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.detach().clone()
    if type(x) in (list, tuple):
        return type(x)(map(_copied, x))
    return {k: _copied(v) for k, v in x.items()} if type(x) is dict else x


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Turn off the fused kernels that would hide a network's structure behind one operation."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            torch.backends.mkldnn.flags(enabled=False, allow_tf32=None),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
