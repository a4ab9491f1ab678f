"""What MXNet needs around its import, on today's Pythons and with threads that sleep.

MXNet 1.9.1 is the last release. Its compiled part works with every NumPy since, but as
it is imported it asks NumPy for names that are gone since 1.24 and 2.0
(https://github.com/apache/mxnet/issues/21165). They are handed to MXNet alone.

It also reads settings as it is imported, and as its engine starts, which is here too.
By default it takes half as many threads as there are cores, and its threads spin while
they wait for each other, which makes small operations many times slower as soon as
anything else runs on the machine; here it gets a thread a core, and they sleep. Of its
engines, a build without CUDA gets the one that computes an operator where it is called:
the other one hands each operator to a thread of its own, which takes longer than a
small operator does. Settings that the environment already has stay; those that would
end the process are refused.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NoReturn

from .errors import InvalidVariable, MXNetUnusable

_NUMBERS = {
    "Inf": float("inf"),
    "PINF": float("inf"),
    "NINF": float("-inf"),
    "NAN": float("nan"),
    "NaN": float("nan"),
    "PZERO": 0.0,
    "NZERO": -0.0,
}
_HEIRS = {
    "alltrue": "all",
    "product": "prod",
    "round_": "round",
    "sometrue": "any",
    "trapz": "trapezoid",
}
# MXNet offers these, too, but calls none of them.
_EXTINCT = ("in1d", "mirr", "msort", "npv", "pmt", "ppmt", "pv", "rate")
_ROOM = 400 << 20  # bytes of addresses that its libraries take
_ENGINES = ("NaiveEngine", "ThreadedEngine", "ThreadedEnginePerDevice")
# The environment variables for which MXNet, Numba and tqdm end the process or cannot be
# imported: their names, the values that they may have, and these in words.
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
    """Finds MXNet for whoever imports it, and has it imported as it needs it."""

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> ModuleSpec | None:
        """Find a module; for any but MXNet that is left to Python's own finders."""
        spec = PathFinder.find_spec(name) if name == "mxnet" else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_ready(module: ModuleType) -> None:
            # What an import without us that failed has left: halves of modules.
            for leftover in [name for name in sys.modules if name.startswith("mxnet.")]:
                del sys.modules[leftover]
            check_variables()
            with _defaults(OMP_NUM_THREADS=str(num_cores()), OMP_WAIT_POLICY="PASSIVE"):
                _check_process()
                # Warnings about old code, which -W error would make errors of.
                with _removed_names(), _stand_ins(), warnings.catch_warnings():
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
    """Refuse values of environment variables that libraries end the process for."""
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
    """Add the entries that a mapping does not have, and take them out again."""
    added = {name: value for name, value in entries.items() if name not in mapping}
    mapping.update(added)
    try:
        yield
    finally:
        for name in added:
            mapping.pop(name, None)


def _defaults(**settings: str) -> AbstractContextManager[None]:
    """Set variables that are not set, and take them back: children inherit none."""
    return _added(os.environ, settings)


def _check_process() -> None:
    """Refuse what MXNet only says on standard error, or with a traceback."""
    if sys.flags.optimize > 1:
        raise MXNetUnusable(
            "MXNet cannot be imported without docstrings (python -OO); -O will do"
        )
    try:
        mmap.mmap(-1, _ROOM).close()
    except OSError:  # as of `ulimit -v`, under which its libraries end the process
        raise MemoryError(f"MXNet takes {_ROOM >> 20} MiB") from None


@contextmanager
def _removed_names() -> Iterator[None]:
    """Answer MXNet, and nobody else, for names that NumPy no longer has."""
    import numpy

    # NumPy's own answer to a name that it does not have.
    refuse = numpy.__getattr__

    def answer(name: str) -> Any:
        asker = sys._getframe(1).f_globals.get("__name__", "")
        if asker.partition(".")[0] == "mxnet":
            if name in _NUMBERS:
                return _NUMBERS[name]
            if name in _HEIRS:
                return getattr(numpy, _HEIRS[name])
            if name in _EXTINCT:
                return _extinct(name)
        return refuse(name)

    vars(numpy)["__getattr__"] = answer
    try:
        yield
    finally:
        vars(numpy)["__getattr__"] = refuse


def _extinct(name: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"NumPy has no {name} any more")

    return call


def _stand_ins() -> AbstractContextManager[None]:
    """Let MXNet import something light for what takes long to import, or is gone.

    It compares NumPy's version by distutils, which Python 3.12 does not have, and whose
    heir in setuptools takes a quarter of a second; and one function that is hardly ever
    called needs scipy.stats, which takes longer.
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
    """A module that is imported when something in it is used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def _mend_split(mxnet: Any) -> None:
    """Let arrays be split at NumPy's integers, as for several devices they are.

    MXNet passes them on as text, which since NumPy 2 is ``np.int64(4)`` for a 4.
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
    """Start the engine without threads, which says so on standard error: not here."""
    with _defaults(MXNET_ENGINE_TYPE="NaiveEngine"), _silent_stderr():
        mxnet.nd.waitall()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Send what compiled code writes to standard error nowhere."""
    if sys.stderr:
        sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # it is closed, as a program without a terminal may have it
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
