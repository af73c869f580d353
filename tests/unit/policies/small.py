"""A small policy to which tests add what they are about, and the folder of the one that is shipped."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from policies.engine.load import read_texts
from policies.engine.model import Policy

POLICIES = Path(__file__).parents[3] / "policies"

SMALL = """
resources:
  db:
    protocol: postgres
    upstream: {host: h, port: 5432, database: d}
    roles:
      read: {credential: "file:x", relations: ["public.*"]}
groups: {devs: "", ops: ""}
people:
  ann: {name: Ann, groups: [devs]}
  ola: {name: Ola, groups: [ops]}
  gone: {name: Gone, groups: [devs], active: false}
"""


@cache
def policy(extra: str = "") -> Policy:
    return read_texts({"small.yaml": SMALL, "extra.yaml": extra})
