"""Explains what would happen to a statement, and examines resources: what is wrong with a role, and what mends it."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rich.markup import escape

from broker.adapters.endpoints import PolicyEndpoints
from broker.config import Settings, read_settings, resolve
from broker.errors import AirlockError
from broker.protocols import offers
from broker.sessions.findings import Finding, Grade, problem, warning
from policies.engine.decide import decide_access, terms_of
from policies.engine.decisions import Allow, Ask, Deny
from policies.engine.durations import format_duration
from policies.engine.load import PolicyUnreadable, load
from policies.engine.model import Policy
from workflows.reviews import reviewers

_GRADES = {Grade.GOOD: "green", Grade.NOTE: "dim", Grade.WARNING: "yellow", Grade.PROBLEM: "red"}
_COLOURS = {"allow": "green", "ask": "yellow", "deny": "red"}


@dataclass(frozen=True, slots=True)
class _Fixed:
    current: Policy

    @property
    def hash(self) -> str:
        return self.current.hash


def explain(
    person: str, resource: str, role: str, text: str, at: datetime | None = None, rows: int | None = None
) -> tuple[list[str], bool]:
    """Return lines for a terminal (rich markup), and whether an answer was found.

    `at` is now, and `rows` what the planner expects, unless they are given.
    """
    read = _read()
    if isinstance(read, list):
        return [f"[red]error[/]    {escape(finding)}" for finding in read], False
    settings, policy = read
    if person not in policy.people:
        near = get_close_matches(person, policy.people, 1)
        meant = f", did you mean `{near[0]}`?" if near else f": there are {', '.join(policy.people)}"
        return [f"[red]error[/]    {escape(f'the policy has no person `{person}`{meant}')}"], False
    known, missing = _roles(policy, resource, role)
    if not known:
        return [f"[red]error[/]    {line}" for line in missing], False
    lines = [_access(policy, person, resource, role)]
    try:
        told = asyncio.run(_preview(settings, policy, person, resource, role, text, at or datetime.now(UTC), rows))
    except (AirlockError, OSError) as error:
        hint = f"`airlock doctor {resource}` says what mends it; another state folder is named with --state"
        return [*lines, f"[red]error[/]    {escape(f'{resource}: {error}')}", f"         {escape(hint)}"], False
    if rows is not None and not told["expected"]:
        told["expected"] = "no rule that decides this asks how many rows"
    return [*lines, *_statement(told, "runs" if "[red]" not in lines[0] else "would")], True


def examine(resource: str, role: str | None) -> tuple[list[str], bool]:
    """Return lines for a terminal (rich markup) on a resource's roles, and whether none has a problem."""
    read = _read()
    if isinstance(read, list):
        return [f"[red]error[/]    {escape(finding)}" for finding in read], False
    settings, policy = read
    roles, missing = _roles(policy, resource, role)
    lines = [f"[red]error[/]    {line}" for line in missing]
    clean = bool(roles)
    for name in roles:
        found = asyncio.run(_examined(settings, policy, resource, name))
        lines += [f"[bold]{escape(name)} on {escape(resource)}[/]", *(line for one in found for line in _finding(one))]
        clean &= all(one.grade is not Grade.PROBLEM for one in found)
    return lines, clean


def provision(resource: str, role: str | None, version: int) -> tuple[list[str], bool]:
    """Return the lines that make good roles for a resource on a server's major version; nothing is run."""
    read = _read()
    if isinstance(read, list):
        return [f"[red]error[/]    {escape(finding)}" for finding in read], False
    settings, policy = read
    roles, missing = _roles(policy, resource, role)
    if not roles:
        return [f"[red]error[/]    {line}" for line in missing], False
    held = policy.resources[resource]
    users = {name: _user(settings, held.roles[name].credential, f"airlock_{resource}_{name}") for name in roles}
    maker = _user(settings, held.provisioner, f"airlock_{resource}_provisioner")
    return offers()[held.protocol].provision(policy, resource, users, maker, version), True


def _read() -> tuple[Settings, Policy] | list[str]:
    """Read the settings and the policy, or say what is wrong with them."""
    try:
        settings = read_settings()
        return settings, load(settings.policies)
    except PolicyUnreadable as error:
        return error.findings
    except AirlockError as error:
        return [str(error)]


def _user(settings: Settings, credential: str | None, otherwise: str) -> str:
    """Return a credential's user; there is none yet before there is a role, which is usual."""
    try:
        user = resolve(credential, settings.secrets_path).partition(":")[0] if credential is not None else ""
    except AirlockError:
        user = ""
    return user or otherwise.replace("-", "_")


