"""The broker's settings, from the environment (prefix `AIRLOCK_`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker.errors import Misconfigured
from workflows.settings import known_level, unusable


class Settings(BaseSettings):
    """Where things are; every path has a default under `state`."""

    model_config = SettingsConfigDict(env_prefix="AIRLOCK_", extra="ignore")

    state: Path = Path(".airlock")
    policies: Path = Path("policies")
    secrets: Path | None = None
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8420, ge=0, le=65535)
    listen_host: str = "127.0.0.1"
    public_host: str = "127.0.0.1"
    """The name that engineers' programs connect to; it is what tickets say."""
    plaintext: Literal["never", "loopback"] = "never"
    """Who may connect without TLS: nobody, or clients on this machine itself."""
    order_key: Path | None = None
    """The bot's public key (PEM); by default where a bot on the same state folder writes it."""
    database: str | None = None
    """SQLAlchemy URL; by default a SQLite file."""
    ready_file: Path | None = None
    max_sessions: int = Field(default=5000, ge=1)
    workers: int = Field(default=1, ge=1, le=64)
    """How many processes serve sessions, behind the same ports; with one, the broker serves them itself."""
    log_level: Annotated[str, AfterValidator(known_level)] = "info"

    @property
    def home(self) -> Path:
        return self.state / "broker"

    @property
    def order_key_path(self) -> Path:
        return self.order_key or self.state / "bot" / "order.pub.pem"

    @property
    def secrets_path(self) -> Path:
        return self.secrets or self.state / "secrets"

    def protocol_port(self, protocol: str, default: int) -> int:
        """Return the port a protocol listens on: `AIRLOCK_PORT_<NAME>`, else its own default."""
        text = os.environ.get(f"AIRLOCK_PORT_{protocol.upper()}", "")
        if text and not (text.isdecimal() and int(text) <= 65535):
            raise Misconfigured(f"AIRLOCK_PORT_{protocol.upper()} is not a port: `{text}`")
        return int(text) if text else default


def read_settings(**given: Any) -> Settings:
    """Read the settings, but for those that are given; raises Misconfigured, which names the variables."""
    try:
        return Settings(**given)
    except ValidationError as error:
        raise Misconfigured("; ".join(unusable(error))) from None


def resolve(reference: str, secrets: Path) -> str:
    """Return what `env:NAME` or `file:NAME` refers to; a plain value is itself; Misconfigured never has the value."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        if (value := os.environ.get(name)) is None:
            raise Misconfigured(f"`{reference}`: the environment variable is not set")
        return value
    if kind == "file":
        try:
            return (secrets / name).read_text(encoding="utf-8").rstrip("\n")
        except FileNotFoundError:
            raise Misconfigured(f"`{reference}`: there is no such file in {secrets}") from None
        except (OSError, ValueError) as error:
            # ValueError: what is no UTF-8, and a name with a zero byte.
            raise Misconfigured(f"`{reference}`: {type(error).__name__}") from None
    return reference
