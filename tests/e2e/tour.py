"""Makes the README's pictures from the real thing: `make tour` plays the story in a browser and writes PNG files.

The pictures change with what they show, times and passwords among it; the people and the data are invented.
"""

import re
import shutil
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tests.e2e.conftest import REPOSITORY, start_demo
from tests.e2e.test_browser_story import PHONE, Window, approve, open_psql
from tests.integration.pages import FLAGS, chromium

TOUR = REPOSITORY / "bot" / "workspace" / "tour"
DESKTOP = (1280, 800)
MOST_BYTES = 1_500_000


def main() -> int:
    """Plays the story and takes the pictures; returns the exit status."""
    folder = Path(tempfile.mkdtemp(prefix="airlock-tour-"))
    folder.chmod(0o711)
    demo = start_demo(folder)
    try:
        url = str(demo.summary["workspace"])
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium(), args=FLAGS)
            with shown(browser, url, DESKTOP) as window:
                ask_and_look(window)
                with shown(browser, url, PHONE) as small:
                    phone(small)
                change_and_end(window)
            browser.close()
    finally:
        demo.stop()
        shutil.rmtree(folder, ignore_errors=True)
    total = sum(path.stat().st_size for path in TOUR.glob("*.png"))
    sys.stdout.write(f"{len(list(TOUR.glob('*.png')))} pictures, {total // 1024} KB, in {TOUR}\n")
    return 0 if total <= MOST_BYTES else 1


@contextmanager
def shown(browser: Browser, url: str, size: tuple[int, int]) -> Iterator[Window]:
    """Opens a light window of a size."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(f"{url}/#alice/incidents")
    yield Window(page, url)
    context.close()


def ask_and_look(window: Window) -> None:
    """Takes the pictures from the question to the first rows."""
    window.leads("Fill it in")
    take(window, "1-ask")
    window.send()
    window.says("Your request for read on prod-db waits for")
    window.leads("Go there as Bob")
    window.page.get_by_role("button", name="Approve read on prod-db").last.wait_for()
    take(window, "2-review")
    approve(window, "read")
    window.has_done("approve")
    open_psql(window, "connect", "read")
    window.leads("Type it for me")
    window.psql(r"\*\*\*\d{4}")
    window.leads("Type it for me")
    window.psql("^HINT:")
    take(window, "3-psql")


def change_and_end(window: Window) -> None:
    """Takes the pictures from the held statement to the transcript."""
    window.leads("Go there as Alice")
    window.send()
    window.leads("Go there as Bob")
    approve(window, "write")
    window.says("Your approval counts")
    window.leads("Go there as Erin")
    approve(window, "write")
    window.has_done("approve-security")
    open_psql(window, "connect-write", "write")
    window.leads("Type it for me")
    window.psql("waiting for|review")
    window.leads("Go there as Bob")
    window.press("repl")
    thread = window.page.get_by_role("complementary", name="Thread")
    button = thread.get_by_role("button", name=re.compile("^Approve .*, once$")).last
    button.scroll_into_view_if_needed()
    take(window, "4-hold")
    button.click()
    window.confirm("Approve")
    window.leads("Go there as Alice")
    window.page.get_by_role("log", name="What psql says").get_by_text("UPDATE 1").wait_for()
    window.leads("Go there as Alice")
    window.page.get_by_role("log", name="Messages").get_by_role("button", name="End now: write on prod-db").last.click()
    window.confirm("End now")
    window.has_done("end")
    take(window, "5-ended")
    window.leads("Go there as Bob")
    window.press("repl")
    window.says("Its sessions are verified gone")
    window.press("^Open .*txt")
    take(window, "6-transcript")


def phone(window: Window) -> None:
    """Takes the phone's picture: the same psql, in a hand."""
    window.press("^Show channels")
    window.press("^Terminal")
    box = window.page.get_by_role("textbox", name="Type SQL for psql")
    box.wait_for()
    box.fill("select id, name, upper(ssn) from customers limit 3;")
    window.psql("upper")
    take(window, "7-phone")


def take(window: Window, name: str) -> None:
    """Takes a picture, in 256 colours."""
    window.page.wait_for_timeout(400)
    TOUR.mkdir(exist_ok=True)
    (TOUR / f"{name}.png").write_bytes(in_few_colours(window.page.screenshot()))


def in_few_colours(png: bytes) -> bytes:
    """Writes a PNG of 8-bit RGB again, with a palette of its 256 commonest colours."""
    width, height, step, rows = _pixels(png)
    colours = Counter(row[x : x + 3] for row in rows for x in range(0, len(row), step))
    palette = [colour for colour, _ in colours.most_common(256)]
    place = {colour: index for index, colour in enumerate(palette)}
    for colour in colours:
        if colour not in place:
            place[colour] = min(range(len(palette)), key=lambda index: _distance(palette[index], colour))
    lines = b"".join(b"\0" + bytes(place[row[x : x + 3]] for x in range(0, len(row), step)) for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", head), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def _distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _pixels(png: bytes) -> tuple[int, int, int, list[bytes]]:
    """Reads width, height, bytes a pixel, and the rows of a PNG of 8 bits a channel, not interlaced."""
    width, height, depth, kind = struct.unpack_from(">IIBB", png, 16)
    assert depth == 8
    step = {2: 3, 6: 4}[kind]
    data, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        data += png[at + 8 : at + 8 + length] if png[at + 4 : at + 8] == b"IDAT" else b""
        at += length + 12
    raw, rows = zlib.decompress(data), []
    before = bytearray(width * step)
    for y in range(height):
        start = y * (width * step + 1)
        row = bytearray(raw[start + 1 : start + 1 + width * step])
        _unfilter(raw[start], row, before, step)
        rows.append(bytes(row))
        before = row
    return width, height, step, rows


def _unfilter(kind: int, row: bytearray, above: bytearray, step: int) -> None:
    for x in range(len(row) if kind else 0):
        left, corner = (row[x - step], above[x - step]) if x >= step else (0, 0)
        row[x] = (row[x] + _guess(kind, left, above[x], corner)) & 255


def _guess(kind: int, left: int, up: int, corner: int) -> int:
    if kind < 4:
        return (0, left, up, (left + up) // 2)[kind]
    base = left + up - corner
    tries: list[Any] = sorted((left, up, corner), key=lambda each: abs(base - each))
    return int(tries[0])


if __name__ == "__main__":
    sys.exit(main())
