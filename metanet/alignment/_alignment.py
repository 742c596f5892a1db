"""What aligning two networks gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, MinLen
from torch import Tensor, nn

from ..checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from ..documents import Document, validated
from ..errors import CheckpointError, brief, listed
from ..symmetry import Transform


class _Metadata(Document):
    """What a saved alignment says beside its permutations."""

    spec: dict[str, Any]
    objective: Annotated[list[float], MinLen(1)]
    identity: dict[str, str]
    seconds: Annotated[float, Ge(0)]
    method: Annotated[str, MinLen(1)]
    options: dict[str, Any]
    seed: int


@dataclass(frozen=True, eq=False)
class Alignment:
    """How one network's neurons are relabelled to fit another's.

    ``alignment(checkpoint)`` is the moved checkpoint.

    It applies to every mapping with the same names: the checkpoint it was found for, others of the
    same run, averaged weights (EMA), and the moments of an optimizer by parameter name. Names that
    the architecture does not know and integer entries are passed on.

    Attributes:
        transform: the relabelling.
        objective: what the matcher maximises: at the start, then after every step that changed
            something.
        identity: the groups that were left as they are, and why.
        seconds: how long it took.
        method, options, seed: how it was found.
    """

    transform: Transform
    objective: tuple[float, ...]
    identity: Mapping[str, str]
    seconds: float
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __call__(self, checkpoint: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A moved copy.

        Raises:
            CheckpointError: it has none of the architecture's tensors, or one of another shape.
        """
        state = checkpoint.state_dict() if isinstance(checkpoint, nn.Module) else checkpoint
        tensors = self.transform.spec.tensors
        if not any(name in tensors for name in state):
            raise CheckpointError(
                f"none of the {len(state)} names ({listed(state, 3)}) is one of the aligned "
                f"architecture's ({listed(tensors, 3)}): give parameters by their state dict names"
            )
        return self.transform(state)

    def moved(self, checkpoint: Checkpoint) -> Checkpoint:
        """The moved checkpoint, each tensor read and moved when it is asked for.

        >>> import metanet, torch
        >>> from metanet.evaluation import as_checkpoint
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        >>> arch, a = metanet.trace(net, torch.randn(4, 3)), net.state_dict()
        >>> b = arch.spec.sample()(a)
        >>> lazy = metanet.align(b, to=a, arch=arch).moved(as_checkpoint(b, "b"))
        >>> torch.equal(lazy["0.weight"], a["0.weight"])
        True

        Args:
            checkpoint: by the names of the architecture; names that it does not know and integer
                entries are passed on.

        Raises:
            CheckpointError: it lacks a tensor of the aligned architecture; when a tensor is read,
                that it has another shape.
        """
        self.check(checkpoint)
        return checkpoint.mapped(self.transform.apply)

    def check(self, checkpoint: Mapping[str, Tensor]) -> None:
        """Refuse checkpoints of other networks; integer entries and all but one name of a tied
        tensor may be missing.

        Raises:
            CheckpointError: it lacks a tensor of the aligned architecture.
        """
        tensors = self.transform.spec.tensors.items()
        needed = [name for name, t in tensors if not t.integer and t.tied_to is None]
        lacking = [name for name in needed if name not in checkpoint]
        if lacking:
            others = f" and {len(lacking) - 1} more tensors" if len(lacking) > 1 else ""
            raise CheckpointError(
                f"the alignment is of another network: it moves {brief(lacking[0])}{others}, "
                f"which this checkpoint ({listed(checkpoint, 3)}) does not have"
            )

    def __str__(self) -> str:
        permuted = [g.name for g in self.transform.spec.groups if g.kind == "permutation"]
        moved = [name for name in permuted if name not in self.identity]
        start, end = self.objective[0], self.objective[-1]
        lines = [
            f"Alignment by {self.method}: {len(moved)} groups moved, objective {start:.6g} -> {end:.6g} in "
            f"{len(self.objective) - 1} steps, {self.seconds:.2f} s"
        ]
        lines += [f"  {group} left as it is: {why}" for group, why in self.identity.items()]
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write as safetensors: one permutation per group, everything else as metadata."""
        metadata = {
            "spec": self.transform.spec.to_json(),
            "objective": list(self.objective),
            "identity": dict(self.identity),
            "seconds": self.seconds,
            "method": self.method,
            "options": dict(self.options),
            "seed": self.seed,
        }
        elements = {name: e.contiguous() for name, e in self.transform.elements.items()}
        save_checkpoint(path, elements, metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> "Alignment":
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: the file is missing, damaged or holds no alignment.
        """
        file = load_checkpoint(path, unwrap=False)
        place = f"'{path}' is not a saved alignment: its metadata"
        data = validated(_Metadata, file.metadata, place, error=CheckpointError)
        transform = Transform.of_file(data.spec, file)
        if unknown := [group for group in data.identity if group not in transform.spec.by_name]:
            raise CheckpointError(
                f"{place} is damaged: it left groups as they are that there aren't: {listed(unknown)}"
            )
        return cls(
            transform=transform,
            objective=tuple(map(float, data.objective)),
            identity=data.identity,
            seconds=float(data.seconds),
            method=data.method,
            options=data.options,
            seed=data.seed,
        )
