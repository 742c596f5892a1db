"""The book of a recording: numbered values, the operations between them, and constants."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ._memory import Memory, Node
from ._schemas import Facts, facts
from ._trace import Op, Ref, Value

_INTEGERS = {"bool", "uint8", "int8", "int16", "int32", "int64"}


class Book:
    """What is written down while a network runs.

    Attributes:
        values: numbered by position.
        ops: in the order of execution.
        constants: values that depend on neither inputs nor parameters, by number.
        referred: constants that operations read, so that they must outlive a write.
        module: whose forward is running.
    """

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.ops: list[Op] = []
        self.constants: dict[int, Tensor] = {}
        self.referred: set[int] = set()
        self.module = ""

    def new(self, like: Tensor, origin: str, names: tuple[str, ...] = ()) -> int:
        """A number for a value that looks like this tensor."""
        self.values.append(replace(described(like), origin=origin, names=names))
        return len(self.values) - 1

    def constant(self, value: Tensor, memory: Memory) -> int:
        """A number for a value that is known."""
        number = self.new(value, "constant")
        self.constants[number] = value
        memory.constants.append(number)
        return number

    def emit(self, call: Any, args: Any, like: Value, kwargs: Any = None) -> Ref:
        """Record an operation with one result, which is like this value."""
        self.values.append(replace(like, origin="result", names=()))
        number = len(self.values) - 1
        self.record(facts(call).name, call, args, kwargs or {}, (number,))
        return Ref(number)

    def record(
        self, name: str, call: Any, args: Any, kwargs: Any, outputs: tuple[int | None, ...]
    ) -> None:
        """Write an operation down."""
        op = Op(
            name=name,
            call=call,
            args=tuple(args),
            kwargs=kwargs,
            outputs=outputs,
            module=self.module,
        )
        self.referred.update(op.inputs())
        self.ops.append(op)

    def write_through(self, written: Ref, node: Node) -> int:
        """No function says what a tensor holds after a write to memory that it shares in an unknown
        way."""
        self.values.append(replace(self.values[node.number], origin="result", names=()))
        number = len(self.values) - 1
        self.record("metanet.write_through_view", None, (written, Ref(node.number)), {}, (number,))
        return number

    def keep(self, memory: Memory) -> None:
        """Copy the constants in a memory that will be written behind our back."""
        for number in memory.constants:
            self.constants[number] = self.constants[number].clone()
        memory.constants.clear()

    def stays_functional(
        self, about: Facts, nodes: list[Node], written: list[tuple[Tensor, Node]]
    ) -> bool:
        """Whether the functional overload returns the dtype that a write in place keeps."""
        if about.functional is None:
            return False
        dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor, _ in written}
        if not about.keeps_dtype:
            return dtypes == {"bool"}
        # integers do not change the dtype of numbers with a point
        plain = set() if dtypes & _INTEGERS else _INTEGERS
        return all(
            self.values[n.number].dtype in dtypes | plain
            for n in nodes
            if self.values[n.number].shape
        )


def described(tensor: Tensor) -> Value:
    """What a value has of a tensor."""
    strided = tensor.layout is torch.strided
    return Value(
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        origin="result",
        layout=(tensor.stride(), int(tensor.storage_offset())) if strided else ((), 0),
    )
