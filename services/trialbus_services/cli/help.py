"""Help of the commands with a config: what each does, its most used settings, and where all are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class _Help:
    purpose: str
    settings: dict[str, str]
    examples: list[str]


_STUDY = {
    "study.n_trials=50": "number of trials",
    "sampler=random pruner=none": "how params are chosen, and which trials end early",
    "worker.slots=4": "trials at the same time",
}
_HELP = {
    "study": _Help(
        "Run a study: use the services that are up, start the others, and show the trials.",
        _STUDY,
        [
            "trialbus study conf/train.yaml",
            "trialbus study conf/train.yaml study.n_trials=8 sampler=random",
            "trialbus study conf/train.yaml --dry-run    check all, show the first trial, and stop",
        ],
    ),
    "hub": _Help(
        "Serve the bus and keep the event log.",
        {
            "bus.endpoint=tcp://127.0.0.1:5760": "address",
            "bus.dir=.trialbus": "folder of the log",
            "bus=curve": "keys, for a bus that other machines reach",
        },
        ["trialbus hub", "trialbus hub bus.endpoint=tcp://127.0.0.1:5760"],
    ),
    "optimizer": _Help(
        "Hand out trials, record evaluations and prune, with Optuna, for every study of a bus.",
        {
            "storage.url=sqlite:///optuna_studies.db": "database of the studies",
            "optimizer.ahead=1": "suggestions that are kept ready",
            "bus.endpoint=tcp://127.0.0.1:5760": "address of the hub",
        },
        ["trialbus optimizer", "trialbus optimizer storage=postgresql"],
    ),
    "worker": _Help(
        "Run the trials of a study, each in a process of its own.",
        {
            "worker.slots=4": "trials at the same time",
            "trainer.command=[python,train.py]": "program that trains",
            "worker.until=finished": "end with the study",
        },
        ["trialbus worker conf/train.yaml worker.slots=4"],
    ),
    "reporter": _Help(
        "Write a report whenever a study finishes, and send notifications.",
        {
            "report.dir=reports": "folder of the reports",
            "notify=slack": "who is told",
            "storage.url=sqlite:///optuna_studies.db": "database of the studies",
        },
        ["trialbus reporter", "trialbus report digits    writes the report of a study now"],
    ),
    "monitor": _Help(
        "Serve a live page about the studies of a bus.",
        {
            "monitor.port=8053": "port of the page",
            "monitor.host=127.0.0.1": "address of the page",
            "bus.endpoint=tcp://127.0.0.1:5760": "address of the hub",
        },
        ["trialbus monitor", "trialbus watch digits    shows a study in a terminal"],
    ),
    "dashboard": _Help(
        "Serve Optuna's own dashboard on the storage.",
        {
            "dashboard.port=8052": "port of the page",
            "dashboard.host=127.0.0.1": "address of the page",
            "storage.url=sqlite:///optuna_studies.db": "database of the studies",
        },
        ["trialbus dashboard"],
    ),
}


def format_help(command: str) -> str:
    """Return the help of a command with a config."""
    help_ = _HELP[command]
    width = max(map(len, help_.settings))
    return "\n".join(
        [
            f"usage: trialbus {command} [STUDY.yaml] [KEY=VALUE ...] [--config-dir FOLDER]",
            "",
            help_.purpose,
            "",
            "most used:",
            *(f"  {setting:<{width}}  {text}" for setting, text in help_.settings.items()),
            "",
            "examples:",
            *(f"  {example}" for example in help_.examples),
            "",
            "all settings:",
            f"  trialbus {command} --help -v           groups, files and values",
            f"  trialbus {command} --cfg job           the config that a command line composes",
            f"  trialbus {command} --info defaults     the files that it is composed of",
            "  docs/reference/config.md         every key with type, default and meaning",
        ]
    )
