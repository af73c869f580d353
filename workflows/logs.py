"""Where both processes write their logs: a stream that never stops whoever writes."""

from __future__ import annotations

from contextlib import suppress
from typing import TextIO


class Unfailing:
    """A text stream whose full disk or broken pipe costs log lines and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()
