"""The bot's settings, from the environment (prefix `AIRLOCK_`, and Slack's own names)."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from workflows.settings import known_level, slash_command
from workflows.storage.engine import sqlite_url


def is_loopback(url: str) -> bool:
    """Say whether a URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Settings(BaseSettings):
    """Where things are; every path has a default under `state`."""

    model_config = SettingsConfigDict(env_prefix="AIRLOCK_", extra="ignore", populate_by_name=True)

    state: Path = Path(".airlock")
    policies: Path = Path("policies")
    broker_url: str = "http://127.0.0.1:8420"
    slack_api_url: str = Field(default="https://slack.com/api/", validation_alias=AliasChoices("SLACK_API_URL"))
    slack_bot_token: SecretStr = Field(default=SecretStr(""), validation_alias=AliasChoices("SLACK_BOT_TOKEN"))
    slack_app_token: SecretStr = Field(default=SecretStr(""), validation_alias=AliasChoices("SLACK_APP_TOKEN"))
    slack_signing_secret: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("SLACK_SIGNING_SECRET")
    )
    slack_mode: Literal["socket", "http"] = "socket"
    """How payloads come: through a socket that the bot opens, or to an address that Slack can reach."""
    slack_quiet: float = Field(default=300, gt=0)
    """Seconds without a payload after which a socket is not trusted any more, and renewed."""
    slack_host: str = "127.0.0.1"
    slack_port: int = Field(default=3000, ge=1, le=65535)
    """Where the bot listens in the mode `http`; what is before it ends TLS."""
    command: Annotated[str, AfterValidator(slash_command)] = "/access"
    channel: str = Field(default="access-requests", min_length=1)
    """The reviewers' channel, by id or name."""
    database: str | None = None
    """SQLAlchemy URL; by default a SQLite file."""
    ready_file: Path | None = None
    slack_pace: float | None = Field(default=None, ge=0)
    """Seconds between two messages to one channel; by default 1, and 0 on loopback."""
    pending_cap: int = Field(default=10, ge=1)
    """How many requests one person may have waiting."""
    log_level: Annotated[str, AfterValidator(known_level)] = "info"

    @field_validator("slack_api_url")
    @classmethod
    def _is_secure(cls, url: str) -> str:
        if not url.startswith("https://") and not is_loopback(url):
            raise ValueError("SLACK_API_URL must be https, unless it is on this machine")
        return url if url.endswith("/") else f"{url}/"

    @field_validator("broker_url")
    @classmethod
    def _is_local_or_secure(cls, url: str) -> str:
        if not url.startswith("https://") and not is_loopback(url):
            raise ValueError("AIRLOCK_BROKER_URL must be https, unless it is on this machine")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _can_check_signatures(self) -> Self:
        if self.slack_mode == "http" and not self.slack_signing_secret.get_secret_value():
            raise ValueError("AIRLOCK_SLACK_MODE=http needs SLACK_SIGNING_SECRET: nothing else says who sends payloads")
        return self

    @property
    def home(self) -> Path:
        return self.state / "bot"

    @property
    def database_url(self) -> str:
        return self.database or sqlite_url(self.home / "bot.db")

    @property
    def pace(self) -> float:
        if self.slack_pace is not None:
            return self.slack_pace
        return 0.0 if is_loopback(self.slack_api_url) else 1.0
