"""Sockets of web pages: a bound address, or an error that names the key of host or port."""

from __future__ import annotations

import os
import socket

from trialbus.errors import SpecError

_MAX_PORT = 65535


def check_port(port: int, name: str = "port") -> None:
    """Check that a number is a port.

    Args:
        port: The number.
        name: Name of the field that holds the number, for the error.

    Raises:
        ValueError: The number is out of range.
    """
    if not 0 <= port <= _MAX_PORT:
        raise ValueError(f"{name} {port} is not a port (expected 0 to {_MAX_PORT})")


def listen(host: str, port: int, *, host_key: str, port_key: str) -> socket.socket:
    """Return a listening socket, so that a port in use is noticed before anything starts.

    Args:
        host: Address or name of this machine.
        port: Port; 0 lets the system choose.
        host_key: Key or flag that gives the host, for errors.
        port_key: Key or flag that gives the port, for errors.

    Raises:
        SpecError: The address cannot be bound.
    """
    try:
        check_port(port)
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family)
    except ValueError as error:
        raise SpecError(port_key, str(error).removeprefix("port ")) from None
    except socket.gaierror as error:
        raise SpecError(
            host_key, f"{host!r} is not the address of a machine: {error.strerror}"
        ) from None
    except OSError as error:
        raise SpecError(
            port_key,
            f"{port} on {host} cannot be bound: {os.strerror(error.errno or 0)} "
            "(choose another; 0 lets the system choose)",
        ) from None
