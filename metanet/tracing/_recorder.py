"""The recorder: a dispatch mode that sees every ATen operation of one forward pass."""

import copy
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import TraceError
from ._trace import Op, Ref, Trace, Value, tensors_in


def record(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
    """Run ``model(*args, **kwargs)`` once on a copy, in eval mode and without gradients, and record it.

    Raises:
        TraceError: no tensor among the inputs or outputs, a forward that raises, parameters on the meta device.
    """
    if not any(True for _ in tensors_in((args, kwargs))):
        raise TraceError(
            f"tracing {type(model).__name__} needs example inputs: trace(model, x) with x as in model(x), "
            "batch size 2 or more"
        )
    # The copy: some models cache tensors on themselves during forward, and hooks are added below.
    model = copy.deepcopy(model).eval()
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
        except Exception as e:
            where = f" (in {recorder.deepest!r})" if recorder.deepest else ""
            raise TraceError(
                f"the forward pass of {type(model).__name__} raised {type(e).__name__}{where}: {e}\n"
                "  Check that model(*inputs) runs in eval mode with the example inputs given to trace()."
            ) from e
    outputs = [recorder.numbers[id(t)] for t in tensors_in(out) if id(t) in recorder.numbers]
    if not outputs:
        raise TraceError(f"{type(model).__name__} returned {type(out).__name__} without a tensor that was computed")
    return recorder.finish(tuple(outputs))


class _Recorder(TorchDispatchMode):
    """Numbers every tensor it meets; a tensor written in place gets a new number."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.values: list[Value] = []
        self.ops: list[Op] = []
        self.numbers: dict[int, int] = {}  # id(tensor) -> value number
        self.alive: list[Tensor] = []  # keeps every numbered tensor, so that no id is used twice
        self.aliases: dict[int, list[Tensor]] = {}  # storage -> tensors that look into it
        self.constants: dict[int, Tensor] = {}
        self.inputs: list[int] = []
        self.parameters: dict[str, int] = {}
        self.others: list[str] = []
        self.warnings: list[str] = []
        self.path: list[str] = []
        self.deepest = ""
        names: dict[int, list[str]] = {}
        state = model.state_dict(keep_vars=True)
        for name, tensor in state.items():
            if isinstance(tensor, Tensor) and tensor.is_meta:
                raise TraceError(
                    f"{name} is on the meta device: materialise the model first, e.g. model.to_empty(device='cpu')"
                )
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                names.setdefault(id(tensor), []).append(name)
            else:
                self.others.append(name)
        for name, tensor in state.items():
            if id(tensor) in names:
                if id(tensor) not in self.numbers:
                    self._number(tensor, "parameter", tuple(names[id(tensor)]))
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

    def _number(self, tensor: Tensor, origin: str, names: tuple[str, ...] = ()) -> int:
        number = len(self.values)
        dtype = str(tensor.dtype).removeprefix("torch.")
        self.values.append(Value(shape=tuple(tensor.shape), dtype=dtype, origin=origin, names=names))
        if id(tensor) not in self.numbers:
            self.alive.append(tensor)
            self.aliases.setdefault(tensor.untyped_storage()._cdata, []).append(tensor)
        self.numbers[id(tensor)] = number
        if origin == "constant":
            self.constants[number] = tensor.detach().clone()
        return number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        recorded = self._refer(args), {k: self._refer(v) for k, v in kwargs.items()}
        out = func(*args, **kwargs)
        op = Op(name=_name(func), call=func, args=recorded[0], kwargs=recorded[1], outputs=(), module=self.module)
        constant = all(self.values[v].origin == "constant" for v in op.inputs())
        if not constant and any(isinstance(x, (bool, int, float)) for x in (out if isinstance(out, tuple) else (out,))):
            self.warnings.append(
                f"{op.name} in {self.module or 'the network'} turned data into a Python number: only the path taken "
                "by the example inputs is covered"
            )
        written = _written(func, args, kwargs)
        origin = "constant" if constant else "result"
        results = out if isinstance(out, (list, tuple)) else (out,)
        outputs: list[int | None] = []
        for r in results:
            if not isinstance(r, Tensor):
                outputs.append(None)
            elif any(r is w for w in written):
                outputs.append(self._write(r, origin))
            else:
                outputs.append(self._number(r, origin))
        for w in written:
            if not any(r is w for r in results):  # written, but not returned
                outputs.append(self._write(w, origin))
        if not constant:
            self.ops.append(replace(op, outputs=tuple(outputs)))
        return out

    def _write(self, tensor: Tensor, origin: str) -> int:
        """A new number for a tensor written in place, and for everything that looks into the same storage."""
        aliases = [t for t in self.aliases.get(tensor.untyped_storage()._cdata, []) if t is not tensor]
        number = self._number(tensor, origin)
        for other in aliases:
            if _geometry(other) == _geometry(tensor):
                self.numbers[id(other)] = number
            else:  # no rule: pins what it touches, which is sound; dropped again if nothing reads it
                before = self.numbers[id(other)]
                constant = origin == self.values[before].origin == "constant"
                after = self._number(other, "constant" if constant else "result")
                if constant:
                    continue
                args = (Ref(number), Ref(before))
                op = Op(name="metanet.write_through_view", call=None, args=args, kwargs={}, outputs=(after,))
                self.ops.append(replace(op, module=self.module))
        return number

    def _refer(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            if id(x) not in self.numbers:  # a tensor from outside: a constant of the network
                self._number(x, "constant")
            return Ref(self.numbers[id(x)])
        return type(x)(map(self._refer, x)) if type(x) in (list, tuple) else x

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


def _geometry(t: Tensor) -> tuple[Any, ...]:
    return tuple(t.shape), t.stride(), t.storage_offset(), t.dtype


@contextmanager
def _plain_kernels() -> Any:
    """Turn off the fused kernels that would hide a network's structure behind one operation."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
