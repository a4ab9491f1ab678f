"""MXNet's import, made to work with today's Pythons and beside other processes.

MXNet 1.9.1 is the last release. Its compiled part works with every NumPy since, but its
import reads names that NumPy removed in 1.24 and 2.0
(https://github.com/apache/mxnet/issues/21165): they are given to MXNet alone.

Its settings are here, too. By default it takes half as many threads as there are cores,
and waiting threads spin, which slows small operations many times as soon as another
process runs; here it takes a thread a core, and waiting threads sleep. Without CUDA it
gets the engine that computes an operator where it is called: handing a small operator
to a thread takes longer than the operator. Variables that the environment already sets
stay; values that would end the process are refused.
"""

import mmap
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NoReturn

from .errors import InvalidVariable, MXNetUnusable

# What NumPy removed and MXNet reads: a number, the name of its successor, or None for a
# function that MXNet offers and never calls.
REMOVED = {
    **dict.fromkeys(("Inf", "PINF"), float("inf")),
    **dict.fromkeys(("NAN", "NaN"), float("nan")),
    **{"NINF": float("-inf"), "PZERO": 0.0, "NZERO": -0.0},
    **{"alltrue": "all", "product": "prod", "round_": "round", "sometrue": "any"},
    "trapz": "trapezoid",
    **dict.fromkeys(("in1d", "mirr", "msort", "npv", "pmt", "ppmt", "pv", "rate")),
}
_ROOM = 400 << 20  # bytes of addresses that its libraries take
_ENGINES = ("NaiveEngine", "ThreadedEngine", "ThreadedEnginePerDevice")
# Variables that can end the process or the import of MXNet, Numba or tqdm: their names,
# the valid values, and these in words.
_VARIABLES = (
    ("(OMP|NUMBA)_NUM_THREADS", "([1-9][0-9]{0,3})?", "a whole number from 1 to 9999"),
    ("MXNET_.+THREADS", "[0-9]{0,4}", "a whole number up to 9999"),
    (
        "MXNET_((CPU|DISABLE|EXEC|GPU|KVSTORE|MKLDNN|PROFILER)_.+(?<!_TYPE)"
        "|.+_(CORES_OPERATOR_TUNING|CYTHON|TUNING_DATA|TUNING_INFO))",
        "(-?[0-9]{1,9})?",
        "a whole number",
    ),
    ("MXNET_ENGINE_TYPE", "|".join(_ENGINES), f"one of {', '.join(_ENGINES)}"),
    ("NUMBA_DISABLE_JIT", "0?", "0, as some loops run compiled alone"),
    ("NUMBA_CPU_FEATURES", "([+-][^,]+(,|$))*", "such as +avx2,-fma"),
    ("TQDM_(INITIAL|NCOLS|NROWS|POSITION|UNIT_DIVISOR)", "[0-9]+", "a whole number"),
    (
        "MXNET_TUNING_WEIGHT_SCALE"
        "|TQDM_(DELAY|MAXINTERVAL|MININTERVAL|MINITERS|SMOOTHING|TOTAL)",
        "[0-9]*[.]?[0-9]+|inf",
        "a number",
    ),
    ("TQDM_(GUI|LOCK_ARGS|WRITE_BYTES)", "", "unset"),
)


