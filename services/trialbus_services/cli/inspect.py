"""`trialbus events`, `status` and `forget`: inspect the log and the hub of a bus, remove events."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from trialbus.client.admin import forget_name, forget_study, hub_status
from trialbus.client.link import Link
from trialbus.client.subscriber import Subscriber, get_type_name, subscribe
from trialbus.errors import TrialbusError
from trialbus.hub.stored_log import read_stored_events
from trialbus.messages.codec import decode_with
from trialbus.messages.topics import escape_study, make_pattern
from trialbus.protocol.frames import Record
from trialbus.protocol.status import HubStatus, Info, SessionStatus
from trialbus_services.cli.options import add_endpoint, parse_natural
from trialbus_services.cli.stored_log import find_stored_log, print_source
from trialbus_services.optimizer.latency import Percentiles
from trialbus_services.optimizer.status import from_info
from trialbus_services.process import exit_codes
from trialbus_services.views.formats import strip_control_characters
from trialbus_services.views.history import collect_histories

_CONNECT_S = 5.0
_POLL_S = 0.1

# Fields of an optimizer's status that count the trials of running studies only.
_OF_RUNNING_STUDIES = ("complete", "pruned", "failed", "running")
_STATUS_LABELS = {
    "studies": "running studies",
    "n_paused": "paused studies",
    "paused": "paused",
    **{name: f"{name} trials" for name in _OF_RUNNING_STUDIES},
}

_any_map = msgspec.msgpack.Decoder(dict[str, Any])


def events(arguments: list[str]) -> int:
    """Print the events of a log, with `--follow` also new events, and return the exit code.

    Raises:
        HubUnavailableError: No hub answered.
    """
    parser = _build_parser("events", "Print the events of a bus.")
    parser.add_argument(
        "--type", action="append", default=[], help="only this type; may be repeated"
    )
    parser.add_argument("--study", help="only this study")
    parser.add_argument("--trial", type=parse_natural, help="only this trial")
    parser.add_argument(
        "--from",
        dest="start",
        default="earliest",
        type=_parse_start,
        metavar="earliest|now|OFFSET",
        help="first event (default: %(default)s)",
    )
    parser.add_argument("--follow", "-f", action="store_true", help="print new events on arrival")
    parser.add_argument(
        "--json", action="store_true", help="JSON lines; NaN and infinities are written as text"
    )
    options = parser.parse_args(arguments)
    format_record = _format_json if options.json else _format_line
    folder = None if options.follow else find_stored_log(options.endpoint)
    try:
        if folder is not None:
            _print_stored(folder, options, format_record)
            return exit_codes.DONE
        with subscribe(
            *options.type,
            study=options.study,
            trial=options.trial,
            start=options.start,
            endpoint=options.endpoint,
        ) as inbox:
            inbox.wait_ready(_CONNECT_S)
            is_empty = True
            for record in inbox.read_to(None):
                is_empty = False
                print(format_record(record), flush=options.follow)
            if is_empty:
                print("the log has no such event", file=sys.stderr, flush=True)
            while options.follow:
                _follow(inbox, format_record)
    except KeyboardInterrupt:
        return exit_codes.DONE
    return exit_codes.DONE


def _print_stored(
    folder: Path, options: argparse.Namespace, format_record: Callable[[Record], str]
) -> None:
    """Print the matching events of a log on disk."""
    types = [get_type_name(type_) for type_ in options.type] or [None]
    patterns = {make_pattern(type_, options.study, options.trial) for type_ in types}
    print_source(folder)
    is_empty = True
    if options.start != "now":
        first = 0 if options.start == "earliest" else options.start
        for record in read_stored_events(folder, frozenset(patterns), first):
            is_empty = False
            print(format_record(record))
    if is_empty:
        print("the log has no such event", file=sys.stderr, flush=True)


def status(arguments: list[str]) -> int:
    """Print the status of a hub and return the exit code.

    Of a hub that has ended, the studies in its log are printed.

    Raises:
        HubUnavailableError: No hub answered.
    """
    parser = _build_parser("status", "Print the state of a hub.")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    options = parser.parse_args(arguments)
    folder = None if options.json else find_stored_log(options.endpoint)
    if folder is not None:
        print_source(folder)
        for history in collect_histories(read_stored_events(folder)).values():
            print(f"study {strip_control_characters(history.study)}: {history.describe()}")
        return exit_codes.FAILED
    with Link(options.endpoint) as link:
        status = hub_status(link, _CONNECT_S)
        time.sleep(1.0)  # the rate is over this second
        events_per_s = hub_status(link, _CONNECT_S).end - status.end
    if options.json:
        print(json.dumps({**msgspec.to_builtins(status), "events_per_s": events_per_s}))
    else:
        _print_status(Console(), status, events_per_s)
    return exit_codes.DONE


def forget(arguments: list[str]) -> int:
    """Remove the events of a finished study, or a durable name; return the exit code."""
    parser = _build_parser(
        "forget", "Remove the events of a finished study from the log; its database stays."
    )
    parser.add_argument("study", nargs="?", help="study whose events are removed")
    parser.add_argument("--name", help="durable name to forget, which will never read again")
    parser.add_argument(
        "--force", action="store_true", help="also events that durable names have not read"
    )
    options = parser.parse_args(arguments)
    if (options.study is None) == (options.name is None):
        parser.error("give a study or --name")
    with Link(options.endpoint) as link:
        try:
            if options.name is not None:
                forget_name(link, options.name, _CONNECT_S)
                print(f"forgot the durable name {options.name!r}")
            else:
                forget_study(link, options.study, force=options.force, timeout_s=_CONNECT_S)
                _wait_until_removed(link, escape_study(options.study))
                print(f"removed the events of study {options.study!r} from the log")
        except TrialbusError as error:
            print(f"error: {error}", file=sys.stderr)
            return exit_codes.FAILED
    return exit_codes.DONE


def _wait_until_removed(link: Link, study: str) -> None:
    while study in hub_status(link, _CONNECT_S).retention.removing:
        time.sleep(_POLL_S)


def _follow(inbox: Subscriber[Any], format_record: Callable[[Record], str]) -> None:
    for record in inbox.records(1.0):
        print(format_record(record), flush=True)


def _print_status(console: Console, status: HubStatus, events_per_s: int) -> None:
    counters = "  ".join(f"{name} {count}" for name, count in sorted(status.counters.items()))
    summary = Table.grid(padding=(0, 2))
    summary.add_column(style="dim")
    for label, value in (
        ("endpoint", status.endpoint),
        ("path", status.path),
        ("pid", status.pid),
        ("end", status.end),
        ("damaged", f"{status.damaged} events and entries of the log, not delivered"),
        ("lost", f"{status.lost} events, before"),
        ("events_per_s", events_per_s),
        ("parked", status.parked),
        ("last_refused", status.last_refused),
        ("up", f"{status.up_s:.0f} s"),
        ("counters", counters),
        ("removed", f"{status.retention.removed} events of finished studies"),
    ):
        summary.add_row(label, str(value))
    for study, names in status.retention.held_back.items():
        summary.add_row("held back", f"{study}, not read yet by {', '.join(names)}")
    console.print(summary, highlight=False, markup=False)
    durable = Table("durable name", "offset", "lag", box=None, header_style="dim")
    for name, progress in status.durable.items():
        durable.add_row(name, str(progress.offset), str(progress.lag))
    sessions = Table("session", "name", "study", "trial", "silent", box=None, header_style="dim")
    for session in status.sessions:
        trial = "" if session.trial is None else str(session.trial)
        silent = f"{session.silent_s:.1f} s"
        sessions.add_row(session.kind, session.name, session.study, trial, silent)
    optimizer = Table("optimizer", "", box=None, header_style="dim")
    for session in status.sessions:
        if session.kind == "optimizer":
            for name, text in list_optimizer_rows(session.info):
                optimizer.add_row(name, text)
    for table in (durable, sessions, _build_worker_table(status.sessions), optimizer):
        if table.row_count:
            console.print()
            console.print(table, highlight=False, markup=False)


def list_optimizer_rows(info: Info) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of the information about an optimizer, without empty texts."""
    optimizer_status = from_info(info)
    if optimizer_status is None:  # of another version
        yield from ((name, str(value)) for name, value in info.items())
        return
    for name in ("storage", "host", "pid"):
        if name in info:
            yield name, str(info[name])
    for name, value in msgspec.structs.asdict(optimizer_status).items():
        if name in _OF_RUNNING_STUDIES and not optimizer_status.studies:
            continue  # not the trials of a study that has ended
        label = _STATUS_LABELS.get(name, name.replace("_", " "))
        match value:
            case dict():
                yield label, str(optimizer_status.n_refused)
            case Percentiles(p50_s, p99_s):
                yield label, f"p50 {1e3 * p50_s:.3g} ms, p99 {1e3 * p99_s:.3g} ms"
            case None | "":
                pass
            case _:
                yield label, str(value)


