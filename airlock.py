"""The command line; it only dispatches."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

HERE = Path(__file__).resolve().parent
console = Console(highlight=False, soft_wrap=True)
app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Ask, approve, and only that."
)
bot_app = typer.Typer(invoke_without_command=True, help="Run the process that talks to people.")
broker_app = typer.Typer(invoke_without_command=True, help="Run the process that holds credentials.")
policy_app = typer.Typer(no_args_is_help=True, help="Check, test and explain the policy files.")
audit_app = typer.Typer(no_args_is_help=True, help="Check the audit log.")
slack_app = typer.Typer(no_args_is_help=True, help="Set the Slack app up.")
for _name, _sub in (
    ("bot", bot_app),
    ("broker", broker_app),
    ("policy", policy_app),
    ("audit", audit_app),
    ("slack", slack_app),
):
    app.add_typer(_sub, name=_name)

PoliciesOption = Annotated[
    Path | None,
    typer.Option(
        "--policies", help="Folder of policy files (default: AIRLOCK_POLICIES, or ./policies, or the clone's)."
    ),
]
FolderArgument = Annotated[Path | None, typer.Argument(help="The same as --policies.", show_default=False)]
StateOption = Annotated[
    Path | None, typer.Option("--state", help="State folder (default: AIRLOCK_STATE, or the demo's, or .airlock).")
]


@app.command()
def demo(
    headless: Annotated[bool, typer.Option("--headless", help="Open no browser.")] = False,
    state: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path(".airlock/demo"),
    ready: Annotated[Path | None, typer.Option(help="Write this JSON file when everything answers.")] = None,
) -> None:
    """Start everything on this machine, with invented data and a local workspace in the browser."""
    from broker.demo.supervisor import run

    sys.exit(run(state, headless=headless, ready=ready))


@bot_app.callback()
def bot(context: typer.Context) -> None:
    """Run the bot."""
    if context.invoked_subcommand is None:
        os.environ["AIRLOCK_POLICIES"] = str(_policies(None))
        from bot.__main__ import main as run

        run()


@bot_app.command("migrate")
def bot_migrate() -> None:
    """Bring the bot's database up to date."""
    from bot.__main__ import migrate

    migrate()


@broker_app.callback()
def broker(
    context: typer.Context,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, max=64, help="Processes that serve sessions (default: AIRLOCK_WORKERS, or 1)."
        ),
    ] = None,
) -> None:
    """Run the broker."""
    if context.invoked_subcommand is None:
        os.environ["AIRLOCK_POLICIES"] = str(_policies(None))
        from broker.__main__ import main as run

        run(workers)


@broker_app.command("migrate")
def broker_migrate() -> None:
    """Bring the broker's database up to date."""
    from broker.__main__ import migrate

    migrate()


@app.command()
def reaper() -> None:
    """Run the process that ends sessions when the broker cannot."""
    from broker.reaper import main as run

    run()


@policy_app.command("check")
def policy_check(folder: FolderArgument = None, policies: PoliciesOption = None) -> None:
    """Read the policy files and say what is wrong with them, by file, line and key."""
    from broker.protocols import offers
    from policies.engine.load import PolicyUnreadable, load
    from policies.engine.problems import warnings
    from workflows.words import counted

    folder = _policies(folder or policies)
    try:
        policy = load(folder)
    except PolicyUnreadable as error:
        for finding in error.findings:
            console.print(f"[red]error[/]    {escape(finding)}")
        raise typer.Exit(1) from None
    spoken = ", ".join(offers())
    strange = {name: held.protocol for name, held in policy.resources.items() if held.protocol not in offers()}
    for name, protocol in strange.items():
        said = f"resources.{name}.protocol: the broker does not speak `{protocol}`: there is {spoken}"
        console.print(f"[red]error[/]    {escape(said)}")
    if strange:
        raise typer.Exit(1)
    for warning in warnings(policy):
        console.print(f"[yellow]warning[/]  {escape(warning)}")
    rules = len(policy.access) + len(policy.statements) + len(policy.fields)
    people = f"{len(policy.people)} {'person' if len(policy.people) == 1 else 'people'}"
    console.print(f"{folder}: {counted(len(policy.resources), 'resource')}, {people}, {counted(rules, 'rule')}: good")


