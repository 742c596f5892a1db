"""One network of the coverage benchmark, measured in a process of its own.

What is known of the network so far is sent whenever it goes on to the next stage: who stops the
process for taking too long keeps what the finished stages found.
"""

import argparse
import os
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from _families import Case, build

import metanet
from metanet.sources import import_torchvision
from metanet.symmetry import Derivation, derive, fixed_of, leaves_of
from metanet.tracing import Trace, example_inputs, record

import_torchvision()
import timm  # noqa: E402, F401  (imported once, before processes are forked)
import transformers.modeling_utils  # noqa: E402, F401

LEGITIMATE = (
    "network's input", "network's output", "kernel", "slides along", "position", "selected along",
    "looked up", "constant varies", "single item", "stacked along", "ranked by size",
)  # fmt: skip
"""Parts of the reasons (``Fixed.reason``) for which an axis has to stay as it is: features that the
network takes or gives, and places in an image, a sequence, a kernel or a table."""

Report = Callable[..., None]


def run(case: Case, options: Mapping[str, Any], connection: Connection) -> None:
    """Measure one network and send its row, stage by stage.

    Args:
        options: ``axes``, ``probes``, ``memory`` in GB, ``verify_up_to`` in parameters, ``dry``.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (int(options["memory"] * 1e9),) * 2)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (what libraries print is no part of the row)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    row: dict[str, Any] = {}

    def report(stage: str, **fields: Any) -> None:
        row.update(fields, stage=stage)
        row["peak GB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
        connection.send(dict(row))

    try:
        measure(case, argparse.Namespace(**options), report)
    except Exception as error:  # a network that fails is a result
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        report(
            row["stage"],
            status=f"failed: {row['stage']}",
            error=f"{type(error).__name__}: {text}"[:300],
        )
    connection.close()


def measure(case: Case, args: argparse.Namespace, report: Report) -> None:
    """Build, run, record, derive, verify; every ``report`` names the stage that comes next."""
    report("build")
    model = build(case)
    parameters = sum(p.numel() for p in model.parameters())
    report("example inputs", parameters=parameters)
    example = example_inputs(model)
    if example is None:
        raise LookupError(f"nothing tells what {type(model).__name__} takes")
    given = [(example.args, dict(example.kwargs)), *([example.check] if example.check else [])]
    report("forward")
    with torch.no_grad():
        for positional, named in given:
            model(*positional, **named)
    if args.dry:
        report("done", status="runs")
        return

    report("record")
    start = time.perf_counter()
    traces = [record(model, *given[0])]
    seconds = time.perf_counter() - start
    traces += [record(model, *other) for other in given[1:]]
    report("analysis", traced="yes", ops=len(traces[0].ops), **{"record s": round(seconds, 3)})
    start = time.perf_counter()
    derive(traces[0])
    seconds = time.perf_counter() - start
    solved = derive(*traces)
    report("verify", **{"analysis s": round(seconds, 4)}, **described(solved, traces))

    if parameters > args.verify_up_to:
        report("done", status="too large to verify here")
        return
    start = time.perf_counter()
    found = metanet.verify(
        model, solved.spec, *given[0][0], axes=args.axes, probes=args.probes, **given[0][1]
    )
    explained = len(found.unseen) - len(found.unexplained)
    report("verify check", **{
        "change": f"{found.change:.1e}", "axes checked": len(found.sensitivity),
        "unseen, reason known": explained, "unseen, no reason": len(found.unexplained),
        "unseen": names(f"{n} axis {a}" for n, a in found.unexplained),
    })  # fmt: skip
    sound, checked = found.change < metanet.verification.TOLERANCE, ""
    for positional, named in given[1:]:
        again = metanet.verify(
            model, solved.spec, *positional, sensitivity=False, probes=min(2, args.probes), **named
        )
        sound, checked = (
            sound and again.change < metanet.verification.TOLERANCE,
            f"{again.change:.1e}",
        )
    status = "unsound" if not sound else "unseen axes" if found.unexplained else "ok"
    seconds = time.perf_counter() - start
    report("done", status=status, **{"change on check": checked, "verify s": round(seconds, 1)})


def described(solved: Derivation, traces: Sequence[Trace]) -> dict[str, Any]:
    """What a spec holds, in numbers and a few names."""
    spec = solved.spec
    unruled = Counter(
        op.name for op, rule in zip(traces[0].ops, solved.semantics, strict=True) if rule is None
    )
    read = {n for t in traces for op in t.ops for n in (t.values[v].names for v in op.inputs())}
    read |= {t.values[v].names for t in traces for v in t.outputs}
    read_names = {name for names_ in read for name in names_}
    moving = {g.name for g in spec.groups if g.kind != "fixed" and g.size > 1}
    counts, stuck, reasons = Counter(), [], Counter()
    for name, tensor in spec.tensors.items():
        if len(tensor.shape) < 2 or tensor.tied_to is not None:
            continue
        counts["all"] += 1
        why = {f.reason for axis in tensor.axes for f in fixed_of(axis) if f.size > 1}
        if any(leaf.group in moving for axis in tensor.axes for leaf in leaves_of(axis)):
            counts["movable"] += 1
        elif name not in read_names:
            counts["unread"] += 1
        elif all(map(is_legitimate, why)):
            counts["legitimate"] += 1
        else:
            stuck.append(name)
            reasons.update(reason for reason in why if not is_legitimate(reason))
    permutations = [g for g in spec.groups if g.kind != "fixed"]
    return {
        "warnings": len(solved.warnings),
        "ops without rule": "; ".join(f"{name} x{n}" if n > 1 else name for name,
            n in sorted(unruled.items())),
        "groups": len(permutations), "keyed groups": sum(bool(g.keys) for g in permutations),
        "tensors": counts["all"], "movable": counts["movable"], "pinned, legitimate": counts["legitimate"],
        "never read": counts["unread"], "not movable": len(stuck), "not movable, names": names(stuck),
        "not movable, reasons": "; ".join(f"{reason} x{n}" for reason, n in reasons.most_common(3)),
    }  # fmt: skip


def is_legitimate(reason: str) -> bool:
    """Whether an axis has to stay for this reason, rather than for want of a rule."""
    what = reason.partition(" (")[
        0
    ]  # without the operation and the module, whose name may be anything
    return any(part in what for part in LEGITIMATE)


def names(found: Iterator[str] | Sequence[str]) -> str:
    """The first three, and how many more."""
    found = list(found)
    return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
