"""Print where each report is, also of what ended while this was not running: ended with Ctrl-C."""

import contextlib

import trialbus

# Under a durable name the hub keeps how far this got, at the latest when the block is left.
reports = trialbus.subscribe(trialbus.ReportReady, start="earliest", name="listen-reports")
with contextlib.suppress(KeyboardInterrupt), reports:
    for event in reports:
        print(event.study, event.paths[0] if event.paths else f"no report: {event.error}")
