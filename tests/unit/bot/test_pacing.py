"""Turns to call Slack: who waits goes first, refusals hold back their kind, counting leaves room."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bot.adapters.boxes import Urgency
from bot.chat.slack import pacing
from bot.chat.slack.pacing import TURN, Pacer, SlackBusy

HASTY = True
POST = "chat.postMessage"


async def take(pacer: Pacer, made: list[Any], urgency: Urgency, number: int, method: str = POST) -> None:
    TURN.set((urgency, number))
    await pacer.turn(method, "C1")
    made.append(number)


async def test_messages_to_one_channel_keep_their_distance() -> None:
    pacer, start = Pacer(0.05), asyncio.get_running_loop().time()
    await pacer.turn(POST, "C1")
    others = asyncio.gather(*(pacer.turn(POST, "C1") for _ in range(3)))
    await pacer.turn(POST, "C2")
    assert asyncio.get_running_loop().time() == start
    await others
    assert 0.15 <= asyncio.get_running_loop().time() - start < 0.16
    start, at_once = asyncio.get_running_loop().time(), Pacer(0)
    await asyncio.gather(*(at_once.turn(POST, "C1") for _ in range(100)))
    assert asyncio.get_running_loop().time() == start


async def test_what_people_wait_for_goes_first_and_the_rest_as_it_was_queued() -> None:
    pacer, made = Pacer(0.03), []
    await take(pacer, made, Urgency.COUNT, 0)
    wanted = [(Urgency.COUNT, 5), (Urgency.STORY, 4), (Urgency.STORY, 3), (Urgency.ASK, 9), (Urgency.BROKER, 20)]
    await asyncio.gather(*(asyncio.create_task(take(pacer, made, *one)) for one in wanted))
    assert made == [0, 20, 9, 3, 4, 5]


async def test_late_comer_who_is_more_urgent_overtakes_those_who_wait() -> None:
    pacer, made = Pacer(0.1), []
    tasks = [asyncio.create_task(take(pacer, made, Urgency.COUNT, number)) for number in range(4)]
    await asyncio.sleep(0.03)
    await take(pacer, made, Urgency.ASK, 99)
    await asyncio.gather(*tasks)
    assert made == [0, 99, 1, 2, 3]


async def test_refusal_holds_back_one_channel_and_no_other() -> None:
    pacer = Pacer(0)
    pacer.hold_off(POST, "C1", 0.2)
    start = asyncio.get_running_loop().time()
    await pacer.turn(POST, "C2")
    assert asyncio.get_running_loop().time() - start < 0.1
    await pacer.turn(POST, "C1")
    assert asyncio.get_running_loop().time() - start >= 0.19


async def test_long_refusal_sends_those_away_who_wait_and_those_who_come() -> None:
    pacer, made = Pacer(5), []
    await take(pacer, made, Urgency.ASK, 0)
    waiting = asyncio.create_task(take(pacer, made, Urgency.ASK, 1))
    await asyncio.sleep(0.02)
    pacer.hold_off(POST, "C1", 30)
    with pytest.raises(SlackBusy) as refused:
        await waiting
    assert refused.value.after == 30
    with pytest.raises(SlackBusy):
        await pacer.turn(POST, "C1")
    assert made == [0]


async def test_somebody_who_gives_up_waiting_takes_no_turn() -> None:
    pacer, made = Pacer(0.05), []
    await take(pacer, made, Urgency.ASK, 0)
    gone = asyncio.create_task(take(pacer, made, Urgency.ASK, 1))
    stays = asyncio.create_task(take(pacer, made, Urgency.ASK, 2))
    await asyncio.sleep(0.01)
    gone.cancel()
    await stays
    assert made == [0, 2]


async def test_counting_leaves_edits_for_what_people_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "BUDGETS", {"chat.update": (4, 2)})
    monkeypatch.setattr(pacing, "MINUTE", 0.4)
    pacer, made = Pacer(1), []
    start = asyncio.get_running_loop().time()
    counting = [asyncio.create_task(take(pacer, made, Urgency.COUNT, number, "chat.update")) for number in range(3)]
    await asyncio.sleep(0.02)
    await take(pacer, made, Urgency.ASK, 10, "chat.update")
    await take(pacer, made, Urgency.ASK, 11, "chat.update")
    assert made == [0, 1, 10, 11]
    assert asyncio.get_running_loop().time() - start < 0.3
    await asyncio.gather(*counting)
    assert asyncio.get_running_loop().time() - start >= 0.39


async def test_closing_sends_everybody_away() -> None:
    pacer, made = Pacer(5), []
    await take(pacer, made, Urgency.ASK, 0)
    waiting = asyncio.create_task(take(pacer, made, Urgency.ASK, 1))
    await asyncio.sleep(0.01)
    pacer.close()
    with pytest.raises(SlackBusy):
        await waiting
    with pytest.raises(SlackBusy):
        await pacer.turn(POST, "C2")