class MXNetFinder:
    """Finds MXNet for every import, and prepares its loading."""

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> ModuleSpec | None:
        """Find MXNet; Python's own finders find all other modules."""
        spec = PathFinder.find_spec(name) if name == "mxnet" else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_ready(module: ModuleType) -> None:
            # An earlier import that failed has left halves of modules.
            for leftover in [name for name in sys.modules if name.startswith("mxnet.")]:
                del sys.modules[leftover]
            check_variables()
            with _defaults(OMP_NUM_THREADS=str(num_cores()), OMP_WAIT_POLICY="PASSIVE"):
                _check_process()
                # Its code is old: -W error would turn warnings into errors.
                with removed_names(), stand_ins(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    load(module)
                warnings.filterwarnings("ignore", module=r"mxnet\.")
                _mend_split(module)
                if not _has_cuda(module):
                    _start_engine(module)

        spec.loader.exec_module = load_ready  # type: ignore[method-assign]
        return spec


def num_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int:
    """Return how many bytes of memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_variables() -> None:
    """Refuse environment variables with values that would end the process."""
    for name, value in os.environ.items():
        for names, values, kind in _VARIABLES:
            if re.fullmatch(names, name) and not re.fullmatch(values, value):
                raise InvalidVariable(
                    f"the environment variable {name} is {value!r}; it has to be {kind}"
                )


@contextmanager
def _added(
    mapping: MutableMapping[str, Any], entries: Mapping[str, Any]
) -> Iterator[None]:
    """Add missing entries to a mapping, and remove them at the end."""
    added = {name: value for name, value in entries.items() if name not in mapping}
    mapping.update(added)
    try:
        yield
    finally:
        for name in added:
            mapping.pop(name, None)


def _defaults(**settings: str) -> AbstractContextManager[None]:
    """Set variables that are not set; child processes inherit none of them."""
    return _added(os.environ, settings)


def _check_process() -> None:
    """Refuse a process in which MXNet's import ends it or prints a traceback."""
    if sys.flags.optimize > 1:
        raise MXNetUnusable(
            "MXNet cannot be imported without docstrings (python -OO); -O will do"
        )
    try:
        mmap.mmap(-1, _ROOM).close()
    except OSError:  # a limit (`ulimit -v`) under which libraries end the process
        raise MemoryError(f"MXNet takes {_ROOM >> 20} MiB") from None


@contextmanager
def removed_names() -> Iterator[None]:
    """Give MXNet, and no other module, the names that NumPy removed."""
    import numpy

    refuse = numpy.__getattr__  # NumPy's own answer to an unknown name

    def answer(name: str) -> Any:
        module = sys._getframe(1).f_globals.get("__name__", "")
        if module.partition(".")[0] != "mxnet" or name not in REMOVED:
            return refuse(name)
        value = REMOVED[name]
        if value is None:
            return partial(_refuse_call, name)
        return getattr(numpy, value) if isinstance(value, str) else value

    vars(numpy)["__getattr__"] = answer
    try:
        yield
    finally:
        vars(numpy)["__getattr__"] = refuse


def _refuse_call(name: str, *args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(f"NumPy has no {name} any more")


def stand_ins() -> AbstractContextManager[None]:
    """Let MXNet import something light instead of modules that are slow or gone.

    It compares NumPy's version by distutils, which Python 3.12 removed; scipy.stats,
    slow to import, serves one function that is hardly ever called.
    """
    from packaging.version import Version

    versions = ModuleType("distutils.version")
    vars(versions).update(LooseVersion=Version, StrictVersion=Version)
    modules = {
        "distutils": ModuleType("distutils"),
        "distutils.version": versions,
        "scipy.stats": _Later("scipy.stats"),
    }
    return _added(sys.modules, modules)


class _Later(ModuleType):
    """A module that is imported at its first use."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def _mend_split(mxnet: Any) -> None:
    """Let arrays be split at NumPy's integers, as `split_and_load` does.

    MXNet passes them on as text, which is ``np.int64(4)`` since NumPy 2.
    """
    split = mxnet.np.split

    @wraps(split)
    def split_at_ints(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
        if not isinstance(indices_or_sections, int):
            indices_or_sections = [int(index) for index in indices_or_sections]
        return split(ary, indices_or_sections, axis)

    mxnet.np.split = split_at_ints


def _has_cuda(mxnet: Any) -> bool:
    return bool(mxnet.runtime.Features().is_enabled("CUDA"))


def _start_engine(mxnet: Any) -> None:
    """Start the engine without threads, and hide its line on standard error."""
    with _defaults(MXNET_ENGINE_TYPE="NaiveEngine"), silent_stderr():
        mxnet.nd.waitall()


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard what compiled code writes to standard error."""
    if sys.stderr:
        sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # closed, as in a program without a terminal
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