def _build_worker_table(sessions: list[SessionStatus]) -> Table:
    """Return a table of the workers: host, slots, resources of each slot, and waiting slots."""
    units = {"gpus": "GPUs", "cpus": "CPUs", "memory_gb": "GB"}
    workers = Table("worker", "host", "slots", "each slot", "", box=None, header_style="dim")
    for session in sessions:
        if session.kind == "worker":
            info = session.info
            slot = "  ".join(f"{info[name]} {unit}" for name, unit in units.items() if name in info)
            host, slots = str(info.get("host", "")), str(info.get("slots", ""))
            workers.add_row(session.name, host, slots, slot, str(info.get("waits", "")))
    return workers


def _decode_body(record: Record) -> dict[str, Any]:
    """Return the fields of an event; of an event that cannot be decoded, the error and bytes."""
    try:
        return dict(decode_with(_any_map, record.body))
    except msgspec.DecodeError as error:
        return {"unreadable": str(error), "bytes": bytes(record.body)}


def _format_line(record: Record) -> str:
    body = _decode_body(record)
    at = body.pop("at", 0)
    clock = time.strftime("%H:%M:%S", time.localtime(at if isinstance(at, float) else 0))
    type_ = str(body.pop("type", "?"))
    present = {key: value for key, value in body.items() if value not in (None, "", [], {})}
    fields = "  ".join(f"{key}={_to_json(value)}" for key, value in present.items())
    return f"{record.offset:>8} {clock} {type_:<20} {fields}"


def _format_json(record: Record) -> str:
    return json.dumps(
        {
            "offset": record.offset,
            "publisher": record.publisher.hex(),
            "seq": record.seq,
            "topic": record.topic,
            "event": _to_json(_decode_body(record)),
        },
        allow_nan=False,
    )


def _to_json(value: Any) -> Any:
    """Return a value of an event for JSON: NaN and infinities as text, bytes as hex digits."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case bytes():
            return value.hex()
        case dict():
            return {str(key): _to_json(inner) for key, inner in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list():
            return [_to_json(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def _parse_start(text: str) -> str | int:
    if text in ("earliest", "now"):
        return text
    if text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither earliest nor now nor an offset")


def _build_parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"trialbus {name}", description=description)
    add_endpoint(parser)
    return parser
