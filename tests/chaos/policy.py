"""The policy of fault runs: several resources on one upstream, so that runs do not meet; writes wait for a review."""

from pathlib import Path

import yaml

RESOURCES = 24
READ, WRITE = "app", "app_write"


def resource(number: int) -> str:
    """Return the resource that a run uses."""
    return f"chaos-{number % RESOURCES}"


def write_policy(folder: Path, upstream_port: int) -> None:
    """Write the policy folder."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [resource(number) for number in range(RESOURCES)]
    place = {"host": "127.0.0.1", "port": upstream_port, "database": "shop", "tls": "disable"}
    roles = {
        "read": {"credential": "file:read", "relations": ["public.*"], "spares": 1},
        "write": {"credential": "file:write", "relations": ["public.*"], "hold": "wait"},
    }
    document = {
        "groups": {"engineers": "", "dbas": "", "security": ""},
        "people": {
            "alice": {"name": "Alice", "slack": "U0ALICE001", "groups": ["engineers"]},
            "bob": {"name": "Bob", "slack": "U0BOB00001", "groups": ["engineers", "dbas"]},
            "dana": {"name": "Dana", "slack": "U0DANA0001", "groups": ["engineers", "dbas"]},
            "erin": {"name": "Erin", "slack": "U0ERIN0001", "groups": ["security"]},
        },
        "resources": {name: {"protocol": "postgres", "upstream": place, "roles": roles} for name in names},
        "access": [
            _asked("read", {"count": 1, "groups": ["dbas"]}),
            _asked("write", [{"count": 1, "groups": ["dbas"]}, {"count": 1, "groups": ["security"]}]),
        ],
        "statements": [
            {"id": "reads", "decision": "allow", "effects": ["read", "session"]},
            {
                "id": "writes",
                "decision": "ask",
                "roles": ["write"],
                "effects": ["write"],
                "reviewers": {"count": 1, "groups": ["dbas"]},
            },
            {
                "id": "schema",
                "decision": "deny",
                "effects": ["ddl", "admin"],
                "message": "the schema does not change here",
            },
        ],
        "fields": [
            {
                "id": f"people-{name}",
                "resource": name,
                "relation": "public.people",
                "clear": ["id", "name"],
                "masks": {"ssn": {"mask": "partial", "tail": 4}},
            }
            for name in names
        ],
    }
    (folder / "all.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def _asked(role: str, reviewers: object) -> dict[str, object]:
    return {
        "id": f"ask-{role}",
        "decision": "ask",
        "roles": [role],
        "groups": ["engineers"],
        "reviewers": reviewers,
        "max_duration": "1h",
    }


SET_UP = (
    "create table people (id int primary key, name text, ssn text)",
    "insert into people select g, 'Person ' || g, '900-00-' || lpad(g::text, 4, '0') from generate_series(1, 50) g",
    "create table notes (id int primary key, body text)",
    "insert into notes select g, 'note ' || g from generate_series(1, 2000) g",
    "create table effects (what text)",
    "grant select on people, notes to app, app_write",
    "grant select, insert on effects to app, app_write",
)
