"""Print the path of each report, also of studies that ended before the start; end with Ctrl-C."""

import contextlib

import trialbus

# Under a durable name the hub keeps the position in the log, at the latest at the block's end.
reports = trialbus.subscribe(trialbus.ReportReady, start="earliest", name="listen-reports")
with contextlib.suppress(KeyboardInterrupt), reports:
    for event in reports:
        print(event.study, event.paths[0] if event.paths else f"no report: {event.error}")
