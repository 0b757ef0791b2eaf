"""What a person sees while something takes long: on a terminal, in a log file, and from a library."""

import io
import logging
import re
import threading
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from data_pipelines import progress
from data_pipelines.progress import Bar, clock, first_slow, slow, to_console

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
log = logging.getLogger("data_pipelines.some_file")


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    assert progress._live is None, "a bar was left on the terminal"


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still: tests set `now.seconds`."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 80 columns that keeps what was sent to it."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None, _environ={})
    to_console("data_pipelines")
    monkeypatch.setattr(progress, "_terminal", lambda: console)
    return console.file


def visible(screen: io.StringIO) -> list[str]:
    """What the terminal shows by now, line by line: of what escape codes do, rich's bars need these."""
    if progress._live is not None:
        progress._live._progress.refresh()  # which a thread does five times a second
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", screen.getvalue()):
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\x1b[2K":
            lines[row] = ""
        elif up := re.fullmatch(r"\x1b\[(\d+)A", token):
            row -= int(up[1])
        elif token != "\r" and not token.startswith("\x1b"):
            lines[row] += token
    return lines


def test_lines_of_a_log_by_hand(now, caplog):
    """5 images a second of 500, the first after 7 seconds: a line at most every ten seconds, whatever comes between."""
    caplog.set_level(logging.INFO, "data_pipelines")
    with Bar("describing", 500, "images") as bar:
        for image in range(500):
            now.seconds = 7 + image / 5
            bar.advance()
    assert caplog.messages[:2] == [
        "describing 16/500  5.0 images/s  1:37 left",
        "describing 66/500  5.0 images/s  1:27 left",
    ]
    assert len(caplog.messages) == 10, "in 106.8 seconds"


def test_without_a_total(now, caplog):
    caplog.set_level(logging.INFO, "data_pipelines")
    with Bar("listing", 0, "files", every=3) as bar:
        for now.seconds in (0.0, 5.0):
            bar.advance(20_000)
    assert caplog.messages == ["listing 40,000  4,000 files/s"]


def test_what_is_short_says_nothing_and_asks_for_no_terminal(now, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "data_pipelines")
    monkeypatch.setattr(progress, "_terminal", lambda: pytest.fail("asked"))
    with Bar("describing", 1000, "images") as bar:
        for _ in range(1000):
            now.seconds += 0.0019
            bar.advance()
    assert not caplog.records and bar.done == 1000


def test_a_bar_on_a_terminal_and_a_line_above_it(now, screen, capsys):
    with Bar("describing", 40, "images") as bar:
        for _ in range(20):
            now.seconds += 0.2
            bar.advance()
        shown = visible(screen)
        assert shown[0].startswith("describing ") and shown[0].endswith("20/40  5.0 images/s  0:04 left")
        assert len(shown[0]) == 80 and "━" in shown[0]
        log.info("a [bold] line, much longer than the terminal is wide: /%s", "x" * 90)
        bar.advance()
        shown = visible(screen)
        assert shown[0] == f"[   4.0s] a [bold] line, much longer than the terminal is wide: /{'x' * 90}"
        assert shown[1].startswith("describing ") and len(shown) == 2
    assert [line for line in visible(screen) if line] == shown[:1], "the bar goes, the line stays"
    hidden, back = (screen.getvalue().count(f"\x1b[?25{code}") for code in "lh")
    assert hidden == back == 1, "the cursor"
    assert capsys.readouterr() == ("", "")


def test_a_bar_within_a_bar_and_one_after(now, screen):
    with Bar("step", 100, "steps") as outer:
        now.seconds = 2.0
        outer.advance()
        with Bar("describing", 8, "images") as inner:
            now.seconds = 5.0
            inner.advance(8)
            first, second = visible(screen)
            assert first.startswith("step ") and second.startswith("describing ") and "8/8" in second
        now.seconds = 6.0
        outer.note = "loss 3.250"
        outer.advance(9)
        assert next(line for line in visible(screen) if line).endswith("10/100  loss 3.250  0:40 left")
    with Bar("searching", 4, "queries") as after:
        now.seconds = 9.0
        after.advance(2)
        assert [line for line in visible(screen) if line] == [visible(screen)[0]]
        assert visible(screen)[0].startswith("searching ")
    assert not any(visible(screen))


def test_a_block_that_fails_takes_its_bar_along(now, screen):
    with pytest.raises(ValueError, match="in the middle"), Bar("step", 9, "steps") as outer:
        now.seconds = 3.0
        outer.advance()
        with Bar("describing", 9, "images") as inner:
            now.seconds = 6.0
            inner.advance()
            raise ValueError("in the middle")
    assert not any(visible(screen)) and screen.getvalue().count("\x1b[?25h") == 1


def test_other_hosts_are_silent(now, screen, caplog, capsys):
    logging.getLogger("data_pipelines").setLevel(logging.WARNING)
    with Bar("describing", 9, "images") as bar, slow("reading"):
        now.seconds = 60.0
        bar.advance()
        bar.log()
    assert screen.getvalue() == "" and not caplog.records and capsys.readouterr() == ("", "")


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_a_real_terminal(terminal, now, capfd, environment):
    close = terminal(**environment)
    to_console("data_pipelines")
    with Bar("describing", 9, "images") as bar:
        now.seconds = 3.0
        bar.advance(4)
        log.info("a line")
    text = close()
    assert "describing" in text and "4/9" in text and "[   3.0s] a line" in text and "\x1b[?25h" in text
    coloured = re.search(r"\x1b\[[0-9;]*(3|9)[0-9]m", text) is not None or "\x1b[38;" in text
    assert coloured == (not environment)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_without_a_moving_cursor_gets_lines(terminal, now):
    close = terminal(TERM="dumb")
    to_console("data_pipelines")
    with Bar("describing", 9, "images") as bar:
        for now.seconds in (1.0, 11.0):
            bar.advance(4)
    assert close() == "[  11.0s] describing 8/9  0.4 images/s  0:02 left\r\n"


def test_a_pipe_gets_lines_even_where_colours_are_forced(now, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    to_console("data_pipelines")
    with Bar("describing", 600, "images") as bar:
        for number in range(600):
            now.seconds = number / 10
            bar.advance()
    said = capsys.readouterr()
    assert said.out == "" and not ESCAPE.search(said.err)
    assert [line[:20] for line in said.err.splitlines()] == [f"[  {s}.0s] describing" for s in (10, 20, 30, 40, 50)]


def test_a_library_only_logs(now, terminal, caplog):
    close = terminal()
    caplog.set_level(logging.INFO, "data_pipelines")
    with Bar("describing", 9, "images") as bar:
        for now.seconds in (1.0, 11.0):
            bar.advance(4)
    assert len(caplog.messages) == 1 and close() == ""


def test_slow_says_what_it_is_doing_only_where_it_is_slow(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "data_pipelines")
    with slow("reading /data/100%"):
        pass
    assert not caplog.records
    monkeypatch.setattr(progress, "AFTER", 0.01)
    with slow("reading /data/100%"):
        until = time.monotonic() + 20
        while not caplog.records and time.monotonic() < until:
            time.sleep(0.01)
    assert caplog.messages == ["reading /data/100%"]
    with pytest.raises(ValueError, match="broken"), slow("never"):
        raise ValueError("broken")
    left = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for thread in left:
        thread.join(20)
    assert not any(thread.is_alive() for thread in left) and caplog.messages == ["reading /data/100%"]


def test_the_first_call_of_each_kind_is_the_one_that_may_be_slow(monkeypatch):
    said = []

    class Recorded:
        def __init__(self, what):
            said.append(what)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(progress, "slow", Recorded)
    double = first_slow(lambda text: 2 * text, "compiling", len)
    assert [double(text) for text in ("a", "b", "cc", "d", "ee")] == ["aa", "bb", "cccc", "dd", "eeee"]
    assert said == ["compiling", "compiling"]
    once = first_slow(lambda a, b: a + b, "once")
    assert (once(1, 2), once(3, 4)) == (3, 7) and said[2:] == ["once"]


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (7322, "2:02:02")])
def test_hours_and_minutes(seconds, shown):
    assert clock(seconds) == shown
