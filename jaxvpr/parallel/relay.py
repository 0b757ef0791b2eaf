"""A local address that stands for the coordinator's, so that its end is ours to report.

JAX aborts a process, with a stack of C++, the moment that its connection to the coordinator closes. Through a relay it
sees an open one, and `watch` says who is gone and ends the process in order.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import suppress

log = logging.getLogger(__name__)

ENOUGH = 1 << 16  # bytes that are passed on at once
# Which gRPC would ask for the local address too, and what it does not ask them for.
PROXIES, OURS = ("grpc_proxy", "https_proxy", "http_proxy"), "no_grpc_proxy"
AGAIN_SECONDS = 0.5


class Relay:
    """Passes bytes between local connections and one address.

    Args:
      host, port: where they go.

    Attributes:
      address: `127.0.0.1:port`, where this process reaches it.
      closed: set when the other end has closed a connection, or cannot be reached any more.
    """

    def __init__(self, host: str, port: int):
        self._there = host, port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.closed = threading.Event()
        if any(os.environ.get(name) for name in PROXIES):
            own = [os.environ.get(OURS) or os.environ.get("no_proxy", ""), "127.0.0.1"]
            os.environ[OURS] = ",".join(filter(None, own))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._server.accept()
            try:
                far = socket.create_connection(self._there)
            except OSError:
                self.closed.set()
                continue  # `near` stays open, and silent
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._outwards, args=(near, far), daemon=True).start()
            threading.Thread(target=self._inwards, args=(far, near), daemon=True).start()

    def _outwards(self, near: socket.socket, far: socket.socket) -> None:
        try:
            _pass_on(near, far)
            far.shutdown(socket.SHUT_WR)
        except OSError:
            self.closed.set()

    def _inwards(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):  # whichever end broke, the coordinator is not heard any more
            _pass_on(far, near)
        self.closed.set()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Until the source has closed its end."""
    while data := source.recv(ENOUGH):
        target.sendall(data)


def reachable(host: str, port: int, seconds: float, say_seconds: float) -> str:
    """Waits until somebody listens at an address; "" then, or why not after so many seconds.

    Names are looked up each time: a cluster makes that of a late host known late.
    """
    began = said = time.monotonic()
    while True:
        try:
            socket.create_connection((host, port), timeout=10).close()
            return ""
        except OSError as error:
            now = time.monotonic()
            if now - began >= seconds:
                return str(error)
            if now - said >= say_seconds:
                said = now
                log.warning("waiting since %.0f s for process 0 at %s:%d: %s", now - began, host, port, error)
            time.sleep(AGAIN_SECONDS)
