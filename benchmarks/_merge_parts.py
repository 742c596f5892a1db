"""What ``merge_trained.py`` measures: each part yields rows, by the names of the CSV's columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from _merge_digits import NETWORKS, TASKS, Data, State, digits, pooled, trained, tuned
from torch import Tensor
from torch.nn import functional as F

import metanet
from metanet.evaluation import Runner, find_loss, find_metrics, flips, measure, right_answers
from metanet.merging import METHODS, DataPerModel, Merged

Row = dict[str, Any]

MATCHERS = ("none", "weight", "activation", "combined")
BETWEEN = ("linear", "slerp")
OF_BASE: dict[str, dict[str, Any]] = {
    "linear": {},
    "task_arithmetic": {"weights": 0.5},
    "ties": {"density": 0.5},
    "dare_ties": {"density": 0.5, "weights": 0.5},
    "breadcrumbs": {"density": 0.9, "weights": 0.5},
    "model_stock": {},
    "fisher": {"normalize": True, "labels": "sampled", "samples": 200},
    "regmean": {"samples": 500},
}
"""Methods for fine-tuned networks, with the options that are not left at their defaults."""
OWN = ("linear", "slerp", "multislerp", "karcher", "nuslerp")
"""Methods that give a network back if it is merged with itself."""


def pairs(network: str, seed: int, folder: Path) -> Iterator[Row]:
    """Two networks from different seeds: their middle, aligned or not, repaired or not."""
    train, test = digits(network)
    ends = [trained(network, 2 * seed + k, folder) for k in (0, 1)]
    yield {"method": "ends", **_mean([_measured(network, each, test) for each in ends])}
    yield {"method": "ensemble", **_of_scores(*_ensemble(network, ends, test))}
    given = {"model": _model(network), "arch": architecture(network)}
    some = [
        tuple(torch.cat(each) for each in zip(*train[:4], strict=True))
    ]  # repairs read one batch only once
    for matcher in MATCHERS:
        align = None
        if matcher != "none":
            align = metanet.merge(ends, align=matcher, seed=seed, data=train, **given).alignments
        for method in BETWEEN:
            for repair in repairs_of(network):
                merged = metanet.merge(ends, method, align=align, data=some, **given,
                                       repair=None if repair == "none" else repair)  # fmt: skip
                yield {
                    "method": method,
                    "align": matcher,
                    "repair": repair,
                    **_measured(network, merged, test),
                    "seconds": _seconds(merged),
                }
    # Where neurons of both networks became others, single ones have no goal: BatchNorm's statistics
    # alone are left.
    for repair in repairs_of(network)[: 2 if network == "resnet" else 1]:
        merged = metanet.merge(
            ends, "zipit", data=train, repair=None if repair == "none" else repair, **given
        )
        yield {"method": "zipit", "repair": repair, **_measured(network, merged, test)}


def tasks(network: str, seed: int, folder: Path) -> Iterator[Row]:
    """Networks fine-tuned from one base on digits turned left, turned right and shrunk; the first
    one relabelled."""
    base = trained(network, 2 * seed, folder)
    models = [tuned(network, seed, task, base, digits(network, task)[0], folder) for task in TASKS]
    own = [
        _measured(network, each, digits(network, task)[1])
        for task, each in zip(TASKS, models, strict=True)
    ]
    yield {"method": "base", **_on_tasks(network, base)}
    yield {"method": "each on its own task", **_mean(own)}
    yield {"method": "ensemble", **_mean([_of_scores(*_ensemble(network, models, digits(network, t)[1]))
                                          for t in TASKS])}  # fmt: skip
    arch = architecture(network)
    planted = arch.spec.sample(torch.Generator().manual_seed(seed))
    relabelled = [planted(models[0]), *models[1:]]
    data = DataPerModel(
        [digits(network, task)[0][:2] for task in TASKS]
    )  # some images of its own task for each
    for method, options in OF_BASE.items():
        # The linear average has no use for a base, except as what the others are moved onto.
        without = None if METHODS[method].base == "none" else base
        for repair in repairs_of(network)[: 2 if network == "resnet" else 1]:
            more = {"seed": seed, "model": _model(network), "data": data, **options,
                    "repair": None if repair == "none" else repair}  # fmt: skip
            plain = metanet.merge(models, method, base=without, **more)
            blind = metanet.merge(relabelled, method, base=without, **more)
            found = metanet.merge(relabelled, method, base=base, align="weight", arch=arch, **more)
            row = {"method": method, "repair": repair}
            yield {**row, "align": "not relabelled", **_on_tasks(network, plain)}
            yield {**row, "align": "none", **_on_tasks(network, blind)}
            yield {**row, "align": "weight", **_on_tasks(network, found), "seconds": _seconds(found),
                   "recovered": _recovered(found.alignments[0], planted),
                   "equal": _equal(found, plain)}  # fmt: skip


def own(network: str, seed: int, folder: Path) -> Iterator[Row]:
    """A network merged with its own relabelling."""
    model, arch = trained(network, 2 * seed, folder), architecture(network)
    planted = arch.spec.sample(torch.Generator().manual_seed(seed))
    for method in OWN:
        found = metanet.merge([model, planted(model)], method, align="weight", arch=arch)
        yield {"method": method, "align": "weight", "recovered": _recovered(found.alignments[1], planted),
               "equal": _equal(found, model), "seconds": _seconds(found)}  # fmt: skip


def soups(network: str, seed: int, folder: Path) -> Iterator[Row]:
    """Three networks fine-tuned from one base on all tasks, at different rates: the best of them,
    and their averages.

    What is chosen is chosen on images that were held out.
    """
    base = trained(network, 2 * seed, folder)
    train, held = pooled(network)
    models = [tuned(network, 10 * seed + k, f"all-{rate}", base, train, folder, rate=rate)
              for k, rate in enumerate((2e-4, 1e-3, 4e-3))]  # fmt: skip
    best = max(models, key=lambda each: _measured(network, each, held)["accuracy"])
    yield {"method": "best one", **_on_tasks(network, best)}
    yield {"method": "ensemble", **_mean([_of_scores(*_ensemble(network, models, digits(network, t)[1]))
                                          for t in TASKS])}  # fmt: skip
    for method in ("linear", "greedy_soup"):
        more = {"model": _model(network), "data": held} if METHODS[method].needs else {}
        yield {"method": method, **_on_tasks(network, metanet.merge(models, method, **more))}


def updates(network: str, seed: int, folder: Path) -> Iterator[Row]:
    """A network trained on 500 images, updated on 3,000: what the update gets wrong that was right
    before.

    The share of the old network is chosen on 1,000 other images.
    """
    train, test = digits(network)
    old = trained(network, 2 * seed, folder, batches=2)
    new = tuned(network, seed, "update", old, train[:12], folder, epochs=10)
    before = _right(network, old, test)

    def flipped(state: Mapping[str, Tensor]) -> Row:
        return {"negative_flips": flips(before, _right(network, state, test)).negative_rate}

    for name, state in (("old", old), ("new", new)):
        yield {"method": name, **_measured(network, state, test), **flipped(state)}
    scores, target = _ensemble(network, [old, new], test)
    found = flips(before, scores.argmax(1) == target)
    yield {
        "method": "ensemble",
        **_of_scores(scores, target),
        "negative_flips": found.negative_rate,
    }
    given = {"model": _model(network), "data": train[12:]}
    for name, options in (
        ("bcwi", {}),
        ("bcwi, importance", {"importance": True}),
        ("bcwi, half", {"alpha": 0.5}),
    ):
        merged = metanet.merge([new], "bcwi", base=old, **given, **options)
        yield {
            "method": name,
            **_measured(network, merged, test),
            **flipped(merged),
            "alpha": merged.report["alpha"],
        }


PARTS: dict[str, tuple[Callable[[str, int, Path], Iterator[Row]], tuple[str, ...]]] = {
    "pairs": (pairs, ("mlp", "vgg", "resnet")),
    "tasks": (tasks, tuple(NETWORKS)),
    "own": (own, tuple(NETWORKS)),
    "soups": (soups, ("mlp", "resnet")),
    "updates": (updates, ("mlp", "vgg", "resnet")),
}
"""By name: what yields the rows of one network and seed, and the networks."""


def repairs_of(network: str) -> tuple[str, ...]:
    """Without BatchNorm there is nothing to reset."""
    return (
        ("none", "bn_reset", "repair", "rescale")
        if network == "resnet"
        else ("none", "repair", "rescale")
    )


@cache
def architecture(network: str) -> metanet.Architecture:
    return metanet.trace(_model(network), digits(network)[0][0][0][:4])


@cache
def _model(network: str) -> torch.nn.Module:
    return NETWORKS[network]().eval()


def _loaded(network: str, state: Mapping[str, Tensor]) -> torch.nn.Module:
    model = NETWORKS[network]()
    model.load_state_dict(dict(state))
    return model.eval()


def _measured(network: str, state: Mapping[str, Tensor], data: Data) -> Row:
    metrics = find_metrics(["accuracy", "calibrated_loss"])
    run = Runner(torch.device("cpu"))
    return measure(_loaded(network, state), data, find_loss("cross_entropy"), metrics, run)[0]


def _on_tasks(network: str, state: Mapping[str, Tensor]) -> Row:
    """Means over the tasks."""
    return _mean([_measured(network, state, digits(network, task)[1]) for task in TASKS])


def _ensemble(network: str, states: Sequence[State], data: Data) -> tuple[Tensor, Tensor]:
    """Logarithms of the mean of the probabilities, and classes."""
    models = [_loaded(network, state) for state in states]
    with torch.no_grad():
        mean = [sum(m(x).softmax(1) for m in models) / len(models) for x, _ in data]
    return torch.cat(mean).log(), torch.cat([y for _, y in data])


def _of_scores(scores: Tensor, target: Tensor) -> Row:
    return {"accuracy": float((scores.argmax(1) == target).float().mean()),
            "loss": float(F.cross_entropy(scores, target))}  # fmt: skip


def _right(network: str, state: Mapping[str, Tensor], data: Data) -> Tensor:
    return right_answers(_loaded(network, state), data, Runner(torch.device("cpu")))


def _mean(rows: Sequence[Row]) -> Row:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _recovered(alignment: metanet.Alignment, planted: metanet.Transform) -> float:
    """Share of the groups whose planted relabelling is undone."""
    together = alignment.transform @ planted
    groups = [g.name for g in planted.spec.groups if g.kind == "permutation"]
    elements = [together.element(g) for g in groups]
    return sum(torch.equal(e, torch.arange(e.shape[-1]).expand(e.shape)) for e in elements) / len(
        groups
    )


def _equal(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Share of the floating tensors that are equal bit for bit."""
    names = [n for n, t in wanted.items() if t.is_floating_point()]
    return sum(torch.equal(found[n], wanted[n]) for n in names) / len(names)


def _seconds(merged: Merged) -> float:
    return sum(each.seconds for each in merged.alignments if each is not None)