@policy_app.command("test")
def policy_test(folder: FolderArgument = None, policies: PoliciesOption = None) -> None:
    """Run the cases under the policy folder's `cases/`."""
    from policies.engine.cases import failure, load_cases
    from policies.engine.load import PolicyUnreadable, load
    from workflows.words import counted

    folder = _policies(folder or policies)
    try:
        policy, cases = load(folder), load_cases(folder / "cases")
    except PolicyUnreadable as error:
        console.print(f"[red]error[/]    {escape(str(error))}")
        raise typer.Exit(1) from None
    failures = [(case, found) for case in cases if (found := failure(policy, case))]
    for case, found in failures:
        console.print(f"[red]failed[/]   {escape(case.name)}: {escape(found)}")
    if not cases:
        # Not a success: whoever wrote cases and named another folder would take it for one.
        console.print(f"[red]error[/]    {escape(str(folder / 'cases'))} has no cases (`*.yaml`); nothing was tested")
        raise typer.Exit(1)
    console.print(f"{counted(len(cases) - len(failures), 'case')} passed, {len(failures)} failed")
    if failures:
        raise typer.Exit(1)


@policy_app.command("schema")
def policy_schema() -> None:
    """Print the JSON Schema of the policy files, for editors."""
    from policies.engine.model import Policy

    sys.stdout.write(json.dumps(Policy.model_json_schema(), indent=2) + "\n")


@policy_app.command("explain")
def policy_explain(
    person: Annotated[str, typer.Argument(help="A person's handle, like `alice`.")],
    resource: Annotated[str, typer.Argument(help="A resource, like `prod-db`.")],
    role: Annotated[str, typer.Argument(help="A role on it, like `read`.")],
    statement: Annotated[str, typer.Argument(help="What they would run; `-` reads it from standard input.")],
    policies: PoliciesOption = None,
    state: StateOption = None,
    at: Annotated[
        str | None,
        typer.Option(
            help='The moment, for rules with hours, in this machine\'s zone, like "2026-01-04 03:30"; now without it.',
            metavar="TIME",
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=0, help="How many rows it would touch, for rules that ask; without it the server's planner says."
        ),
    ] = None,
) -> None:
    """Say what would happen if somebody ran a statement, and why, without running it."""
    os.environ["AIRLOCK_POLICIES"] = str(_policies(policies))
    _use_state(state)
    from broker.doctor import explain

    try:
        moment = datetime.fromisoformat(at).astimezone() if at is not None else None
    except ValueError:
        raise typer.BadParameter(f'`{at}` is no time; one is "2026-01-04 03:30"', param_hint="--at") from None
    text = sys.stdin.read() if statement == "-" else statement
    lines, good = explain(person, resource, role, text, moment, rows)
    for line in lines:
        console.print(line)
    if not good:
        raise typer.Exit(1)


@audit_app.command("verify")
def audit_verify(
    state: StateOption = None,
    key: Annotated[Path | None, typer.Option(help="The log's public key, kept elsewhere.")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="A copy of the log's checkpoints, kept elsewhere: a file, or a folder of them.")
    ] = None,
) -> None:
    """Check every event and recording, offline; names what was changed, lost or added, and exits 1."""
    from broker.adapters.verify import verify
    from workflows.words import counted

    report = verify(_use_state(state), key, checkpoints)
    for finding in report.findings:
        console.print(f"[red]{'missing' if finding.missing else 'damaged'}[/]  {escape(str(finding))}")
    if not report.heads and report.findings:
        raise typer.Exit(1)  # Nothing was there to be checked, so there is nothing to count.
    found = "[green]whole[/]" if report.good else f"[red]{counted(len(report.findings), 'finding')}[/]"
    events, records = counted(report.events, "event"), counted(report.records, "recorded statement")
    console.print(f"{events}, {records}, {counted(report.checkpoints, 'signed checkpoint')}: {found}")
    if report.unsealed:
        console.print(f"{report.unsealed} records stand in the journal, which the broker seals as it goes on or starts")
    if report.aside:
        files = counted(report.aside, "file")
        console.print(f"{files} beside them (`*.torn`) with what a crash left half-written, or no recording took")
    if report.unsigned:
        console.print(f"{counted(report.unsigned, 'event')} behind the last checkpoint, which nobody has signed yet")
    if key is None or checkpoints is None:
        console.print(
            "only copies kept elsewhere show that a log was replaced with its key, or cut back with its checkpoints: "
            "--key and --checkpoints name them",
            soft_wrap=True,
        )
    if not report.good:
        raise typer.Exit(1)


@audit_app.command("transcript")
def audit_transcript(
    name: Annotated[str, typer.Argument(help="A grant's id, or its request's; without one they are listed.")] = "",
    state: StateOption = None,
) -> None:
    """Print what happened under a grant, offline, without literals; lists what there is where none is named."""
    from broker.adapters.archive import kept, told
    from broker.errors import AirlockError

    folder = _use_state(state)
    try:
        for line in told(folder, name) if name else ():
            console.out(line, highlight=False)
    except AirlockError as error:
        console.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
        raise typer.Exit(1) from None
    for one in () if name else kept(folder):
        console.out(f"{one.at[:16].replace('T', ' ')}  {one.grant}  {one.person}: {one.role} on {one.resource}")


