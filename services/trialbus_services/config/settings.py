"""Settings: the sections of the config as structs, every key with type, default and meaning.

The schema for Hydra and docs/reference/config.md are generated from these structs.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from trialbus.protocol import limits
from trialbus.protocol.security import HUB_KEY_VARIABLE, KEY_VARIABLE
from trialbus_services.config.metric_source import MetricSource
from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.process import gpus
from trialbus_services.process.listening import check_port

_MIN_TOKEN_LENGTH = 16  # characters; too many to guess

#: How params reach a program: overrides of Hydra, `--name=value`, environment variables, or a
#: JSON file.
ParamsAs: TypeAlias = Literal["overrides", "flags", "environment", "file"]

#: Options without a value, by param: for true, or for true and for false.
Switches: TypeAlias = Mapping[str, str | list[str]]

#: Suffix of a file, in place of `module:function`, that holds a function pickled by value.
PICKLE_SUFFIX = ".pkl"


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """CURVE keys, in the folder that `trialbus keys init` makes."""

    dir: str
    """Folder of the keys: `<name>.key` (secret), `<name>.pub`, and `allowed.json`, the list of the
    keys that the hub admits."""
    hub: str = "hub"
    """Name of the hub's own key."""
    service: str = "service"
    """Name of the key of the optimizer, the reporter and `trialbus study`."""
    worker: str = "worker"
    """Name of the key of the workers. A worker uses the key `service` where the folder lacks it."""
    trainer: str = "trainer"
    """Name of the key that a worker hands to the trainings it starts; where the folder lacks it,
    the trainings use the key of the worker."""

    def path(self, name: str) -> str:
        """Return the absolute path of a secret key's file."""
        return str((Path(self.dir) / f"{name}.key").absolute())

    def get_name(self, user: str) -> str:
        """Return the name of the key of a service, or of `trainer` for trainings.

        A folder may lack the key of a lesser role: then the next key that is in the folder counts.
        """
        names = {
            "worker": (self.worker, self.service),
            "trainer": (self.trainer, self.worker),
        }.get(user, (self.service,))
        return next((name for name in names if Path(self.path(name)).exists()), names[0])

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment variables that give a client a key, and the hub's public key."""
        hub = (Path(self.dir) / f"{self.hub}.pub").absolute()
        return {KEY_VARIABLE: self.path(name), HUB_KEY_VARIABLE: str(hub)}


class BusSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Address of the hub, folder of the event log, and keys of the bus."""

    endpoint: str
    """Address of the hub: `ipc://<path>` for one machine or `tcp://<host>:<port>`."""
    dir: str
    """Folder of the event log, of the logs of services and trials, and of the run dirs."""
    sync: Literal["full", "normal"] = "full"
    """What acknowledged events survive: `full` a power failure, `normal` the crash of a process."""
    insecure: bool = False
    """Whether the endpoint may be one that other machines reach without keys."""
    connect_s: float = 10.0
    """Seconds that a service waits for the hub when it starts."""
    keep_finished_s: float | None = None
    """Seconds that the log keeps the events of a study after its end; null keeps them for ever."""
    keys: KeySettings | None = None
    """Keys of the bus; null for a bus without encryption, on one machine."""

    def __post_init__(self) -> None:
        for name in ("connect_s", "keep_finished_s"):
            seconds = getattr(self, name)
            if seconds is not None and seconds < 0:
                raise ValueError(f"{name} {seconds:g} is below 0 (expected seconds)")

    @property
    def logs(self) -> Path:
        """Folder for the output of services and trials."""
        return Path(self.dir) / "logs"

    @property
    def runs(self) -> Path:
        """Folder of the run directories of trials."""
        return Path(self.dir) / "runs"


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Optuna storage in which studies are recorded."""

    url: str
    """URL of the storage: `sqlite:///<file>`, `postgresql+psycopg://...`, `mysql+pymysql://...`,
    `journal://<file>`, `redis://<host>:<port>`, `grpc://<host>:<port>` for a server of Optuna's
    gRPC storage, or `memory://`, which no other process reads; a restarted optimizer writes the
    running studies into it again, from the log."""


class OptimizerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Suggestions of params, and recording of trials, by the optimizer."""

    ahead: int = 1
    """Number of suggestions that each study keeps ready; 0 suggests when a slot asks, which gives
    the sequence of plain Optuna for a seed."""
    record_every_s: float = 0.25
    """Seconds between two batches that are written to the storage."""
    max_points: int | None = None
    """Most points of one trial's curve in the storage, 2 or more, evenly spaced; null stores all.
    The log keeps all."""
    allowed_modules: list[str] = []
    """Packages, modules or classes of your own that the optimizer may import for the sampler or
    pruner of a study that anybody submits, for example `[my_package]`. Optuna's, and those of
    installed plugins, are always allowed."""

    def __post_init__(self) -> None:
        if self.ahead < 0:
            raise ValueError(f"ahead {self.ahead} is below 0 (expected a number of suggestions)")
        if self.record_every_s <= 0:
            raise ValueError(f"record_every_s {self.record_every_s:g} is not above zero")
        if self.max_points is not None and self.max_points < 2:
            raise ValueError(
                f"max_points {self.max_points} is below 2 (expected 2 or more, or null)"
            )


class TrainerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Program or function that a worker runs for each trial."""

    command: list[str] | str = []
    """Program and its first arguments, as a list or as a line of a shell: `python train.py`; for
    `function` empty. In braces, names of params and `study`, `trial`, `attempt`, `seed`, `budget`,
    `run_dir` and `params_file` are filled in; `{args}` is the place of all other params."""
    arguments: list[str] = []
    """Further arguments of the program, with the same placeholders."""
    params_as: ParamsAs = "environment"
    """How params reach the program: `environment` (`TRIALBUS_PARAM_LR=0.1`), `flags` (`--lr=0.1`),
    `overrides` of Hydra (`lr=0.1`), or `file` (JSON, whose path is `{params_file}`, by default the
    last argument)."""
    switches: dict[str, str | list[str]] = {}
    """Options without a value, for params that are true or false and `params_as=flags`: the option
    for true, or a list of the options for true and for false: `{amp: --amp, cache: [--cache,
    --no-cache]}`."""
    metrics: MetricSource | list[MetricSource] | None = None
    """Where a program that knows nothing of trialbus leaves its metrics, one source or a list; null
    for a program that reports them itself. A pruned program is ended by SIGTERM."""
    function: str | None = None
    """Function that runs a trial, `module:function`, in place of `command`. Its module is imported
    once, and a process is forked for each trial. A file `.pkl` of `cloudpickle` may hold the
    function, too."""
    env: dict[str, str] = {}
    """Environment variables that are added to the worker's."""
    cwd: str | None = None
    """Working directory of trainings, also searched for the module of `function`; null for the
    worker's. With `{run_dir}` each trial has a folder of its own; files that `command` names are
    found all the same."""

    def __post_init__(self) -> None:
        try:
            argv = self.argv
        except ValueError as error:
            raise ValueError(f"command {self.command!r} is no line of a shell: {error}") from None
        if self.function is not None and self.metric_sources:
            raise ValueError("metrics are for a command (a function reports its metrics itself)")
        for name, forms in self.switches.items():
            if not isinstance(forms, str) and len(forms) != 2:
                raise ValueError(
                    f"switches.{name} {forms!r} has not two options (expected one for true and one "
                    "for false, or a text for true)"
                )
        if self.switches and self.params_as != "flags":
            raise ValueError(f"switches need params_as=flags (params_as is {self.params_as})")
        if argv and not argv[0]:
            raise ValueError("command begins with an empty text (expected a program)")

    @property
    def argv(self) -> list[str]:
        """Program and all arguments, with placeholders."""
        command = shlex.split(self.command) if isinstance(self.command, str) else self.command
        return [*command, *self.arguments]

    @property
    def metric_sources(self) -> list[MetricSource]:
        """Sources of the metrics, as a list."""
        return [self.metrics] if isinstance(self.metrics, MetricSource) else self.metrics or []


