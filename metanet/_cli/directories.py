"""Which directory a run writes to: one of its own, and the same for all ranks of a distributed
run."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from ..errors import MetanetError
from .overrides import is_sweep, quote, value_of

_KEY = "metanet/run_dir"
_PATIENCE = timedelta(minutes=5)


@dataclass
class Claims:
    """The directories that a command writes to, as long as :func:`claiming` lasts.

    Attributes:
        run_dir: of the run that started last; the current folder before.
        sweep_dir: of the sweep; ``None`` where there is none.
    """

    run_dir: Path = Path()
    sweep_dir: Path | None = None
    _locks: ExitStack = field(default_factory=ExitStack)

    def lock(self, path: Path) -> None:
        """Be alone in a directory, and remove what a run that was killed has left there.

        Raises:
            MetanetError: another process is at work there, or nothing can be written.
        """
        from ..checkpoints import hold, remove_leftovers  # here, since it imports torch

        self._locks.enter_context(hold(path))
        remove_leftovers(path / "any", r"[0-9a-f]{8}\.partial\..*")

    def release(self) -> None:
        """Let others write into the directories."""
        self._locks.close()


# Hydra makes its callbacks itself: they find here what the command that started it waits to hear
_claims: ContextVar[Claims] = ContextVar("claims")


@contextmanager
def claiming() -> Iterator[Claims]:
    """A command, which hears here of the directories that Hydra's runs and sweeps claim."""
    claims = Claims()
    token = _claims.set(claims)
    try:
        yield claims
    finally:
        _claims.reset(token)
        claims.release()


def _current() -> Claims:
    """Those of the command that is running; of the process where Hydra was started by others."""
    claims = _claims.get(None)
    if claims is None:
        claims = Claims()
        _claims.set(claims)
    return claims


class Refused(BaseException):
    """The run directory can't be had. No Exception: Hydra would turn it into a warning, and write
    there all the same.

    Args:
        error: why.
    """

    def __init__(self, error: MetanetError) -> None:
        super().__init__(str(error))
        self.error = error


class RunDirectories(Callback):
    """Hydra callback: a new run or sweep gets a directory that nobody has, and is alone in it as
    long as it runs.

    Names are made of the time in seconds; where two runs start in the same second, the second one
    gets ``..._2``. A directory that was asked for (``hydra.run.dir=``, ``resume=``) is taken as it
    is, unless another process is at work in it: Hydra has not written anything by then.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _claim(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sweep_dir = _claim(config, "sweep")
        _current().sweep_dir = sweep_dir


def _claim(config: DictConfig, kind: str) -> Path:
    claims = _current()
    path = claims.run_dir = _choose(config, kind)
    if is_main_rank():  # the others write nothing
        try:
            claims.lock(path)
        except MetanetError as error:
            raise Refused(error) from error
    return path


def _choose(config: DictConfig, kind: str) -> Path:
    HydraConfig.instance().set_config(config)  # the names hold ${hydra:...}
    node, key = config.hydra[kind], f"hydra.{kind}.dir"
    wanted = Path(node.dir)
    if value_of(key, list(config.hydra.overrides.hydra)) is not None:
        return wanted
    path, number = wanted, 1
    while True:
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
            path = wanted.with_name(f"{wanted.name}_{number}")
        except OSError:
            return wanted  # locking it says why
    with read_write(config.hydra), open_dict(config.hydra):
        node.dir = str(path)
        config.hydra.overrides.hydra.append(
            f"{key}={quote(str(path))}"
        )  # jobs of a sweep compose anew
    return path


def record(cfg: DictConfig, run_dir: Path) -> None:
    """Write what a resumed run was asked for where Hydra wrote that of the first, each file whole
    or not at all."""
    from ..checkpoints import atomic_write

    asked = OmegaConf.to_yaml(HydraConfig.get().overrides.task)
    for name, text in (("config.yaml", OmegaConf.to_yaml(cfg)), ("overrides.yaml", asked)):
        with atomic_write(run_dir / ".hydra" / name) as temporary:
            temporary.write_text(text)


def is_main_rank() -> bool:
    """Whether this process is rank 0, or alone: torchrun, SLURM and Lightning's own launcher say it
    by environment."""
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return os.environ["SLURM_PROCID"] == "0"
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"


def world_size() -> int:
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ.get("SLURM_NTASKS", "1"))


def follow_main_rank(args: list[str]) -> list[str]:
    """On ranks other than 0: wait for rank 0's run directory, write there, and leave Hydra's files
    and logs to it.

    Rank 0 tells the directory through the store that torchrun keeps for its workers
    (:func:`tell_ranks`). Processes started otherwise (``srun`` without torchrun) need a directory
    that all are given: ``hydra.run.dir=DIR``.

    Raises:
        MetanetError: a sweep over several processes, no way to learn the directory, or rank 0
            didn't tell it.
    """
    if world_size() > 1 and is_sweep(args):
        raise MetanetError(
            "a sweep (-m) runs its jobs one by one in one process; "
            "with several processes (torchrun, srun, NODE_RANK) start one run at a time"
        )
    if is_main_rank():
        return args
    quiet = [
        "hydra.output_subdir=null",
        "hydra/job_logging=stdout",
        "hydra.job_logging.root.level=WARNING",
    ]
    given = value_of("hydra.run.dir", args)
    if given is not None and "${" not in given:
        return [*args, *quiet]
    store = _store()
    if store is None:
        raise MetanetError(
            f"this process is not rank 0 of {world_size()} and can't learn where rank 0 writes: "
            "there is no torchrun. "
            f"Start it by torchrun, or give all ranks one directory, e.g. hydra.run.dir=outputs/$SLURM_JOB_ID"
        )
    try:
        run_dir = store.get(_key()).decode()
    except RuntimeError as error:  # torch.distributed.DistStoreError: timed out, or rank 0 is gone
        raise MetanetError(
            f"rank 0 didn't say where it writes within {_PATIENCE}; see its messages"
        ) from error
    return [*args, f"hydra.run.dir={quote(run_dir)}", *quiet]


def tell_ranks(run_dir: str) -> None:
    """On rank 0 under torchrun: let the other ranks know the run directory. Hydra's files are in it
    already."""
    if world_size() > 1 and is_main_rank() and (store := _store()) is not None:
        store.set(_key(), run_dir)


def _key() -> str:
    return f"{_KEY}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _store() -> Any:
    """A client of the store that torchrun's agent keeps; None where there is none."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=_PATIENCE)
