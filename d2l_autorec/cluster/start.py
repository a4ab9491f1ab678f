"""Whether there are several workers, and whether they can train; without MXNet."""

import os
from typing import Any

from ..errors import ClusterError

# How many tasks a launcher says that there are: MPICH and Intel's MPI, Open MPI, SLURM.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def launched() -> bool:
    """Tell whether a launcher such as mpiexec has started several processes."""
    return any(int(os.environ.get(name) or 1) > 1 for name in _SIZES)


def check_recipe(recipe: Any) -> None:
    """Check that workers can have a part of a training's columns each.

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
                "worker has but some of them: it is for one process (for several: "
                "--loss paper)"
            )
        if one.optimizer != "adam":
            raise ClusterError(
                f"several workers train by adam; {one.optimizer} is for one process"
            )
