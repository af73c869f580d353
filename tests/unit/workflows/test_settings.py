"""Settings that cannot be used: said in the words of whoever sets them, without what they were set to."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bot.config import Settings
from workflows.settings import unusable


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("command", "access", "AIRLOCK_COMMAND: should be like /access: a slash, then small letters, digits, - and _"),
        ("pending_cap", "many", "AIRLOCK_PENDING_CAP: should be a whole number"),
        ("slack_quiet", "long", "AIRLOCK_SLACK_QUIET: should be a number"),
        ("slack_mode", "ftp", "AIRLOCK_SLACK_MODE: should be 'socket' or 'http'"),
    ],
)
def test_a_setting_is_named_with_what_it_should_be(name: str, value: str, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({name: value})
    (found,) = unusable(refused.value)
    assert found.startswith(said)
    assert value not in found.removeprefix(said)
