"""The start of a worker: MPI, and checks of the recipe, without MXNet."""

import os
import signal
from typing import Any

from ..errors import ClusterError

# How many tasks a launcher says that there are: MPICH and Intel's MPI, Open MPI, SLURM.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
MEETING, SUM = "D2L_AUTOREC_MEETING_TIMEOUT", "D2L_AUTOREC_SUM_TIMEOUT"
_DEFAULTS = {MEETING: 600, SUM: 60}  # seconds
INSTALL = "python -m pip install mpi4py 'mpich>=5'"


def launched() -> bool:
    """Tell whether a launcher such as mpiexec has started several processes."""
    return any(os.environ.get(name, "1") not in ("", "0", "1") for name in _SIZES)


def seconds(name: str) -> int:
    """Return how long to wait for the other workers, by an environment variable.

    Raises
    ------
    ClusterError
        If its value is not a positive whole number.
    """
    value = os.environ.get(name) or str(_DEFAULTS[name])
    if not (value.isdecimal() and int(value)):
        raise ClusterError(f"{name} is {value!r}; it is a whole number from 1")
    return int(value)


def enter() -> Any:
    """Start MPI, and wait for all processes that the launcher has started.

    Until then no process notices that another one has ended by an error.

    Returns
    -------
    mpi4py.MPI.Comm
        All of them.

    Raises
    ------
    ClusterError
        Without mpi4py, or if MPI does not know the others.
    """
    limits = [seconds(name) for name in _DEFAULTS]
    numbers = signal.SIGINT, signal.SIGTERM
    handlers = [signal.getsignal(number) for number in numbers]
    # As MPI starts no Python runs. Signals end this process, and mpiexec then the
    # others; so does an alarm if one of them does not come.
    signal.alarm(limits[0])
    try:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        import mpi4py

        mpi4py.rc.finalize = False  # see `join`
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ClusterError(f"several workers need MPI ({error}): {INSTALL}") from None
    finally:
        signal.alarm(0)
        for number, handler in zip(numbers, handlers):
            signal.signal(number, handler)
    if MPI.COMM_WORLD.size == 1:
        raise ClusterError(
            "the environment says that there are several tasks, and MPI that this one "
            "is alone: start them by the mpiexec of the MPI that mpi4py was built for"
        )
    return MPI.COMM_WORLD


def check_recipe(recipe: Any) -> None:
    """Check that several workers can train a recipe.

    Parameters
    ----------
    recipe : Recipe or Blend
        Its settings.

    Raises
    ------
    ClusterError
        If they cannot.
    """
    for one in recipe.recipes:
        if one.loss == "rmse":
            raise ClusterError(
                "the rmse loss takes the root over all ratings of a batch, and a "
                "worker has only some of them: train it in one process, or use "
                "--loss paper"
            )
        if one.optimizer != "adam":
            raise ClusterError(
                f"several workers train by adam; {one.optimizer} is for one process"
            )
