"""The recorder: one forward pass of a copy of a network, seen by a dispatch mode."""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ..errors import TraceError
from ._kernels import cell_by_cell, plain_kernels
from ._ledger import Ledger
from ._memory import Node, release
from ._modules import check_module
from ._outputs import results
from ._places import EXITS, line_of_the_network
from ._prepare import prepare
from ._schemas import Facts, facts
from ._shadow import LIMIT, needs_numbers, run, to_meta
from ._trace import Op, Ref, Trace, is_integer, tensors_in

aten = torch.ops.aten


def record(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
    """Run ``model(*args, **kwargs)`` once on a copy, and record it.

    In eval mode and without gradients.

    If a parameter is on the meta device, all runs there, inputs included: no memory for weights or
    activations, and no time. Constants (positions, masks) are then computed for real beside it, so
    that their values are known.

    Raises:
        TraceError: no module, TorchScript, no tensor among the inputs or outputs, lazy modules that
            never ran, a forward that raises or that needs numbers on the meta device.
    """
    check_module(model)
    name = type(model).__name__
    if not any(True for _ in tensors_in((args, kwargs))):
        raise TraceError(
            f"tracing {name} needs example inputs: trace(model, x) with x as in model(x), "
            "batch size 2 or more"
        )
    lazy = [n for n, t in [*model.named_parameters(), *model.named_buffers()] if is_lazy(t)]
    if lazy:
        raise TraceError(
            f"{name} has parameters without a shape yet ({', '.join(lazy[:3])}): run the model once on "
            "example inputs, then trace it"
        )
    model = prepare(
        model
    )  # a copy: some models cache tensors on themselves, and hooks are added below
    meta = any(t.is_meta for t in [*model.parameters(), *model.buffers()])
    args, kwargs = _copied(args, kwargs, meta)
    recorder = Recorder(model, meta=meta)
    for tensor in tensors_in((args, kwargs)):
        recorder.add_input(tensor)
    with ExitStack() as stack:
        stack.callback(recorder.ledger.close)
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(plain_kernels())
        for path, module in model.named_modules():
            stack.callback(
                module.register_forward_pre_hook(recorder.enter(path), prepend=True).remove
            )
            stack.callback(module.register_forward_hook(recorder.leave, always_call=True).remove)
            if isinstance(module, nn.RNNBase):
                stack.callback(cell_by_cell(module))
        torch.manual_seed(0)
        try:
            with recorder, _Border(recorder):
                out = model(*args, **kwargs)
        except TraceError:
            raise
        except Exception as e:
            where = f" (in {recorder.deepest!r})" if recorder.deepest else ""
            raise TraceError(
                f"the forward pass of {name} raised {type(e).__name__}{where}: {e}\n"
                "  Check that model(*inputs) runs in eval mode with the example inputs given to trace()."
            ) from e
        outputs = recorder.numbers(out)
    if not outputs:
        raise TraceError(f"{name} returned {type(out).__name__} without a tensor that was computed")
    return recorder.finish(outputs)


class Recorder(TorchDispatchMode):
    """Runs every ATen operation of a forward pass and enters it into a ledger.

    Args:
        meta: some parameters have no values: operations run on the meta device unless all their
            operands are constants.
    """

    def __init__(self, model: nn.Module, *, meta: bool) -> None:
        super().__init__()
        self.meta = meta
        self.ledger = Ledger()
        self.inputs: list[int] = []
        self.parameters: dict[str, int] = {}
        self.others: list[str] = []
        self.warnings: dict[str, None] = {}
        self.reads: dict[int, str] = {}
        self.checks = False  # PyTorch is looking whether arguments are legal
        self.defaults: dict[int, Tensor] = {}
        self.path: list[str] = [""]
        self.deepest = ""
        names: dict[int, list[str]] = {}
        state = model.state_dict(keep_vars=True)
        for name, tensor in state.items():
            is_float = isinstance(tensor, Tensor) and (
                tensor.is_floating_point() or tensor.is_complex()
            )
            if is_float or (isinstance(tensor, Tensor) and is_integer(tensor.dtype)):
                names.setdefault(id(tensor), []).append(name)
            if not is_float:
                self.others.append(name)
        for name, tensor in state.items():
            if id(tensor) in names:
                number = self.ledger.add(tensor, "parameter", tuple(names[id(tensor)]))
                self.parameters[name] = number
                if is_integer(tensor.dtype) and not tensor.is_meta:
                    # the forward pass may write into it
                    self.defaults[number] = tensor.detach().clone()

    @property
    def where(self) -> str:
        """For messages: the module whose forward is running."""
        return self.path[-1] or "the network"

    def enter(self, path: str) -> Callable[..., None]:
        """A hook for before the forward of this module."""

        def push(*_: Any) -> None:
            self.path.append(path)
            self.ledger.book.module = path
            self.deepest = path  # where a forward that raises was: `leave` runs for it too

        return push

    def leave(self, *_: Any) -> None:
        """A hook for after a forward."""
        self.path.pop()
        self.ledger.book.module = self.path[-1]

    def add_input(self, tensor: Tensor) -> None:
        """Number a tensor among the inputs."""
        number = self.ledger.add(tensor, "input")
        if number not in self.inputs:
            self.inputs.append(number)

    def numbers(self, out: Any) -> tuple[int, ...]:
        """Of the tensors in what the network returned."""
        numbers = [
            self.ledger.current(self.ledger.node(t)) for t in results(out) if self.ledger.knows(t)
        ]
        return tuple(n for n in numbers if self.ledger.book.values[n].origin != "constant")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        about = facts(func)
        # only within torch.inference_mode, which skips the layer that decomposes
        if about.composite:
            with self:
                return func.decompose(*args, **kwargs)
        if about.base == "set_":  # other memory: which one will show when the tensor is read next
            release(args[0])
            return func(*args, **kwargs)
        return self._record(func, about, args, kwargs)

    def _record(self, func: Any, about: Facts, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation, and write into the ledger what it read, made and overwrote."""
        nodes: list[Node] = []
        recorded = (
            self._refer(args, nodes),
            self._refer({k: v for k, v in kwargs.items() if k not in about.out}, nodes),
        )
        if about.relabels:
            func(*args, **kwargs)
            self.ledger.relabelled(about.functional, recorded, nodes[0], args[0])
            return args[0]
        read: list[Node] = []
        if about.reads:
            read = nodes[1:] if about.overwrites else nodes
        written = [(t, self.ledger.node(t)) for t in about.written(args, kwargs)]
        known = all(node.value is not None for node in read) and self._have_values(written)
        for _, node in written:
            self.ledger.before_writing(node, known=known)
        if self.meta:
            out, values = run(func, about, args, kwargs, self._shadow, known, self.where)
        else:
            out = func(*args, **kwargs)
            values = out if known else None
        for _, node in written:
            self.ledger.after_writing(node)
        if about.unspecified:
            _make_plain(out, values)
        if not written:
            self.ledger.made(func, recorded, nodes, out, values)
        else:
            self._wrote(func, recorded, nodes, _results(out), written, known)
        if not known and any(isinstance(x, (bool, int, float, complex)) for x in _results(out)):
            self._read(nodes, about.name)
        return out

    def _wrote(
        self,
        func: Any,
        recorded: tuple[Any, Any],
        nodes: list[Node],
        outputs: list[Any],
        written: list[tuple[Tensor, Node]],
        known: bool,
    ) -> None:
        """An operation wrote into tensors: values that are all known, or data."""
        if not known:
            self.ledger.wrote(func, recorded, nodes, outputs, written)
            return
        for _, node in written:
            self.ledger.wrote_known(node)

    def left(self, tensor: Tensor, how: str) -> Tensor:
        """Python is about to read the numbers in a tensor, of which no dispatch tells: the tensor
        that has them."""
        with _disable_current_modes():
            if not self.ledger.knows(tensor):
                return tensor
            value = self.ledger.node(tensor).value
            if value is not None:
                return value
            if self.meta:
                raise needs_numbers(f"tensor.{how}()", self.where)
            self._read([self.ledger.node(tensor)], f"tensor.{how}()")
            return tensor

    def _have_values(self, written: list[tuple[Tensor, Node]]) -> bool:
        """Known values are about to be written over unknown ones: make room for them."""
        unknown = [(t, node) for t, node in written if node.value is None]
        if any(t.is_meta and t.numel() > LIMIT for t, _ in unknown):
            return False
        for t, node in unknown:
            if t.is_meta:
                node.value = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cpu")
            else:
                node.value = t.detach()
        return True

    def _refer(self, x: Any, nodes: list[Node]) -> Any:
        if isinstance(x, Tensor):
            node = self.ledger.node(x)
            nodes.append(node)
            return Ref(self.ledger.current(node))
        if type(x) in (list, tuple):
            return type(x)([self._refer(v, nodes) for v in x])
        if type(x) is dict:
            return {k: self._refer(v, nodes) for k, v in x.items()}
        return x

    def _shadow(self, tensor: Tensor) -> Tensor | None:
        return self.ledger.node(tensor).value

    def _read(self, nodes: list[Node], name: str) -> None:
        """Python got the numbers in these tensors: a use of all their axes that no operation tells
        of."""
        if self.checks:
            return
        place = line_of_the_network()
        for node in nodes:
            if node.value is None:
                self.reads.setdefault(self.ledger.current(node), place)
        self.warnings[
            f"{name} in {self.where} turned data into a Python number at {place}: only the path taken "
            "by the example inputs is covered, and the axes that were read stay fixed"
        ] = None

    def finish(self, outputs: tuple[int, ...]) -> Trace:
        """The recording, without operations that no output needs."""
        ledger = self.ledger
        needed, ops = {*outputs, *self.reads}, []
        for op in reversed(ledger.book.ops):
            is_needed = not needed.isdisjoint(op.outputs)
            if is_needed or self._tells_by_shape(op):
                ops.append(op)
                needed.update(op.inputs())
        constants = {n: t for n, t in ledger.book.constants.items() if n in needed}
        return Trace(
            values=tuple(ledger.book.values),
            ops=tuple(reversed(ops)),
            inputs=tuple(self.inputs),
            outputs=outputs,
            parameters=self.parameters,
            others=tuple(self.others),
            constants={n: t.clone() if n in ledger.borrowed else t for n, t in constants.items()},
            warnings=tuple(self.warnings),
            reads=self.reads,
            defaults=self.defaults,
        )

    def _tells_by_shape(self, op: Op) -> bool:
        """Whether the shape of a result depends on values: Python may have read it, whoever uses
        the result itself."""
        if op.call is None or torch.Tag.dynamic_output_shape not in op.call.tags:
            return False
        if op.name not in _LOOK_UPS:
            return True
        # x[mask] tells how many are true; x[integers] has as many items as there are integers
        dtypes = {self.ledger.book.values[n].dtype for n in op.inputs()[1:]}
        return not dtypes.isdisjoint(("bool", "uint8"))


class _Border(TorchFunctionMode):
    """Sees numbers pass between tensors and Python where no operation tells of it."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in EXITS:
            args = (self.recorder.left(args[0], func.__name__), *args[1:])
        if func in _ENTRIES:  # from a list of tensors it takes the numbers
            lists = [x for x in (*args, *kwargs.values()) if isinstance(x, (list, tuple))]
            for tensor in tensors_in(lists):
                self.recorder.left(tensor, func.__name__)
        self.recorder.checks = _only_checks(func, args, kwargs)
        try:
            out = func(*args, **kwargs)
        finally:
            self.recorder.checks = False
        if func in _ENTRIES and out.is_meta:  # the meta device forgot them
            return func(*args, **{**kwargs, "device": "cpu"}).to("meta")
        return out


_LOOK_UPS = {"aten.index", "aten._unsafe_index"}
_ENTRIES = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}


def _only_checks(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a function reads numbers for nothing but to refuse some: that classes are within
    their given number."""
    if func is not one_hot:
        return False
    classes = args[1] if len(args) > 1 else kwargs.get("num_classes", -1)
    return classes != -1


def _make_plain(out: Any, values: Any) -> None:
    """Numbers that are any: a network that is a function does not depend on them."""
    for t in (*_results(out), *_results(values)):
        if t is not None:
            t.zero_()


def _results(out: Any) -> list[Any]:
    return list(out) if isinstance(out, (list, tuple)) else [out]


def _copied(
    args: tuple[Any, ...], kwargs: dict[str, Any], meta: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The caller's inputs are never written into, and stand on the meta device if the parameters
    do."""
    copies: dict[int, Any] = {}
    for tensor in tensors_in((args, kwargs)):
        moved = to_meta(tensor) if meta else tensor.detach().clone()
        copies[id(tensor)] = moved.clone() if moved.is_meta else moved
    try:
        return copy.deepcopy((args, kwargs), copies)
    except Exception as e:
        raise TraceError(f"the example inputs cannot be copied: {type(e).__name__}: {e}") from e