def _roles(policy: Policy, resource: str, role: str | None) -> tuple[list[str], list[str]]:
    """Return the roles that are asked for, or why there are none."""
    held = policy.resources.get(resource)
    if held is None:
        return [], [
            f"the policy has no resource `{escape(resource)}`: it has "
            f"{escape(', '.join(policy.resources) or 'none')}; another folder is named with --policies"
        ]
    if held.protocol not in offers():
        spoken = f"there is {', '.join(offers())}"
        return [], [escape(f"{resource}: the broker does not speak the protocol `{held.protocol}`: {spoken}")]
    if role is not None and role not in held.roles:
        return [], [f"{escape(resource)} has no role `{escape(role)}`: it has {escape(', '.join(held.roles))}"]
    return [role] if role is not None else list(held.roles), []


async def _examined(settings: Settings, policy: Policy, resource: str, role: str) -> list[Finding]:
    offer = offers()[policy.resources[resource].protocol]
    try:
        endpoint = PolicyEndpoints(_Fixed(policy), settings.secrets_path).of(resource, role)
    except AirlockError as error:
        return [problem(f"no way to {role} on {resource}: {error}", _mend(policy, resource, role, str(error)))]
    held = policy.resources[resource]
    read_by_all = _open_to_all(settings.secrets_path, held.roles[role].credential, held.provisioner)
    return [*read_by_all, *await offer.examine(policy, resource, role, endpoint)]


def _mend(policy: Policy, resource: str, role: str, error: str) -> str:
    """Say what mends a reference that leads nowhere."""
    held, elsewhere = policy.resources[resource], "or name the state folder with --state"
    if held.upstream.ca is not None and f"`{held.upstream.ca}`" in error:
        return f"put the certificate of the server's authority (PEM) there, {elsewhere}"
    if any(f"`{one}`" in error for one in (held.roles[role].credential, held.provisioner)):
        made = f"`airlock provision {resource} --print` shows what makes the role"
        return f"put `user:password` there, {elsewhere}; {made}"
    return f"mend it in the policy's upstream of {resource}, or set what it refers to"


def _open_to_all(secrets: Path, *references: str | None) -> list[Finding]:
    """Say which credentials every account of this machine can read, as neither their file nor a folder keeps it out."""
    files = [secrets / one.removeprefix("file:") for one in references if one is not None and one.startswith("file:")]
    return [
        warning(f"every account of this machine may read {path}, which is a credential", f"chmod o= {path}")
        for path in files
        if path.is_file()
        and path.stat().st_mode & stat.S_IROTH
        and all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
    ]


def _finding(one: Finding) -> list[str]:
    said = f"[{_GRADES[one.grade]}]{one.grade.value:<9}[/]{escape(one.text)}"
    return [said, *(f"         {escape(line)}" for line in one.mend)]


async def _preview(
    settings: Settings,
    policy: Policy,
    person: str,
    resource: str,
    role: str,
    text: str,
    at: datetime,
    rows: int | None,
) -> dict[str, Any]:
    offer = offers()[policy.resources[resource].protocol]
    endpoint = PolicyEndpoints(_Fixed(policy), settings.secrets_path).of(resource, role)
    return await offer.preview(policy, person, resource, role, text, endpoint, at, rows)


def _access(policy: Policy, person: str, resource: str, role: str) -> str:
    """Say what asking for the role itself would be answered."""
    terms = terms_of(policy, person, resource, role)
    longest = terms.max_duration or timedelta(minutes=30)
    match decide_access(policy, person, resource, role, longest):
        case Allow(rules):
            said, kind = f"given at once, for up to {format_duration(longest)}", "allow"
        case Ask(requirement, rules):
            names = ", ".join(policy.people[handle].name for handle in reviewers(policy, requirement, person))
            said, kind = f"up to {format_duration(longest)}, after {requirement} agree ({names or 'nobody'})", "ask"
        case Deny(message, rules):
            said, kind = message, "deny"
    return f"access   [{_COLOURS[kind]}]{kind}[/]  {escape(said)}  [dim]({escape(', '.join(rules))})[/]"


def _statement(told: dict[str, Any], verb: str) -> list[str]:
    """Say what a statement would do; `would` where nobody lets this person in to run it."""
    decision = told["decision"]
    said = f"  {escape(told['message'])}" if told["message"] else ""
    by = f"  [dim]({escape(', '.join(told['rules']))})[/]" if told["rules"] else "  there is no statement in it"
    lines = [f"{verb:<8} [{_COLOURS[decision]}]{decision}[/]{said}{by}"]
    for name, key in (
        ("does", "effects"),
        ("touches", "relations"),
        ("all of", "every_row"),
        ("calls", "calls"),
        ("masked", "masked"),
    ):
        if told[key]:
            lines.append(f"{name:<8} {escape(', '.join(told[key]))}")
    if told["expected"]:
        lines.append(f"expects  {escape(told['expected'])}")
    if told["hint"]:
        lines.append(f"next     {escape(told['hint'])}")
    if told["rewritten"] and decision != "deny":
        lines.append(f"sent     {escape(told['rewritten'])}")
    return lines
