"""The console script: ``metanet COMMAND key=value ...``; every command is a Hydra app.

A new command is one entry in :data:`COMMANDS`, one function ``metanet/commands/COMMAND.py:COMMAND``
and one primary config, ``conf/COMMAND.yaml``. Around Hydra this adds: paths need no quoting, all
mistakes of a command line are told at once and before anything starts, ``--help`` with the comments
of the values, ``resume=RUN_DIR``, one run directory for all ranks, a table at the end of a sweep,
Ctrl-C that says how to go on, and errors as messages.
Expected errors (``MetanetError``, unknown keys and choices, a full disk) print without a traceback
and exit with 1, wrong usage with 2; programming errors keep the traceback, from our own frames on.
With ``HYDRA_FULL_ERROR=1`` everything keeps its whole traceback.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command, whose function is ``metanet/commands/NAME.py:NAME``.

    Attributes:
        summary: what ``metanet --help`` says of it.
        short: keys that may be given without their group -> where they stand.
    """

    summary: str
    short: Mapping[str, str] = field(default_factory=dict)


# zoo=folder path=DIR table=CSV ...
_ZOO = {
    key: f"zoo.{key}"
    for key in ("arch", "arch_args", "input_shape", "label", "nan", "path", "table")
}
COMMANDS = {
    "train": Command(summary="learn from a zoo of networks", short=_ZOO),
    "predict": Command(
        summary="ask a trained metanetwork about a checkpoint",
        short={"model": "model_class"},  # to Hydra, model is a group
    ),
    "inspect": Command(summary="derive and test the symmetries of an architecture"),
    "graph": Command(summary="turn a checkpoint into a parameter graph, and draw it"),
    "align": Command(summary="move one network's neurons onto those of another"),
    "barrier": Command(summary="loss and accuracy between two networks"),
    "merge": Command(summary="merge checkpoints, aligned first if asked for"),
    "zoo": Command(summary="make a zoo, or finish one that was stopped", short=_ZOO),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: ``[COMMAND, "key=value", ...]``; default: what the process was started with.

    Returns:
        The exit code: 0, 1 for an expected error (its message is on stderr), 2 for wrong usage, 130
        when interrupted.
    """
    # Before torch is imported: its OpenMP threads spin while they wait, and with another busy
    # process on few cores that makes training up to 75 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = list(sys.argv[1:] if argv is None else argv)
    if args and args[0] in ("-sc", "--shell-completion"):
        args = _completion(args)
    if not args or args[0] in ("-h", "--help"):
        print(_help(), file=sys.stdout if args else sys.stderr)
        return 0 if args else 2
    if args[0] == "--version":
        from . import __version__

        print(__version__)
        return 0
    name, *words = args
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        print(
            f"metanet: there is no command {name!r}; choose from {', '.join(COMMANDS)}.{hint}",
            file=sys.stderr,
        )
        return 2
    return _until_stopped(name, words)


def _until_stopped(name: str, args: list[str]) -> int:
    """Run a command, and hear Ctrl-C from before the first import on."""
    from ._cli import stopping
    from ._cli.running import Outcome

    outcome = Outcome()
    with stopping.listening() as stop:
        try:
            return _run(name, args, outcome)
        except BaseException as error:
            # Lightning makes SystemExit of Ctrl-C, and imports of compiled modules make what they
            # like of it
            if not (stop.asked or isinstance(error, KeyboardInterrupt)):
                raise
    print(f"metanet {name}: {stopping.how_to_go_on(name, args, outcome.run_dir)}", file=sys.stderr)
    return stopping.EXIT_CODE


def _run(name: str, args: list[str], outcome: Any) -> int:
    """Run a command, and tell its expected errors as messages."""
    from ._cli import directories, errors, running

    with directories.claiming() as claims:
        try:
            failure = _failure(name, args, outcome)
        finally:
            claims.release()
            if claims.sweep_dir is not None:
                _summarize(claims.sweep_dir)
    if failure is None:
        return 0
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise failure
    text = errors.message(failure, claims.run_dir)
    if text is None:
        raise failure.with_traceback(running.own_frames(failure))
    print(f"metanet {name}: {text}", file=sys.stderr)
    return 1


def _failure(name: str, args: list[str], outcome: Any) -> Exception | None:
    """What went wrong in a command; ``None`` if nothing did."""
    from ._cli import directories, overrides, own, usage
    from ._cli.help import help_of

    flags, words = usage.split(args)
    short = COMMANDS[name].short
    # Hydra's parser takes overrides in one stretch only: flags may stand anywhere here
    prepared = overrides.prepare([*flags, *words], short)
    if os.getcwd() not in sys.path:
        # arch=my_networks:factory; last, so that it hides no installed package
        sys.path.append(os.getcwd())
    try:
        if "-h" in flags or "--help" in flags:
            own.announce(prepared)
            print(help_of(name, overrides.prepare(words, short)))
        else:
            _start(name, prepared, flags, outcome)
    except Exception as error:
        return error
    except directories.Refused as refused:
        return refused.error
    return outcome.failure


def _start(name: str, prepared: list[str], flags: list[str], outcome: Any) -> None:
    """Check everything, then hand over to Hydra.

    Args:
        name: the command.
        prepared: the arguments, with an earlier run's own or a recipe's still to be added.
        flags: Hydra's own among them.
        outcome: is told of the runs.
    """
    from ._cli import directories, overrides, own, plugged, recipe, running, usage

    final = prepared
    if name == "train":
        final = overrides.resumed(prepared)
    if name == "merge":
        recipe.check_primary(prepared)
        final = recipe.replayed(prepared)
    # The words of an earlier run or a recipe came before the flags: those must not part the words
    flags, words = usage.split(final)
    final = [*flags, *words]
    with plugged.told(name):
        own.announce(final)
        _check(name, final, flags)
        running.run(name, directories.follow_main_rank(final), outcome)


def _summarize(sweep_dir: Path) -> None:
    from ._cli import sweep

    table = sweep.summarize(sweep_dir)
    if table:
        print(f"\n{table}")


def _check(name: str, prepared: list[str], flags: list[str]) -> None:
    """All mistakes of a command line at once, before there is a run directory.

    Raises:
        MetanetError: there are some.
    """
    from ._cli import checks, preflight
    from .errors import MetanetError

    starting = {"-m", "--multirun", "-r", "--run"}
    if {flag.partition("=")[0] for flag in flags} - starting:
        # Hydra shows something, or reads configurations from elsewhere: each job is checked when it
        # starts
        return
    mistakes = preflight.mistakes(name, prepared)
    if mistakes:
        raise MetanetError(checks.as_text(mistakes))


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: metanet COMMAND [key=value ...]",
            "",
            *lines,
            "",
            "metanet COMMAND --help lists the keys and choices of a command.",
            'Tab completion for bash: eval "$(metanet -sc install=bash)"',
        ]
    )


def _completion(args: list[str]) -> list[str]:
    """Hydra completes one app; find the command in the line being typed, and hand the rest of it to
    that app."""
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()[1:]
    if not any("query=" in arg for arg in args):
        return ["train", *args]  # installing is the same for every command
    if not typed or typed[0] not in COMMANDS or line.endswith(typed[0]):
        print(*(name for name in COMMANDS if name.startswith(" ".join(typed))))
        sys.exit(0)
    os.environ["COMP_LINE"] = line.replace(f" {typed[0]}", "", 1)
    return [typed[0], *args]


if __name__ == "__main__":
    sys.exit(main())
