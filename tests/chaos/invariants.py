"""What must be so after every run, whatever went wrong in it; each check names what it found."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from broker.protocols.postgres.settings import SHOWS
from tests.chaos.evidence import Watch, bot_rows, broker_rows, recording
from tests.chaos.people import Unanswered, key_of
from tests.chaos.policy import READ, WRITE
from tests.chaos.rig import Rig
from tests.chaos.stage import Deeds
from tests.chaos.story import Story
from tests.chaos.upstream import Backend
from tests.support.bot_world import shown

NORMAL, BROKER_DEAD = 1.0, 3.0
ENDS = ("grant.ended", "grant.expired", "grant.revoked")
_STATES = {"grant.ended": "ended", "grant.expired": "expired", "grant.revoked": "revoked"}
_WORDS = {"denied": "Denied by", "cancelled": "Cancelled", "expired": "Expired", "pending": "Waiting for"}
_LOGIN = "select pg_catalog.pg_backend_pid(), pg_catalog.encode(pg_catalog.timestamptz_send(backend_start)"
"""What the broker asks first on a session's connection, before its client is let in."""
_ARMING = "select pg_catalog.set_config('statement_timeout'"
_WAITING = "select pg_catalog.set_config('idle_session_timeout'"
"""What it asks on one that was logged in ahead: when a session takes it, and before."""
SPARE_SECONDS = 75.0
"""How old a connection gets that is no session's, with time for a machine that is busy or stands still."""
_OWN = ("airlock:broker", "airlock:reaper")

Check = Callable[["Scene"], Iterator[str]]


class Scene:
    """One run and everything that is known of it."""

    def __init__(self, rig: Rig, watch: Watch, story: Story) -> None:
        self.rig = rig
        self.watch = watch
        self.story = story
        self.deeds: Deeds = story.deeds
        reasons = list(self.deeds.asked)
        marks = ",".join("?" * len(reasons))
        self.requests = bot_rows(rig, f"select * from requests where reason in ({marks})", *reasons)
        ids = [request["id"] for request in self.requests]
        marks = ",".join("?" * len(ids))
        self.grants = broker_rows(rig, f"select * from grants where request in ({marks})", *ids)
        self.shown_grants = bot_rows(rig, f"select * from grants where request in ({marks})", *ids)
        self.reviews = bot_rows(rig, f"select * from reviews where request in ({marks})", *ids)
        self.given = [grant for grant in self.grants if grant["state"] != "refused"]
        self.cards: list[dict[str, Any]] = []
        self.threads: dict[str, list[dict[str, Any]]] = {}
        self.direct: list[dict[str, Any]] = []

    async def look(self) -> None:
        """Read what is in the workspace."""
        people = self.rig.people
        app = self.rig.app()
        channels: dict[str, str] = app["channels"]  # type: ignore[assignment]
        self.cards = await people.posted(channels["access-requests"], self.story.since)
        for card in self.cards:
            if any(request["id"] in json.dumps(card) for request in self.requests):
                thread = await people.posted(channels["access-requests"], "0", card["ts"])
                self.threads[card["ts"]] = thread[1:]
        if (channel := await people.direct("alice")) != "":
            self.direct = await people.posted(channel, self.story.since)

    def backends(self, grant: str) -> list[Backend]:
        """Return the upstream's connections of a grant's sessions."""
        names = {f"airlock:{session}" for session, of in self.watch.leases.items() if of == grant}
        return [backend for backend in self.rig.upstream.backends if backend.name in names]


def unsettled(scene: Scene) -> list[str]:
    """Say what has not come to rest yet; nothing is rest."""
    found = [f"outbox row {row['key']} is not sent: {row['error']}" for row in _waiting(scene.rig)]
    if inbox := bot_rows(scene.rig, "select key from inbox where done_at is null"):
        found.append(f"{len(inbox)} payloads wait: {inbox[0]['key']}")
    for row in bot_rows(scene.rig, "select * from messages where shown < wanted and ts is not null"):
        if not row["key"].startswith("ticket:"):
            found.append(f"message {row['key']} shows {row['shown']} of {row['wanted']}")
    for grant in scene.given:
        if grant["state"] in ("opening", "active"):
            if time.time() > scene.story.began + 600:
                found.append(f"grant {grant['id']} is {grant['state']}")
        elif grant["closed_at"] is None:
            found.append(f"grant {grant['id']} is {grant['state']} and not closed")
        for shown_grant in scene.shown_grants:
            if shown_grant["id"] == grant["id"] and shown_grant["state"] != grant["state"]:
                found.append(f"bot shows grant {grant['id']} as {shown_grant['state']}, it is {grant['state']}")
            if shown_grant["id"] == grant["id"] and grant["closed_at"] and shown_grant["closed_at"] is None:
                found.append(f"bot does not know that grant {grant['id']} is closed")
    return found


