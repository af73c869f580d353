"""Verification, exhaustively: every byte of a small log and its recordings is flipped once, and each is named."""

import asyncio
from pathlib import Path

import pytest

from broker.adapters.verify import verify
from tests.unit.broker.adapters.test_verify import write_some


@pytest.mark.parametrize("folder", ["events", "recordings"])
def test_every_flipped_byte_of_every_file_is_named(tmp_path: Path, folder: str) -> None:
    home = tmp_path / "small"
    asyncio.run(write_some(home, times=5, segment=1400))
    for path in sorted((home / folder).glob("*.ndjson")):
        content = path.read_bytes()
        starts = [0]
        for line in content.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        for index in range(len(content)):
            changed = bytearray(content)
            changed[index] ^= 1 << index % 8
            path.write_bytes(changed)
            report = verify(home)
            assert not report.good, (path.name, index)
            line = sum(start <= index for start in starts[:-1])
            named = [finding for finding in report.findings if finding.file.endswith(path.name)]
            assert any(finding.line in (line, line + 1) for finding in named), (path.name, index, report.findings)
        path.write_bytes(content)
    assert verify(home).good
