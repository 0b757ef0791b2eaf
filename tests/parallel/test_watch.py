"""The watch over the other hosts, with a store and a clock in the test's hands; and the relay to the coordinator."""

import json
import socket
import threading
import time

import pytest

from jaxvpr.parallel import watch
from jaxvpr.parallel.relay import Relay, reachable


class Store(dict):
    """What the watch uses of JAX's key-value store."""

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self
        self[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.items() if key.startswith(folder)]


class Run:
    """Three watches on one store."""

    def __init__(self):
        self.now, self.store, self.closed = 0.0, Store(), False
        self.watches = [
            watch.Watch(self.store, me, 3, lambda: self.closed, clock=lambda: self.now) for me in range(3)
        ]  # fmt: skip

    def seconds(self, seconds, silent=()):
        """Passes the time, in which all but some give signs."""
        for _ in range(int(seconds)):
            self.now += 1
            for me, one in enumerate(self.watches):
                if me not in silent:
                    one.exchange()


@pytest.fixture
def run():
    run = Run()
    run.seconds(3)
    return run


def test_hosts_that_give_signs_are_there(run):
    run.seconds(200)
    assert [one.lost() for one in run.watches] == [None] * 3


def test_a_silent_host_is_gone_and_named(run):
    run.seconds(watch.SILENT_SECONDS, silent=[1])
    assert run.watches[0].lost() is None
    run.seconds(2, silent=[1])  # one reads its sign a second late
    for me in (0, 2):
        why, status = run.watches[me].lost()
        assert f"process 1 of 3 on {socket.gethostname()} is gone: no sign of it for 20 s" in why and status == 75


def test_one_that_never_came_is_gone_too():
    run = Run()
    run.seconds(21, silent=[2])
    assert run.watches[0].lost().why.startswith("process 2 of 3 is gone")


def test_all_end_with_the_reason_of_the_first(run):
    """Also one that hears only of the host that left because of it, and never of the silent one itself."""
    run.seconds(22, silent=[1])
    run.watches[0].leaving(*reversed(run.watches[0].lost()))
    run.seconds(1, silent=[0, 1])
    assert run.watches[2].lost() is None  # it may be about to say the same
    run.seconds(watch.ALIKE_SECONDS, silent=[0, 1])
    assert run.watches[2].lost() == run.watches[0].lost()


@pytest.mark.parametrize(("status", "others"), [(2, 2), (1, 75), (130, 75)])
def test_one_that_fails_takes_the_others_with_it(run, status, others):
    run.watches[2].leaving(status, "batch=15 must be even")
    run.seconds(watch.ALIKE_SECONDS + 1, silent=[2])
    why, left = run.watches[0].lost()
    assert left == others and why.endswith(f"has ended with status {status}: batch=15 must be even")
    assert why.startswith("process 2 of 3 on ")


def test_process_0_is_gone_where_its_store_is_silent_or_the_connection_closed(run):
    assert run.watches[1].lost() is None
    run.closed = True
    assert "process 0 of 3" in run.watches[1].lost().why and "closed" in run.watches[1].lost().why
    run.closed = False
    run.now += 21
    assert "process 0 of 3" in run.watches[1].lost().why and "no answer for 20 s" in run.watches[1].lost().why


def test_a_store_that_hangs_holds_nobody_up(run, monkeypatch):
    monkeypatch.setattr(watch, "ALIKE_SECONDS", 0.1)
    held = threading.Event()
    monkeypatch.setattr(run.store, "key_value_set", lambda *_, **__: held.wait(60), raising=False)
    began = time.monotonic()
    run.watches[1].leaving(75, "gone")
    assert time.monotonic() - began < 30
    held.set()


def test_the_last_sign_stays(run):
    run.watches[1].leaving(2, "wrong key")
    run.watches[1].exchange()
    assert json.loads(run.store[f"{watch.FOLDER}/1"])["status"] == 2


@pytest.fixture
def echo():
    """A server that sends back what it gets, and its connections, to close them."""
    server, open_ = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        while True:
            try:
                one, _ = server.accept()
            except OSError:
                return
            open_.append(one)
            threading.Thread(target=back, args=(one,), daemon=True).start()

    def back(one):
        try:
            while data := one.recv(1000):
                one.sendall(data)
        except OSError:
            pass

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1], open_
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    for one in open_:
        one.close()


def whole(connection, length):
    got = b""
    while len(got) < length:
        got += connection.recv(length)
    return got


def test_the_relay_passes_every_byte_and_keeps_what_the_other_end_closes(echo):
    port, open_ = echo
    relay = Relay("127.0.0.1", port)
    host, _, local = relay.address.partition(":")
    sent = bytes(range(256)) * 4000  # a million bytes
    with socket.create_connection((host, int(local))) as near:
        threading.Thread(target=near.sendall, args=(sent,), daemon=True).start()
        assert whole(near, len(sent)) == sent
        assert not relay.closed.is_set()
        open_[0].shutdown(socket.SHUT_RDWR)
        assert relay.closed.wait(10)
        near.settimeout(0.3)
        with pytest.raises(TimeoutError):  # and not the end of the stream
            near.recv(1)


def test_an_address_is_waited_for_until_somebody_listens():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "refused" in reachable("127.0.0.1", port, 0.1, 20)
    late = threading.Timer(1.0, lambda: servers.append(socket.create_server(("127.0.0.1", port))))
    servers = []
    late.start()
    assert reachable("127.0.0.1", port, 30, 20) == ""
    servers[0].close()
    assert reachable("no-such-host.invalid", 1, 0.1, 20)
