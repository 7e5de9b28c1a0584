"""`trialbus keys`: CURVE keys for a bus that other machines can reach."""

from __future__ import annotations

import argparse
from pathlib import Path

from trialbus.protocol.security import new_keys
from trialbus_services.process import exit_codes


def keys(arguments: list[str]) -> int:
    """Make CURVE keys, print the commands that use the keys, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="trialbus keys", description="Make keys for a bus that other machines can reach."
    )
    parser.add_argument(
        "--dir", default=".trialbus/keys", help="folder of keys (default: %(default)s)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init", help="make the keys that `bus=curve` needs: hub, service, trainer")
    new = commands.add_parser("new", help="make one key and allow it")
    new.add_argument("name")
    new.add_argument("--role", choices=("service", "trainer", "listener"), default="listener")
    new.add_argument("--study", help="for a trainer: this study only")
    options = parser.parse_args(arguments)
    if options.command == "new" and options.study is not None and options.role != "trainer":
        parser.error(f"--study is for --role trainer only (the role is {options.role})")
    folder = Path(options.dir)
    if options.command == "init":
        print(new_keys(folder, "hub", "service"))
        print(new_keys(folder, "service", "service"))
        print(new_keys(folder, "trainer", "trainer"))
        print(f"use: trialbus study bus=curve bus.keys.dir={folder}")
        return exit_codes.DONE
    path = new_keys(folder, options.name, options.role, options.study)
    print(f"{path}: the key of a {options.role}; hand the file to the owner over a safe channel")
    print(f"use: TRIALBUS_KEY={path.name} TRIALBUS_HUB_KEY=hub.pub, with the file hub.pub")
    return exit_codes.DONE
