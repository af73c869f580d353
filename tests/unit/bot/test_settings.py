"""What the bot is started with: addresses, tokens, its key, its policy."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from bot.adapters.keys import OrderKeyUnusable, order_key
from bot.adapters.policies import FolderPolicies
from bot.config import Settings
from policies.engine.load import PolicyUnreadable
from tests.unit.bot.memory import POLICY


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://slack.com/api/", True),
        ("http://127.0.0.1:3960/api", True),
        ("http://localhost:1/api/", True),
        ("http://[::1]:1/api/", True),
        ("http://slack.com/api/", False),
        ("http://127.0.0.1.example.com/api/", False),
    ],
)
def test_api_address_is_secure_or_on_this_machine(url: str, good: bool) -> None:
    if good:
        made = Settings(slack_api_url=url)
        assert made.slack_api_url.endswith("/")
        assert made.pace == (1.0 if url.startswith("https") else 0.0)
    else:
        with pytest.raises(ValidationError):
            Settings(slack_api_url=url)


def test_settings_are_read_from_the_environment_and_show_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_API_URL", "http://127.0.0.1:1/api/")
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-secret")
    monkeypatch.setenv("AIRLOCK_CHANNEL", "#approvals")
    monkeypatch.setenv("AIRLOCK_STATE", "/tmp/x")
    made = Settings()
    assert (made.slack_api_url, made.channel, str(made.home)) == ("http://127.0.0.1:1/api/", "#approvals", "/tmp/x/bot")
    assert "xoxb-secret" not in repr(made)


def test_order_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    first = order_key(tmp_path / "bot").private_bytes_raw()
    assert order_key(tmp_path / "bot").private_bytes_raw() == first
    assert (tmp_path / "bot" / "order.pem").stat().st_mode & 0o777 == 0o600
    assert b"PUBLIC KEY" in (tmp_path / "bot" / "order.pub.pem").read_bytes()
    (tmp_path / "bot" / "order.pem").write_text("no key")
    with pytest.raises(OrderKeyUnusable):
        order_key(tmp_path / "bot")


def test_policy_that_does_not_load_stops_the_start_and_not_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("nonsense: [")
    with pytest.raises(PolicyUnreadable):
        FolderPolicies(tmp_path)
    file.write_text(POLICY)
    held = FolderPolicies(tmp_path)
    before = held.hash
    file.write_text("nonsense: 1")
    assert not held.refresh()
    assert held.hash == before
    file.write_text(POLICY.replace("max_duration: 4h", "max_duration: 3h"))
    assert held.refresh()
    assert held.hash != before