#: Key of the modules from which a worker's trainings may import callbacks.
WORKER_MODULES_KEY = "worker.allowed_modules"


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Name, slots, limits and GPUs of a worker."""

    name: str | None = None
    """Name of the worker in views and logs; null for `<host>-<pid>`."""
    slots: int = 2
    """Number of trials that run at the same time."""
    grace_s: float = 5.0
    """Seconds between SIGTERM and SIGKILL when a training is ended."""
    exit_grace_s: float | None = 30.0
    """Seconds that the process of a training has to exit after the end of its trial, before the
    worker ends the process; null for no limit."""
    memory_gb: float | None = None
    """Memory in 10^9 bytes that the processes of one training may use together, measured once a
    second; null for no limit. A training that uses more is ended, as `out_of_memory`."""
    ttl_s: float = 10.0
    """Seconds of silence after which the worker and its trials count as lost."""
    until: Literal["finished"] | None = None
    """When the worker ends by itself: `finished` for the end of its study, also if the study has
    ended before; null waits for the study to be submitted again."""
    max_trials: int | None = None
    """Number of trials that the worker runs before it ends; null for no limit."""
    idle_s: float | None = None
    """Seconds without a trial after which the worker ends; null for no limit."""
    gpus: int | list[int | str] | Literal["auto"] | None = None
    """GPUs that are divided among the slots by `CUDA_VISIBLE_DEVICES`: a number, a list of ids,
    `auto` for all of this machine, or null to leave the variable alone."""
    gpus_per_trial: float = 1.0
    """GPUs of one trial: a whole number, or a share such as 0.5 for two trials on one GPU."""
    allowed_modules: list[str] = []
    """Packages, modules or classes of your own from which trainings may import the callbacks that
    a study names in its config, for example `[my_package]`; `trialbus study` allows those of its
    own study."""

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"slots {self.slots} is below 1 (expected a number of trials)")
        if self.grace_s < 0:
            raise ValueError(f"grace_s {self.grace_s:g} is below 0 (expected seconds)")
        for name in ("exit_grace_s", "memory_gb"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise ValueError(f"{name} {limit:g} is not above zero (expected a limit, or null)")
        if self.max_trials is not None and self.max_trials < 1:
            raise ValueError(
                f"max_trials {self.max_trials} is below 1 (expected a number, or null)"
            )
        if self.idle_s is not None and not self.idle_s > 0:
            raise ValueError(
                f"idle_s {self.idle_s:g} is not above zero (expected seconds, or null)"
            )
        if self.ttl_s <= 0:
            raise ValueError(f"ttl_s {self.ttl_s:g} is not above zero (expected seconds)")
        if self.ttl_s * 1000 > limits.MAX_TTL_MS:
            raise ValueError(f"ttl_s {self.ttl_s:g} is above a day (expected seconds)")
        gpus.check_settings(self.gpus, self.gpus_per_trial)


class LauncherSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Services that `trialbus study` starts."""

    worker: bool = True
    """Whether `trialbus study` starts a worker, unless one serves the study already; false leaves
    the trials to workers and trainings that are started elsewhere."""


class ReporterSettings(ReportSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Folder and contents of the reports that the reporter writes."""

    dir: str
    """Folder in which each study's report has a folder, named after the study."""


class MonitorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Address of the live page of `trialbus monitor`, and the token that acting needs."""

    host: str = "127.0.0.1"
    """Address to serve on. Beyond loopback reading the page needs the token, too."""
    port: int = 8053
    """Port to serve on; 0 lets the system choose."""
    token: str | None = None
    """Token of the page, of 16 characters or more, which then nobody reads without the token; null
    makes a new token at each start, and prints it in the URL of the page."""

    def __post_init__(self) -> None:
        if not self.host:
            raise ValueError("host is empty (expected an address, for example 127.0.0.1)")
        check_port(self.port)
        if self.token is not None and len(self.token) < _MIN_TOKEN_LENGTH:
            raise ValueError(
                f"token is too short (expected {_MIN_TOKEN_LENGTH} characters or more)"
            )


class DashboardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Address at which `trialbus dashboard` serves Optuna's dashboard."""

    host: str = "127.0.0.1"
    """Address to serve on. The dashboard knows no passwords: leave it on loopback."""
    port: int = 8052
    """Port to serve on."""

    def __post_init__(self) -> None:
        if not self.host:
            raise ValueError("host is empty (expected an address, for example 127.0.0.1)")
        check_port(self.port)


#: Type of each section, in the order of the reference.
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "bus": BusSettings,
    "storage": StorageSettings,
    "optimizer": OptimizerSettings,
    "trainer": TrainerSettings,
    "worker": WorkerSettings,
    "launcher": LauncherSettings,
    "report": ReporterSettings,
    "monitor": MonitorSettings,
    "dashboard": DashboardSettings,
}
