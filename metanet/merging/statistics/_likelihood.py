"""What a network says of its answers: a distribution over classes, truth values or numbers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import MetanetError
from ...evaluation import LOSSES, aligned_target, classified, scores_of

LABELS = ("auto", "expected", "sampled", "empirical")
_FEW = 100  # scores per sample up to which the expectation over all labels is taken


@dataclass(frozen=True)
class Likelihood:
    """Which log-likelihood the gradients are of; all of it for a batch of one sample.

    Attributes:
        kind: ``"classes"`` (softmax), ``"truths"`` (a sigmoid for each score), ``"numbers"`` (a
            Gaussian of variance 1 around each score), or ``"loss"``: minus the loss itself,
            whatever it stands for.
        labels: whose: ``"expected"`` over the network's own, ``"sampled"`` from these,
            ``"empirical"``.
        second: classes are the second axis of the scores, not the last.
        loss: of outputs and target.
    """

    kind: str
    labels: str
    second: bool
    loss: Callable[[Any, Any], Tensor]

    @classmethod
    def of(
        cls, outputs: Any, target: Any, labels: str, loss: Callable[[Any, Any], Tensor]
    ) -> "Likelihood":
        """Told from the first batch.

        Raises:
            MetanetError: no target, or one of another kind; scores that are integers.
        """
        if labels not in LABELS:
            raise MetanetError(f"labels={labels!r}: give one of {', '.join(LABELS)}")
        scores = scores_of(outputs)
        if not scores.is_floating_point():
            raise MetanetError(
                f"the network returns {scores.dtype}, of which there is no gradient: return scores"
            )
        if labels == "empirical":
            return cls("loss", labels, False, loss)
        kind, second = _kind(outputs, scores, target, loss)
        few = scores[0].numel() <= _FEW
        return cls(
            kind, ("expected" if few else "sampled") if labels == "auto" else labels, second, loss
        )

    def counted(self, outputs: Any, target: Any) -> Tensor | None:
        """Where the scores of a batch count, ``(n, *places, 1)``; ``None``: everywhere."""
        if self.kind != "classes":
            return None
        return (aligned_target(outputs, target) >= 0).unsqueeze(-1)

    def scores(self, outputs: Any, target: Any) -> Tensor:
        """What gradients are taken of, classes last."""
        if self.kind == "loss":
            return self.loss(outputs, target).reshape(1)
        scores = scores_of(outputs)
        return scores.movedim(1, -1) if self.second else scores

    def noise(self, scores: Tensor, generator: torch.Generator) -> Tensor | None:
        """Random numbers that :meth:`directions` samples labels by, like the scores of a batch."""
        if self.labels != "sampled":
            return None
        drawn = torch.empty(scores.shape, dtype=scores.dtype)
        if self.kind == "classes":
            # the class of the highest score is a sample
            drawn = drawn.exponential_(generator=generator).log().neg()
        elif self.kind == "truths":
            drawn = drawn.uniform_(generator=generator)
        else:
            drawn = drawn.normal_(generator=generator)
        return drawn.to(scores.device)

    def directions(
        self, scores: Tensor, counted: Tensor | None, noise: Tensor | None
    ) -> Iterator[Tensor]:
        """Gradients of log-likelihoods by the scores, each times the root of how probable its label
        is.

        Args:
            scores: of one sample, ``(1, ..., classes)``.
            counted, noise: likewise.
        """
        if self.kind == "loss":
            yield torch.ones_like(scores)
        elif noise is not None:
            yield self._sampled(scores, counted, noise)
        else:
            probable = self._probable(scores)
            for label in torch.eye(scores.numel(), dtype=scores.dtype, device=scores.device):
                yield self._expected(label.view(scores.shape), probable, counted)

    def _probable(self, scores: Tensor) -> Tensor:
        """How probable a label at each score is; numbers have no labels."""
        if self.kind == "classes":
            return scores.softmax(-1)
        return scores.sigmoid() if self.kind == "truths" else scores

    def _sampled(self, scores: Tensor, counted: Tensor | None, noise: Tensor) -> Tensor:
        """The gradient at a label that is drawn by the noise."""
        if self.kind == "numbers":
            return noise
        probable = self._probable(scores)
        if self.kind == "truths":
            return (noise < probable).to(scores.dtype) - probable
        best = (scores + noise).argmax(-1, keepdim=True)
        label = torch.arange(scores.shape[-1], device=scores.device) == best
        return (label.to(scores.dtype) - probable) * _everywhere(counted, probable)

    def _expected(self, label: Tensor, probable: Tensor, counted: Tensor | None) -> Tensor:
        """The gradient at one label (1 at one score), times the root of its probability."""
        if self.kind == "numbers":
            return label
        if self.kind == "truths":
            return label * (probable * (1 - probable)).sqrt()
        place = label.sum(-1, keepdim=True) * _everywhere(counted, probable)
        return (probable * label).sum().sqrt() * (label - probable) * place


def _everywhere(counted: Tensor | None, probable: Tensor) -> Tensor:
    """1 where scores count, 0 where not, one number for all classes."""
    if counted is None:
        return torch.ones_like(probable[..., :1])
    return counted.to(probable.dtype)


def _kind(
    outputs: Any, scores: Tensor, target: Any, loss: Callable[[Any, Any], Tensor]
) -> tuple[str, bool]:
    if target is None:
        raise MetanetError(
            "the data has no targets, so that it can't be told whether the scores are of classes "
            "or numbers: give batches (inputs, target), or dicts with labels"
        )
    if isinstance(target, Tensor) and loss is LOSSES["binary_cross_entropy"]:
        return "truths", False
    if (
        isinstance(target, Tensor)
        and target.is_floating_point()
        and target.numel() == scores.numel()
    ):
        return "numbers", False
    if classified(outputs, target) is not None:
        second = target.shape != scores.shape[:-1]
        if scores.shape[1 if second else -1] < 2:
            raise MetanetError(
                f"the scores are {tuple(scores.shape)}: one class is no choice. For one score per "
                "label before the sigmoid give loss=binary_cross_entropy"
            )
        return "classes", second
    given = (
        f"{tuple(target.shape)} {target.dtype}" if isinstance(target, Tensor) else f"{target!r:.40}"
    )
    raise MetanetError(
        f"no distribution is known for scores {tuple(scores.shape)} and a target {given}: give "
        "labels=empirical, which reads the loss alone"
    )
