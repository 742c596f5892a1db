"""The console script: ``metanet COMMAND key=value ...``; every command is a Hydra app.

A new command is one entry in :data:`COMMANDS` and one primary config, ``conf/COMMAND.yaml``. Around Hydra this adds:
paths need no quoting, ``resume=RUN_DIR``, one run directory for all ranks, a table at the end of a sweep, and errors
as messages. Expected errors (``MetanetError``, unknown keys and choices, a full disk) print without a traceback and
exit with 1, wrong usage with 2; programming errors keep the traceback, from our own frames on. With
``HYDRA_FULL_ERROR=1`` everything keeps its whole traceback.
"""

import importlib
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command: what ``metanet --help`` says of it, and the function that gets the composed configuration."""

    summary: str
    run: str  # "module:function"; imported when the command runs
    short: Mapping[str, str] = field(default_factory=dict)  # keys that may be given without their group


# zoo=folder path=DIR table=CSV ...
_ZOO = {key: f"zoo.{key}" for key in ("arch", "arch_args", "input_shape", "label", "nan", "path", "table")}
COMMANDS = {
    "train": Command(summary="learn from a zoo of networks", run="metanet.tasks:train", short=_ZOO),
    "predict": Command(
        summary="ask a trained metanetwork about a checkpoint",
        run="metanet.tasks:predict",
        short={"model": "model_class"},  # to Hydra, model is a group
    ),
    "inspect": Command(summary="derive and test the symmetries of an architecture", run="metanet._cli.inspect:inspect"),
    "graph": Command(summary="turn a checkpoint into a parameter graph, and draw it", run="metanet._cli.graph:graph"),
    "align": Command(summary="move one network's neurons onto those of another", run="metanet._cli.align:align"),
    "barrier": Command(summary="loss and accuracy between two networks", run="metanet._cli.barrier:barrier"),
    "merge": Command(summary="merge checkpoints, aligned first if asked for", run="metanet._cli.merge:merge"),
    "zoo": Command(summary="make a zoo, or finish one that was stopped", run="metanet.cli:make_zoo", short=_ZOO),
}


_FLAGS = ("-m", "--multirun", "--resolve")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: ``[COMMAND, "key=value", ...]``; default: what the process was started with.

    Returns:
        The exit code: 0, 1 for an expected error (its message is on stderr), 2 for wrong usage, 130 when interrupted.
    """
    # Before torch is imported: its OpenMP threads spin while they wait, and with another busy process on few cores
    # that makes training up to 75 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = list(sys.argv[1:] if argv is None else argv)
    if args and args[0] in ("-sc", "--shell-completion"):
        args = _completion(args)
    if not args or args[0] in ("-h", "--help"):
        print(_help(), file=sys.stdout if args else sys.stderr)
        return 0 if args else 2
    if args[0] == "--version":
        from importlib.metadata import version

        print(version("metanet"))
        return 0
    name, *rest = args
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        print(f"metanet: there is no command {name!r}; choose from {', '.join(COMMANDS)}.{hint}", file=sys.stderr)
        return 2
    return _run(name, rest)


def make_zoo(cfg: Any) -> None:
    """The command ``zoo``: build ``cfg.zoo``, make or finish its networks, print what it is.

    Args:
        cfg: the composed configuration; ``cfg.zoo`` names a class with ``load(progress=True)``.
    """
    from .config import build

    print(repr(build(cfg.zoo).load(progress=True)))


def _run(name: str, args: list[str]) -> int:
    from ._cli import directories, errors, overrides, recipe, sweep

    # Hydra's parser takes overrides in one stretch only: flags without a value may stand anywhere here
    flags = [a for a in args if a in _FLAGS]
    args = [*flags, *(a for a in args if a not in _FLAGS)]
    prepared = overrides.prepare(args, COMMANDS[name].short)
    directories.sweep_dir = None
    keep = os.environ.get("HYDRA_FULL_ERROR") == "1"
    failure: Exception | None = None
    try:
        final = overrides.resumed(directories.follow_main_rank(prepared))
        if name == "merge":
            recipe.check_primary(final)
            final = recipe.replayed(final)
        _hydra(name, final)
    except Exception as error:
        failure = error
    except directories.Refused as refused:
        failure = refused.error
    except KeyboardInterrupt:
        print(f"metanet {name}: stopped", file=sys.stderr)
        return 130
    finally:
        directories.release()
        if directories.sweep_dir is not None and (table := sweep.summarize(directories.sweep_dir)):
            print(f"\n{table}")
    if failure is None:
        return 0
    text = None if keep else errors.message(failure, name, prepared)
    if text is None:
        raise failure if keep else failure.with_traceback(_own_frames(failure))
    print(f"metanet {name}: {text}", file=sys.stderr)
    return 1


def _hydra(name: str, args: list[str]) -> None:
    """Compose ``conf/NAME.yaml`` with ``args`` and call the command's function, once or once per job of a sweep."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from .config import conf_dir

    original = list(sys.argv)
    app = hydra.main(config_path=str(conf_dir()), config_name=name, version_base="1.3")(_task(name, original))
    # Hydra prints errors and exits unless it is told to raise them; how they look is decided in one place, here.
    with _environment("HYDRA_FULL_ERROR", "1"):
        sys.argv = [original[0], *args]
        try:
            app()
        finally:
            sys.argv = original
            GlobalHydra.instance().clear()


def _task(name: str, argv: list[str]) -> Callable[[Any], Any]:
    """What Hydra calls for each job: checks the configuration, then runs the command's function."""

    def task(cfg: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig

        from . import config, trust
        from ._cli.directories import is_main_rank, record, tell_ranks
        from ._cli.folders import alone

        logging.raiseExceptions = False  # a full disk is told once, not with a traceback for every line of the log
        sys.argv = argv  # Lightning starts further processes by the command line of this one
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        try:
            if is_main_rank():
                (run_dir / "error.txt").unlink(missing_ok=True)
                if cfg.get("resume"):
                    record(cfg, run_dir)
                tell_ranks(str(run_dir))
            if os.getcwd() not in sys.path:
                sys.path.append(os.getcwd())  # arch=my_networks:factory; last, so that it hides no installed package
            options = config.plain(cfg)
            if name == "train" and is_main_rank():
                # made here: it may be resumed as it is
                trust.remember(run_dir, HydraConfig.get().overrides.task)
            module, _, function = COMMANDS[name].run.partition(":")
            run = getattr(importlib.import_module(module), function)
            with trust.trusting(*trust.folders_named(options.get("trust"))), alone(options, run_dir):
                return run(cfg)
        except KeyboardInterrupt:
            if is_main_rank() and name == "train":
                print(f"go on with: metanet train resume={shlex.quote(str(run_dir))}", file=sys.stderr)
            raise
        except Exception as error:
            if is_main_rank():
                with suppress(OSError):
                    text = f"{type(error).__name__}: {error}\n\n{''.join(traceback.format_exception(error))}"
                    (run_dir / "error.txt").write_text(text)
            raise

    return task


def _own_frames(error: Exception) -> Any:
    """The traceback from where Hydra called our task; the whole one for errors outside it."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_name != "task":
        frames = frames.tb_next
    return frames or error.__traceback__


@contextmanager
def _environment(name: str, value: str) -> Any:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


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
    """Hydra completes one app; find the command in the line being typed, and hand the rest of it to that app."""
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
