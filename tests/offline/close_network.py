"""Closes the network for a Python process: tests and the processes they start import this.

`tests/conftest.py` imports it, and puts its folder on PYTHONPATH: a child finds `sitecustomize`
there as it starts, which imports it too. Unix sockets stay open: they lead nowhere outside the
machine.
"""

import socket


class NetworkBlocked(RuntimeError):
    """Code under test tried to reach the network."""


def _guard(name):
    original = getattr(socket.socket, name)

    def guarded(self, *args):
        if self.family != socket.AF_UNIX:
            raise NetworkBlocked(f"socket.{name}{args!r}: nothing here may use the network")
        return original(self, *args)

    return guarded


def _resolve(host, *args, **kwargs):
    raise NetworkBlocked(f"looking up {host!r}: nothing here may use the network")


for _name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, _name, _guard(_name))
socket.getaddrinfo = _resolve
socket.gethostbyname = _resolve
