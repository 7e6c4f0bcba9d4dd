"""A port for a test's server, which no other process is about to take."""

import socket


def some_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
