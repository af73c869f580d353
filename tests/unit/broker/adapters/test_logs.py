"""The logs: one JSON line each, ASCII, without what is named like a secret."""

import json
import logging

import pytest
import structlog

from broker.adapters.logs import configure_logs


@pytest.fixture(autouse=True)
def _restore() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def test_hostile_values_stay_one_line_and_secrets_are_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    log = structlog.get_logger("x")
    log.info("seen", who="a\r\n\x1b[31m\u2028\u202e", password="hunter2", Token="hunter2")
    log.debug("not seen")
    logging.getLogger("library").warning("from a library %s", "a\nb")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.isascii() for line in lines)
    assert "hunter2" not in "".join(lines)
    assert json.loads(lines[0])["who"] == "a\r\n\x1b[31m\u2028\u202e"
    assert json.loads(lines[1])["event"] == "from a library a\nb"


def test_traceback_has_no_values_of_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    secret = "hunter" + "2"
    try:
        raise RuntimeError(len(secret))
    except RuntimeError:
        structlog.get_logger("x").exception("failed")
    text = capsys.readouterr().err
    assert "hunter2" not in text
    assert "RuntimeError" in json.loads(text)["exception"]
