"""What can go wrong, said so that a person can fix it.

Every mistake a user can make ends in a :class:`YanmoError`: what happened, where, and how to fix it,
with the values. The command line prints it without a traceback and exits with its code.

    YanmoError
    ├── ConfigError        2   wrong usage, recipe or setting
    │   └── DeviceError    2   a device that is not there
    ├── DataError          3   text that cannot be read or is too little
    ├── CheckpointError    4   a checkpoint or model that is damaged or does not fit
    │   └── TokenizerError 4   a tokenizer file that cannot be used
    ├── DivergedError      5   the loss or a gradient is no longer finite
    ├── StorageError      74   the disk is full or refuses
    ├── BusyError         75   another run holds the folder
    ├── LostError          1   the other processes of a run cannot be reached
    └── Stopped      130/143   a signal; the run can be resumed
"""


class YanmoError(Exception):
    """Base of all errors a user can meet: ``what`` happened, ``where``, and the ``hint``."""

    exit_code = 1
    is_shared = False
    """Whether all ranks of a run meet it together, so that one of them says it."""

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{type(self).__name__}: {self.what}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  hint:  {self.hint}")
        return "\n".join(lines)


class ConfigError(YanmoError):
    """Wrong usage, an unknown setting, or settings that contradict each other."""

    exit_code = 2


class DeviceError(ConfigError):
    """The device asked for is not there, or cannot do what is asked. yanmo never falls back silently."""


class DataError(YanmoError):
    """Text that is missing, cannot be decoded, or is too little to train on."""

    exit_code = 3


class CheckpointError(YanmoError):
    """A checkpoint or model folder that is damaged, or does not fit what is asked of it."""

    exit_code = 4


class TokenizerError(CheckpointError):
    """A tokenizer file that is damaged, or is not of a kind yanmo reads."""


class DivergedError(YanmoError):
    """Training produced a number that is not finite; nothing of it was saved."""

    exit_code = 5
    is_shared = True


class StorageError(YanmoError):
    """The disk is full, or reading or writing failed."""

    exit_code = 74


class BusyError(YanmoError):
    """Another process holds the run folder."""

    exit_code = 75


class LostError(YanmoError):
    """Another process of the run, or the one that started them all, is gone."""


class Stopped(YanmoError):
    """A signal asked the run to stop; it was saved and can be resumed."""

    is_shared = True

    def __init__(self, signal_number: int, what: str, where: str = "", hint: str = "") -> None:
        super().__init__(what, where, hint)
        self.exit_code = 128 + signal_number
