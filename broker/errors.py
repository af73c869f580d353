"""The broker's own errors: the name is the fact, the docstring the message."""

from __future__ import annotations


class AirlockError(Exception):
    """something went wrong inside the broker"""


class Misconfigured(AirlockError):
    """a setting or a reference cannot be used"""


class RecordingFailed(AirlockError):
    """a statement could not be recorded, so it was not forwarded"""


class UpstreamUnavailable(AirlockError):
    """the resource does not answer"""

    def __init__(self, message: str, plainly: str = "the broker cannot work with it") -> None:
        """`message` is for operators; `plainly` says it to everybody, without classes, numbers or addresses."""
        super().__init__(message)
        self.plainly = plainly
