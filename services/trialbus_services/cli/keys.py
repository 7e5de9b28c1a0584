"""`trialbus keys`: CURVE keys for a bus that other machines can reach."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from trialbus.protocol.permissions import Role
from trialbus.protocol.security import create_keys
from trialbus_services.process import exit_codes

#: Roles whose keys may be bound to one study.
_BOUND_ROLES: tuple[Role, ...] = ("worker", "trainer")

#: Roles of the keys that `bus=curve` needs, by name.
_SERVICE_KEYS: dict[str, Role] = {
    "hub": "service",
    "service": "service",
    "worker": "worker",
    "trainer": "trainer",
}


def keys(arguments: list[str]) -> int:
    """Make CURVE keys, print the commands that use the keys, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="trialbus keys", description="Make keys for a bus that other machines can reach."
    )
    parser.add_argument(
        "--dir", default=".trialbus/keys", help="folder of keys (default: %(default)s)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "init", help="make the keys that `bus=curve` needs: hub, service, worker, trainer"
    )
    new = commands.add_parser("new", help="make one key and allow it")
    new.add_argument("name")
    new.add_argument("--role", choices=get_args(Role), default="listener")
    new.add_argument("--study", help="for a worker or trainer: this study only")
    options = parser.parse_args(arguments)
    if options.command == "new" and options.study is not None and options.role not in _BOUND_ROLES:
        parser.error(
            f"--study is for --role worker and --role trainer only (the role is {options.role})"
        )
    folder = Path(options.dir)
    if options.command == "init":
        for name, role in _SERVICE_KEYS.items():
            if (folder / f"{name}.key").exists():
                print(f"{folder / name}.key exists already, and stays")
            else:
                print(create_keys(folder, name, role))
        print(f"use: trialbus study bus=curve bus.keys.dir={folder}")
        return exit_codes.DONE
    path = create_keys(folder, options.name, options.role, options.study)
    print(f"{path}: the key of a {options.role}; hand the file to the owner over a safe channel")
    print(f"use: TRIALBUS_KEY={path.name} TRIALBUS_HUB_KEY=hub.pub, with the file hub.pub")
    return exit_codes.DONE
