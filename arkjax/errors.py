"""Errors that a person caused and can mend: one clear line each, with an exit code.

The command line prints the message of an `ArkJAXError` without a traceback and exits with its
`exit_code`. Anything else that escapes is a defect of ArkJAX and keeps its traceback.
"""


class ArkJAXError(Exception):
    """Base of all errors whose message tells the user what is wrong and what to do."""

    exit_code = 1


class ConfigError(ArkJAXError):
    """A config field, a command-line flag or a team specification is wrong."""

    exit_code = 2


class DataError(ArkJAXError):
    """An input or an artifact is missing, damaged or of the wrong kind."""

    exit_code = 3


class StaleArtifactError(ArkJAXError):
    """The run directory holds artifacts that another config or another run has made."""

    exit_code = 4


class StorageError(ArkJAXError):
    """A file cannot be written: no permission, a read-only or a full file system."""

    exit_code = 5


class ProcessError(ArkJAXError):
    """Another process of the same job failed, fell silent or stood still.

    Attributes:
      process: which.
      reason: what it said, or what was not heard of it.
    """

    def __init__(self, process: int, reason: str):
        super().__init__(f"process {process} {reason}")
        self.process, self.reason = process, reason
