"""The errors that a user of the package can meet and correct."""


class AutoRecError(Exception):
    """Base of the package's errors: the commands print its message, no traceback."""


class DataError(AutoRecError, ValueError):
    """Ratings that cannot be used: the message names the file, the line, the value."""


class DatasetUnavailable(AutoRecError, OSError):
    """A data set that is not on this machine and cannot be downloaded."""


class ModelError(AutoRecError, ValueError):
    """A model folder that is damaged, missing, or of another version."""


class TrainingDiverged(AutoRecError, ArithmeticError):
    """A training loss that is NaN or infinite."""


class ClusterError(AutoRecError, ValueError):
    """A worker group that cannot be formed from the environment."""


class DeviceUnavailable(AutoRecError, ValueError):
    """A device that does not exist, or that lacks a needed operation."""


class InvalidVariable(AutoRecError, ValueError):
    """An environment variable with a value that a library cannot be imported with."""


class MXNetMissing(AutoRecError, ImportError):
    """MXNet is not installed."""


class MXNetUnusable(AutoRecError, RuntimeError):
    """MXNet cannot be imported with this environment or these flags of Python."""
