"""A graph metanetwork that may also run the networks it reads, at inputs of its own choosing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...architecture import Architecture
from ...errors import MetanetError
from ...graph import GraphStack, NodeType
from .._digest import digest
from .._metanet import NeuralMetanet
from .._registry import register
from .gmn import GMN


@register("probed_gmn")
class ProbedGMN(NeuralMetanet):
    r"""A :class:`GMN` whose neurons also show what they answer at learned probe inputs.

    Probe features of Neural Graphs, `Kofinas et al., ICLR 2024
    <https://arxiv.org/abs/2403.12143>`_: learned inputs are pushed through every network, and each
    neuron's activations at them (their mean over positions, where there are any) are features of
    its node. Learned inputs alone go far, `Kahana et al., Deep Linear Probe Generators for Weight
    Space Learning, ICLR 2025 <https://arxiv.org/abs/2410.10811>`_, so the output neurons' answers
    are also read directly. Relabelling neurons relabels their activations, so the model stays
    invariant. It sees weights only: the probes are parameters, learned like all others.

    The networks are run by replaying their recordings, so :meth:`bind` must be given the traced
    architectures, with example inputs of ``(probes, *inputs)``.

    Args:
        probes: how many inputs.
        inputs: shape of one.
        low, high: range they start in, uniformly.
        outputs: output neurons of the networks.
        out_dim: of the output.
        graph: whether the graph metanetwork takes part; without it the answers alone are read (an
            ablation).
        answers: whether the output neurons' answers are also read directly.
        speed: how many times faster than everything else the probes learn. They live on the scale
            of the inputs, not on that of weights: ten times raised tau on an unseen architecture
            from 0.73 to 0.78.
        dropout: on the way from the answers to the output.
        gmn: further arguments of :class:`GMN`.

    Shapes:
        - **graphs** stacks of networks from ``(batch, *inputs)`` to ``(batch, outputs)`` ->
          ``(graphs, out_dim)``
    """

    def __init__(
        self,
        probes: int = 64,
        inputs: Sequence[int] = (2,),
        low: float = -1.0,
        high: float = 1.0,
        outputs: int = 1,
        out_dim: int = 1,
        graph: bool = True,
        answers: bool = True,
        speed: float = 10.0,
        dropout: float = 0.2,
        gmn: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not graph and not answers:
            raise MetanetError(
                "model.graph and model.answers are both off: nothing is left to read"
            )
        # optimisers of Adam's kind move every parameter alike: stored smaller, the probes move
        # faster
        self.speed = speed
        self.stored_points = nn.Parameter(torch.empty(probes, *inputs).uniform_(low, high) / speed)
        self.gmn = GMN(out_dim=out_dim, probes=probes, **(gmn or {})) if graph else None
        self.reader = AnswerReader(probes, outputs, out_dim, dropout) if answers else None
        self._bound: dict[str, Architecture] = {}

    @property
    def points(self) -> Float[Tensor, "probes ..."]:
        """The probe inputs."""
        return self.stored_points * self.speed

    def bind(self, architectures: Iterable[Architecture]) -> None:
        """Make the recordings of these architectures known.

        Raises:
            MetanetError: an architecture was traced with other example inputs than ``(probes,
                *inputs)``.
        """
        want = tuple(self.points.shape)
        for architecture in architectures:
            recording = architecture.recording
            got = (
                [recording.values[v].shape for v in recording.inputs]
                if recording is not None
                else []
            )
            if got != [want]:
                raise MetanetError(
                    f"probes need networks traced with one example input of shape {want}, "
                    f"{architecture.name} was traced with {got}: set model.inputs to the shape of "
                    "one input of the networks"
                )
            self._bound[digest(architecture.template)] = architecture

    def fit_normalisation(self, stacks: Iterable[GraphStack]) -> None:
        """Takes the normalisation of the graph metanetwork, where there is one."""
        if self.gmn is not None:
            self.gmn.fit_normalisation(stacks)

    def forward(self, graphs: Sequence[GraphStack]) -> Float[Tensor, "graphs out"]:
        """One answer for each graph, the sum of those of both parts: ``(graphs, out_dim)``.

        Raises:
            MetanetError: as :meth:`ask`, or the networks have other outputs than ``outputs``.
        """
        stacks = [graphs] if isinstance(graphs, GraphStack) else list(graphs)
        asked = [self.ask(stack) for stack in stacks]
        parts = []
        if self.gmn is not None:
            parts.append(self.gmn(stacks, asked))
        if self.reader is not None:
            parts.append(
                self.reader(
                    torch.cat([self._answers(s, a) for s, a in zip(stacks, asked, strict=True)])
                )
            )
        return sum(parts[1:], parts[0])

    def ask(self, stack: GraphStack) -> dict[int, Float[Tensor, "graphs neurons probes"]]:
        """Activations of all neurons at the probe inputs, by number of the node range.

        Raises:
            MetanetError: the stack's architecture was not bound.
        """
        is_stack = isinstance(stack, GraphStack)
        architecture = self._bound.get(digest(stack.template)) if is_stack else None
        if architecture is None:
            raise MetanetError(
                "probes run the networks: call bind() with their architectures first, and pass stacks"
            )
        points = self.points
        state = stack.template.tensors(stack.edge_attr.to(points))

        def run(sd: Mapping[str, Tensor]) -> dict[int, Tensor]:
            shown = {
                n: _by_probe(a, len(points))
                for n, a in architecture.activations(sd, points).items()
            }
            return {n: a for n, a in shown.items() if a is not None}

        return torch.func.vmap(run)(state)

    def _answers(self, stack: GraphStack, asked: Mapping[int, Tensor]) -> Tensor:
        outputs = [
            n
            for n, r in enumerate(stack.template.nodes)
            if r.type == NodeType.OUTPUT and n in asked
        ]
        if not outputs:
            raise MetanetError(
                "no output neuron of these networks shows an answer per probe: set model.answers=false"
            )
        answers = torch.cat([asked[n] for n in outputs], 1)
        if self.reader is not None and answers.shape[1] != self.reader.outputs:
            raise MetanetError(
                f"model.outputs={self.reader.outputs}, but the networks have {answers.shape[1]} "
                "output neurons"
            )
        return answers


def _by_probe(
    shown: Float[Tensor, "neurons ..."], probes: int
) -> Float[Tensor, "neurons probes"] | None:
    """Means over positions; inside a network these may have been merged with the probes, which then
    come first.

    Both parts of a complex number count as positions.
    ``None`` where there are no probes among the axes: what neurons show there does not depend on
    the input.
    """
    axes = shown.shape[1:]
    shown = torch.view_as_real(shown) if shown.is_complex() else shown
    if probes in axes:
        shown = shown.movedim(1 + axes.index(probes), 1)
    elif axes.numel() % probes or not axes.numel():
        return None
    return shown.reshape(shown.shape[0], probes, -1).mean(2)


class AnswerReader(nn.Module):
    """Reads what the output neurons answer at the probes: values in units of their spread, and
    their softmax.

    Shapes:
        - **answers** ``(graphs, outputs, probes)`` -> ``(graphs, out_dim)``
    """

    def __init__(
        self, probes: int, outputs: int, out_dim: int, dropout: float, width: int = 64
    ) -> None:
        super().__init__()
        self.outputs = outputs
        views = 2 if outputs > 1 else 1  # the softmax of a single output says nothing
        self.each = nn.Sequential(
            nn.Linear(views * probes, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.head = nn.Sequential(
            nn.LayerNorm(outputs * width), nn.Dropout(dropout), nn.Linear(outputs * width, width), nn.GELU(),
            nn.Dropout(dropout), nn.Linear(width, out_dim),
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Its setting."""
        return f"outputs={self.outputs}"

    def forward(self, answers: Tensor) -> Tensor:
        """One vector for each network: ``(graphs, out_dim)``."""
        views = [answers / (answers.std((1, 2), keepdim=True) + 1e-3)]
        if self.outputs > 1:
            views.append(answers.softmax(1))
        return self.head(self.each(torch.cat(views, -1)).flatten(1))
