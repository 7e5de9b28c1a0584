"""Print where each report is, also of what ended while this was not running: ended with Ctrl-C."""

import contextlib

import trialbus

with contextlib.suppress(KeyboardInterrupt):
    # Under a durable name the hub keeps how far this got; what was printed is committed.
    for event in trialbus.subscribe(trialbus.ReportReady, start="earliest", name="listen-reports"):
        print(event.study, event.paths[0] if event.paths else f"no report: {event.error}")