def _waiting(rig: Rig) -> list[dict[str, Any]]:
    rows = bot_rows(rig, "select key, error, lane from outbox where sent_at is null")
    # A counter that is due in two seconds and an expiry that lies ahead are at rest.
    return [row for row in rows if not row["lane"].startswith("later:")]


def once(scene: Scene) -> Iterator[str]:
    """Every ask is one request, every decision is made once and stays, every acknowledged click counts."""
    for reason, taken in scene.deeds.asked.items():
        count = sum(request["reason"] == reason for request in scene.requests)
        if count > 1 or (taken and count == 0):
            yield f"an ask ({'acknowledged' if taken else 'unanswered'}) made {count} requests: {reason}"
    by_reason = {request["reason"]: request for request in scene.requests}
    for reason, who, action in scene.deeds.taken:
        request = by_reason.get(reason)
        if request is None:
            continue
        counted = {
            (review["person"], review["answer"]) for review in scene.reviews if review["request"] == request["id"]
        }
        if action == "request.approve" and (who, "approve") not in counted:
            yield f"{who}'s acknowledged approval of {request['id']} is lost"
        if action == "request.deny" and request["state"] != "denied":
            yield f"{who}'s acknowledged denial left {request['id']} {request['state']}"
        if action == "request.cancel" and request["state"] != "cancelled":
            yield f"{who}'s acknowledged cancelling left {request['id']} {request['state']}"
    for grant in scene.given:
        kinds = Counter(fact.kind for fact in scene.watch.of(grant["id"]))
        if kinds["grant.opened"] != 1:
            yield f"{grant['id']} opened {kinds['grant.opened']} times in the log"
        ends = [kind for kind in ENDS for _ in range(kinds[kind])]
        if len(ends) > 1 or (ends and _STATES[ends[0]] != grant["state"]):
            yield f"{grant['id']} is {grant['state']}, and its ends in the log are {ends}"
        if grant["closed_at"] and (not ends or kinds["grant.closed"] != 1):
            yield f"{grant['id']} is closed, with {ends} and {kinds['grant.closed']} closings in the log"


def decided(scene: Scene) -> Iterator[str]:
    """No grant without a decision of people who clicked, and one at most for each request."""
    by_id = {request["id"]: request for request in scene.requests}
    if doubled := [request for request, count in Counter(g["request"] for g in scene.given).items() if count > 1]:
        yield f"requests with more than one grant: {doubled}"
    for grant in scene.given:
        request = by_id[grant["request"]]
        order = json.loads(grant["order"])
        approvers = {review["person"] for review in order["reviews"] if review["answer"] == "approve"}
        clicked = {
            who
            for reason, who, action in scene.deeds.clicks
            if reason == request["reason"] and action == "request.approve"
        }
        needed = 2 if grant["role"] == "write" else 1
        if len(approvers) < needed or not approvers <= clicked or "alice" in approvers:
            yield f"{grant['id']} was given for {approvers}, and {clicked} have approved"
        if request["state"] != "approved":
            yield f"{grant['id']} was given, and its request is {request['state']}"


def said_once(scene: Scene) -> Iterator[str]:
    """No message twice: neither under one key, nor a second one of what is kept up to date in place."""
    messages = [*scene.cards, *scene.direct, *(reply for thread in scene.threads.values() for reply in thread)]
    keys = Counter(key for message in messages if (key := key_of(message)))
    for key, count in keys.items():
        if count > 1:
            yield f"{count} messages were sent under {key}"
    places: dict[str, set[str]] = {}
    for message in messages:
        kind, _, rest = key_of(message).partition(":")
        if kind == "show":
            places.setdefault(rest.rpartition(":")[0], set()).add(str(message["ts"]))
    for place, found in places.items():
        if len(found) > 1:
            yield f"{place} was posted {len(found)} times"
    for ts, thread in scene.threads.items():
        files = Counter(file["name"] for reply in thread for file in reply.get("files", []))
        for name, count in files.items():
            if count > 1:
                yield f"{name} is {count} times under {ts}"
        texts = Counter(message["text"] for message in thread if not message.get("files") and message.get("text"))
        for text, count in texts.items():
            # What may happen twice is said twice: refused connections, blocked and denied statements, outages.
            again = text.startswith(("A connection", "Session", "Blocked", "chaos-")) or "statement" in text[:60]
            if count > 1 and not again:
                yield f"{count} replies say: {text[:100]}"


