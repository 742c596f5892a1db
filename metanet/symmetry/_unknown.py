"""Operations that no rule knows: what they touch stays fixed, and is reported here and nowhere else."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..tracing import Op, Trace
from ._leaves import Leaves
from ._operand import Operand


@dataclass
class UnknownOps:
    """The operations without a rule, or whose rule passes on their arguments.

    Attributes:
        seen: by name, each with its recording.
    """

    seen: dict[str, list[tuple[Op, Trace]]] = field(default_factory=dict)

    def pin(self, leaves: Leaves, op: Op, trace: Trace, operands: Iterable[Operand]) -> None:
        """Nothing may move along the axes that an operation touches."""
        self.seen.setdefault(op.name, []).append((op, trace))
        reason = f"{op.name} has no rule (in {op.module or 'the network'})"
        for operand in operands:
            for axis in operand.touched():
                leaves.fix(axis, reason)

    def warnings(self) -> Iterator[str]:
        """One for each operation, with the tensors that it touches directly."""
        for name, ops in self.seen.items():
            touched: set[str] = set()
            for op, trace in ops:
                touched.update(*(trace.values[number].names for number in op.inputs()))
            tensors = sorted(touched)
            ellipsis = ", ..." if len(tensors) > 3 else ""
            directly = f" (directly: {', '.join(tensors[:3])}{ellipsis})" if tensors else ""
            yield (
                f"{name} has no rule: the axes it touches stay fixed{directly}.\n"
                "  Sound, but some neurons cannot be relabelled. Add a rule: "
                "metanet/symmetry/operations/, one function."
            )
