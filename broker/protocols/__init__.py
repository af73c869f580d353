"""Protocols are discovered: every folder here that exports OFFER is one."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from broker.sessions.ports import Offer


@cache
def offers() -> dict[str, Offer]:
    """Return every protocol by its name."""
    found: dict[str, Offer] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            offer: Offer | None = getattr(importlib.import_module(f"{__name__}.{module.name}"), "OFFER", None)
            if offer is not None:
                found[offer.name] = offer
    return found
