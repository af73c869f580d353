"""Logs that cannot be written."""

import errno
import io
from pathlib import Path

from workflows.logs import Unfailing


class FullDisk(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_log_whose_disk_is_full_stops_nobody() -> None:
    stream = Unfailing(FullDisk())
    assert stream.write("a line that does not fit") == 0
    stream.flush()


def test_log_is_written_where_there_is_room(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        Unfailing(file).write("a line")
        Unfailing(file).flush()
        assert (tmp_path / "log").read_text() == "a line"