def cards_true(scene: Scene) -> Iterator[str]:
    """Every card says what the database says, and a grant that is over has its summary and its transcript."""
    for request in scene.requests:
        cards = [card for card in scene.cards if request["id"] in json.dumps(card)]
        if len(cards) != 1:
            yield f"{request['id']} has {len(cards)} cards"
            continue
        text = shown({"text": cards[0]["text"], "blocks": cards[0].get("blocks", [])})
        grant = next((one for one in scene.given if one["request"] == request["id"]), None)
        if request["state"] in _WORDS and _WORDS[request["state"]] not in text:
            yield f"{request['id']} is {request['state']}, and its card says: {text[-300:]}"
        if grant is not None:
            yield from _grant_shown(scene, grant, text, scene.threads.get(cards[0]["ts"], []))


def _grant_shown(scene: Scene, grant: dict[str, Any], text: str, thread: list[dict[str, Any]]) -> Iterator[str]:
    words = {"ended": "Ended by", "revoked": "Revoked", "expired": "The time is over"}.get(grant["state"], "open until")
    if words not in text:
        yield f"{grant['id']} is {grant['state']}, and its card says: {text[-300:]}"
    if grant["closed_at"] is None:
        return
    if not any("had " in message["text"] and " for " in message["text"] for message in thread):
        yield f"{grant['id']} is closed, and its thread has no summary"
    if len({file["name"] for message in thread for file in message.get("files", [])}) != 2:
        yield f"{grant['id']} is closed, and its thread has no transcript"
    for message in scene.direct:
        content = json.dumps(message)
        if "PGPASSWORD=" in content and f"on {grant['resource']}," in content:
            yield f"{grant['id']} is over, and its ticket is still shown"


def sessions_covered(scene: Scene) -> Iterator[str]:
    """No session without a grant: every upstream connection under a role's name is a lease's, or the broker's own.

    One that waits for a session has no lease, nor one whose lease could not be written: it has only logged in, and been
    given its limits, and does not stay for long.
    """
    for backend in scene.rig.upstream.backends:
        if backend.user not in (READ, WRITE) or backend.name in _OWN or backend.began < scene.story.began:
            continue
        session = backend.name.removeprefix("airlock:")
        waits = backend.user == READ and all(
            _plain(text).startswith((_LOGIN, _WAITING, _ARMING)) for _, text in backend.statements
        )
        if session not in scene.watch.leases and waits:
            age = (backend.ended if backend.ended is not None else time.time()) - backend.began
            if age > SPARE_SECONDS:
                yield f"upstream connection {backend.pid} of {backend.user} waited {age:.0f} s for a session"
        elif session not in scene.watch.leases:
            yield f"upstream connection {backend.pid} of {backend.user} ({backend.name}) has no lease"
    for grant in scene.given:
        opened = next((fact.seen for fact in scene.watch.of(grant["id"]) if fact.kind == "grant.opened"), None)
        for backend in scene.backends(grant["id"]):
            if opened is None or backend.began < opened - 1:
                yield f"session {backend.name} began before its grant {grant['id']} was open"


def ended_in_time(scene: Scene) -> Iterator[str]:
    """No session is older than its grant by more than a second; three with the broker dead."""
    for grant in scene.given:
        facts = scene.watch.of(grant["id"])
        end = next((fact.seen for fact in facts if fact.kind in ENDS), None)
        deadline = grant["boot_deadline"] + (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))
        end = min(end or deadline, deadline)
        for backend in scene.backends(grant["id"]):
            over = backend.ended if backend.ended is not None else time.time()
            late = over - end
            if late > _limit(scene, end, over):
                still = "" if backend.ended is not None else ", and still runs"
                yield f"session {backend.name} outlived {grant['id']} by {late:.2f} s{still}"
            for killed in scene.rig.members["broker"].kills:
                left = _limit(scene, killed, over)
                if backend.began < killed and over > killed + left:
                    yield f"session {backend.name} outlived its broker by {over - killed:.2f} s"
        for fact in facts:
            if fact.kind == "session.closed" and fact.data.get("verified"):
                for backend in scene.backends(grant["id"]):
                    if backend.name == f"airlock:{fact.session}" and (backend.ended or 1e12) > fact.seen + 0.1:
                        yield f"session {fact.session} was said to be gone before it was"


