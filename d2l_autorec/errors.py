"""The errors that a user of the package can meet and mend."""


class AutoRecError(Exception):
    """Base of the package's errors: the commands print its message, no traceback."""


class DataError(AutoRecError, ValueError):
    """Ratings that cannot be used: the message names the file, the line, the value."""


class DatasetUnavailable(AutoRecError, OSError):
    """A data set that is neither on this machine nor could be downloaded."""


class ModelError(AutoRecError, ValueError):
    """A model folder that is damaged, missing, or another version's."""


class TrainingDiverged(AutoRecError, ArithmeticError):
    """A training loss that is NaN or infinite."""


class ClusterError(AutoRecError, ValueError):
    """An environment that does not say who takes part in a training, and where."""


class DeviceUnavailable(AutoRecError, ValueError):
    """A device that is not there, or cannot do what it is named for."""


class InvalidVariable(AutoRecError, ValueError):
    """An environment variable with a value that a library cannot be imported with."""


class MXNetMissing(AutoRecError, ImportError):
    """MXNet is not installed."""


class MXNetUnusable(AutoRecError, RuntimeError):
    """MXNet cannot be imported as the environment, or Python's flags, have it."""
