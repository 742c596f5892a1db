"""The command ``inspect``: trace an architecture, print its symmetries, and test them on the
network itself."""

from pathlib import Path
from textwrap import indent
from typing import Any

from torch import Tensor, nn

from .._cli.folders import keep_inputs
from .._cli.tracing import Inputs, make_network, trace_timed
from ..architecture import Architecture
from ..config import plain
from ..errors import MetanetError
from ..runs import write_metrics
from ..verification import Verification, verify


def inspect(cfg: Any) -> None:
    """Derive the symmetries of ``cfg.arch``, print them, and verify them on two examples of
    different sizes.

    Args:
        cfg: the composed ``conf/inspect.yaml``.

    Raises:
        MetanetError: no such network or device, no example inputs, an unknown tensor to explain, or
            the verification failed.
    """
    options = plain(cfg)
    ref = options["arch"]
    if options["out"] is not None:
        keep_inputs(options, [Path(options["out"]).expanduser()])
    model, examples, device = make_network(options)
    arch, seconds = trace_timed(model, ref, examples, options["input_shape"])
    print(arch)
    print(f"traced in {seconds:.1f} s with {_described(examples[0])}")
    if options["explain"] is not None:
        print(f"\n{arch.spec.explain(options['explain'])}\n")
    if options["out"] is not None:
        arch.save(Path(options["out"]).expanduser())
        print(f"saved as {options['out']}")
    reports = []
    if options["verify"] and device.type == "meta":
        print("not verified: the meta device has no values; device=cpu verifies")
    elif options["verify"]:
        reports = [
            _verified(model, arch, example, options["seed"], options["axes"])
            for example in examples
        ]
    _write_metrics(Path(options["paths"]["run_dir"]), arch, seconds, reports)
    _complain(ref, reports)


def _verified(
    model: nn.Module, arch: Architecture, example: Inputs, seed: int, axes: int | None
) -> Verification:
    args, kwargs = example
    report = verify(model, arch.spec, *args, seed=seed, axes=axes, **kwargs)
    print(f"verified with {_described(example)}\n{indent(str(report), '  ')}", flush=True)
    return report


def _write_metrics(
    run_dir: Path, arch: Architecture, seconds: float, reports: list[Verification]
) -> None:
    """What the table at the end of a sweep shows."""
    measured: dict[str, float] = {
        "groups": len(arch.spec.groups),
        "warnings": len(arch.warnings),
        "seconds": seconds,
    }
    if reports:
        measured["change"] = max(report.change for report in reports)
        measured["moved"] = min(report.moved for report in reports)
        measured["unseen"] = max(len(report.unseen) for report in reports)
    write_metrics(run_dir, measured)


def _complain(ref: str, reports: list[Verification]) -> None:
    failed = [report for report in reports if not report.ok]
    if not failed:
        return
    change = max(report.change for report in failed)
    lines = [
        f"the verification of {ref} failed: legal relabellings changed the output by "
        f"{change:.1e} of its spread"
    ]
    if blind := sorted(
        {f"{name} axis {axis}" for report in failed for name, axis in report.unexplained}
    ):
        lines.append(
            f"  {len(blind)} illegal relabellings changed nothing, for no reason that was found: "
            f"{', '.join(blind[:5])}{', ...' if len(blind) > 5 else ''}"
        )
    raise MetanetError("\n".join(lines))


def _described(example: Inputs) -> str:
    args, kwargs = example
    named = [
        *((f"input {i}" if len(args) > 1 else "input", x) for i, x in enumerate(args)),
        *kwargs.items(),
    ]
    return ", ".join(f"{name} {list(x.shape)}" for name, x in named if isinstance(x, Tensor))