def _limit(scene: Scene, end: float, over: float) -> float:
    """Return how much later than its grant a session may end; while the upstream stands still nothing can."""
    allowed = BROKER_DEAD if scene.rig.was_down("broker", end - 0.5, over) else NORMAL
    thawed = [until for begin, until in scene.rig.upstream.down if begin <= over and until >= end - 0.5]
    return allowed + max((until - end for until in thawed if until < float("inf")), default=0.0)


def recorded_first(scene: Scene) -> Iterator[str]:
    """No statement reaches the upstream without its record, and none more often than it was recorded."""
    for grant in scene.given:
        lines = recording(scene.rig, grant["id"])
        allowed: dict[str, Counter[str]] = {}
        for line in lines:
            if line["type"] == "statement.allowed" and (line.get("detail") or {}).get("sql") is not None:
                text = line["detail"].get("rewritten") or line["detail"]["sql"]
                allowed.setdefault(line["session"], Counter())[_plain(text)] += 1
        for backend in scene.backends(grant["id"]):
            session = backend.name.removeprefix("airlock:")
            texts = [_plain(text) for _, text in backend.statements]
            for own in (_LOGIN, _WAITING, _ARMING):
                texts = texts[1:] if texts and texts[0].startswith(own) else texts
            ran = Counter(text for text in texts if text not in SHOWS)
            for text, count in ran.items():
                known = allowed.get(session, Counter())[text]
                if count > known:
                    yield f"session {session} ran {count} times what is recorded {known} times: {text[:150]}"


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(";")


def effects_once(scene: Scene) -> Iterator[str]:
    """A held write has its effect once, after somebody approved it, and never where the client was told otherwise."""
    found: Counter[str] = Counter()
    with scene.rig.upstream.connect() as admin:
        for (what,) in admin.execute("select what from effects").fetchall():
            found[what] += 1
    for effect in scene.deeds.effects:
        count = found[effect.marker]
        if count > 1 or (count == 1 and not effect.approved):
            yield f"held write {effect.marker} took effect {count} times ({'' if effect.approved else 'not '}approved)"
        if effect.outcome == "done" and count != 1:
            yield f"the client was told that {effect.marker} is done, and it is there {count} times"
        if effect.outcome == "refused" and count:
            yield f"the client was told that {effect.marker} is refused, and it is there"
    for grant in scene.given:
        moves: dict[str, list[str]] = {}
        for fact in scene.watch.of(grant["id"]):
            if fact.kind.startswith("hold."):
                moves.setdefault(str(fact.data.get("hold")), []).append(fact.kind.removeprefix("hold."))
        for hold, kinds in moves.items():
            final = [kind for kind in kinds if kind in ("consumed", "refused", "timed_out", "abandoned")]
            if kinds.count("opened") != 1 or len(final) > 1 or kinds.count("released") > 1:
                yield f"hold {hold} went {' > '.join(kinds)}"


def told_truly(scene: Scene) -> Iterator[str]:
    """Nothing masked came in clear, and nothing denied ran."""
    if scene.deeds.clear:
        yield f"masked values came in clear: {len(scene.deeds.clear)}"
    for statement in scene.deeds.passed:
        yield f"a denied statement ran: {statement}"


def nothing_lost(scene: Scene) -> Iterator[str]:
    """Nothing was given up: no payload that nobody worked on, no message that never left."""
    for row in bot_rows(scene.rig, "select key, error from inbox where error is not null and attempts >= 5"):
        yield f"payload {row['key']} was given up: {row['error']}"
    for row in bot_rows(scene.rig, "select key, error, receipt from outbox where receipt like '%gave_up%'"):
        yield f"message {row['key']} was given up: {row['error']}"


CHECKS: tuple[Check, ...] = (
    once, decided, said_once, cards_true, sessions_covered, ended_in_time, recorded_first, effects_once, told_truly,
    nothing_lost,
)  # fmt: skip


async def violations(scene: Scene) -> list[str]:
    """Return everything that is wrong."""
    with suppress(Unanswered):
        await scene.look()
    return [f"{check.__name__}: {problem}" for check in CHECKS for problem in check(scene)]