@slack_app.command("manifest")
def slack_manifest(
    command: Annotated[
        str, typer.Option(envvar="AIRLOCK_COMMAND", help="The slash command, as AIRLOCK_COMMAND has it.")
    ] = "/access",
    url: Annotated[
        str, typer.Option(help="Where Slack sends payloads over HTTP; without it they come through a socket.")
    ] = "",
) -> None:
    """Print the manifest of the Slack app, to create the app from."""
    from bot.chat.slack.manifest import text
    from workflows.settings import slash_command

    try:
        slash_command(command)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--command") from None
    if url and not url.startswith("https://"):
        raise typer.BadParameter("Slack sends payloads to https:// only", param_hint="--url")
    sys.stdout.write(text(command, url))


@app.command()
def doctor(
    what: Annotated[str, typer.Argument(help="A resource, like `prod-db`; or `slack`.", metavar="RESOURCE|slack")],
    role: Annotated[str | None, typer.Option(help="One role of the resource; all of them without.")] = None,
    policies: PoliciesOption = None,
    state: StateOption = None,
) -> None:
    """Say what is wrong with how this is set up, and what mends it; exits 1 if something is.

    A resource is examined with its own credentials: its roles, TLS, the relations and fields that policies name. Of
    Slack: tokens, scopes, the reviewers' channel, the command and the clock.
    """
    _use_state(state)
    if what == "slack":
        good = _doctor_slack()
    else:
        os.environ["AIRLOCK_POLICIES"] = str(_policies(policies))
        from broker.doctor import examine

        lines, good = examine(what, role)
        for line in lines:
            console.print(line, soft_wrap=True)
    if not good:
        raise typer.Exit(1)


@app.command()
def provision(
    resource: Annotated[str, typer.Argument(help="A resource, like `prod-db`.")],
    shown: Annotated[bool, typer.Option("--print", help="Print the SQL; nothing is ever run.")] = False,
    role: Annotated[str | None, typer.Option(help="One role of the resource; all of them without.")] = None,
    server: Annotated[
        int, typer.Option(min=13, max=18, help="The server's major version: what it understands differs.")
    ] = 18,
    policies: PoliciesOption = None,
    state: StateOption = None,
) -> None:
    """Print what makes a resource's roles at its server, for an administrator to read and run."""
    if not shown:
        console.print("nothing is run for you: `--print` shows the SQL, for an administrator of the server to run")
        raise typer.Exit(2)
    _use_state(state)
    os.environ["AIRLOCK_POLICIES"] = str(_policies(policies))
    from broker.doctor import provision as lines_of

    lines, good = lines_of(resource, role, server)
    for line in lines:
        console.print(line, soft_wrap=True, markup=not good)
    if not good:
        raise typer.Exit(1)


def _doctor_slack() -> bool:
    from bot.chat.slack.doctor import examine

    report = examine()
    if "AIRLOCK_DEMO_UPSTREAM_PORT" in os.environ:
        report.notes.append("this is the demo's state, which needs no Slack: a local workspace stands in for it")
    for finding in report.findings:
        console.print(f"[red]wrong[/]  {escape(finding.problem)}", soft_wrap=True)
        console.print(f"       {escape(finding.remedy)}", soft_wrap=True)
    for text in report.notes:
        console.print(f"[yellow]note[/]   {escape(text)}", soft_wrap=True)
    for text in report.good:
        console.print(f"[green]good[/]   {escape(text)}", soft_wrap=True)
    return not report.findings


def _policies(given: Path | None) -> Path:
    """Choose the policy folder, alike for what checks it and what obeys it."""
    here = Path("policies")
    return given or Path(os.environ.get("AIRLOCK_POLICIES") or (here if here.is_dir() else HERE / here))


def _use_state(given: Path | None) -> Path:
    """Choose the state folder, and take the settings that a demo on it left there."""
    # The demo's is found from any folder that has no state of its own, as the policies beside this file are.
    here = Path(".airlock")
    places = (here / "demo", here, HERE / ".airlock" / "demo")
    found = next((path for path in places if path.is_dir()), here)
    state = given or Path(os.environ.get("AIRLOCK_STATE") or found)
    os.environ["AIRLOCK_STATE"] = str(state)
    settings = state / "settings.json"
    if settings.is_file():
        for name, value in json.loads(settings.read_text(encoding="utf-8")).items():
            os.environ.setdefault(name, value)
    return state


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
