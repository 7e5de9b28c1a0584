"""The page docs/reference/config.md: every section and key of the Hydra config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from omegaconf import DictConfig, OmegaConf

from trialbus.callbacks import CallbackConfig
from trialbus.callbacks.optuna import OptunaCallbackConfig
from trialbus.study.search_space import CategoricalParam, FloatParam, IntParam
from trialbus.study.spec import NOT_WRITTEN, Evaluation, Objective, PruneBy, StudySpec
from trialbus_services.config import settings
from trialbus_services.config.composing import compose_config
from trialbus_services.notify import Desktop, Slack, Webhook
from trialbus_services.reference.fields import REQUIRED, Field, list_fields
from trialbus_services.reference.markdown import NOTICE, format_fields, read_summary

_INTRODUCTION = """\
# Configuration keys

Every key of the configuration of `trialbus study` and of the services. The default is what a
command without overrides has, and `null` stands for nothing. [Configuration](../configuration.md)
tells how files are chosen and values changed; `trialbus study --cfg job` prints what a command line
comes to.
"""

_COMPONENTS = """\
## sampler, pruner

Each holds a `type` (a class of Optuna, or `package.module.Class`) and the arguments of that class.
There is a file for every class of Optuna, with its arguments and their meaning:
`trialbus study --help -v` lists the files.
"""

_PARAMS = """\
## study.params

A mapping of a param's name to a mapping with a `type`: `float`, `int` or `categorical`.
[Studies](../studies.md) has the short forms, such as `interval(0, 1)`."""

_NOTIFY = """\
## notify

A mapping of a name to a notifier: `_target_` and the arguments of that class.
`notify=[slack,desktop]` chooses files; [notifications](../notifications.md) has notifiers of your
own."""

#: Keys outside of all sections.
_TOP_LEVEL = (
    Field(
        "log_level",
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        "INFO",
        "Least level of the messages in the logs.",
    ),
    Field(
        "from_phase",
        str | None,
        None,
        "Phase whose best params this study keeps as fixed values; null for none.",
    ),
    Field(
        "phases",
        list[str] | None,
        None,
        "Phases that run one after the other in place of one study; null for one study.",
    ),
)

#: Sections whose files differ too much for a default file.
_WITHOUT_DEFAULT_FILE = frozenset({"trainer"})
_LINKS = {
    "KeySettings": "#buskeys",
    "Objective": "#studyobjective",
    "PruneBy": "#studyprune_by",
    "Evaluation": "#studyevaluation",
    "FloatParam": "#float",
    "IntParam": "#int",
    "CategoricalParam": "#categorical",
    "OptunaCallbackConfig": "#callbacksoptuna",
}


def render() -> str:
    """Return the page as Markdown."""
    with compose_config([]) as command:
        defaults = command.config
        sections = [
            NOTICE,
            _INTRODUCTION,
            "## Top level",
            format_fields(_TOP_LEVEL, name="key"),
            _render_section("bus", defaults),
            _render("bus.keys", settings.KeySettings),
            *(_render_section(name, defaults) for name in settings.SECTIONS if name != "bus"),
            _COMPONENTS,
            _render_study(),
            _render("study.objective", Objective),
            _render("study.prune_by", PruneBy),
            _render("study.evaluation", Evaluation),
            _PARAMS,
            *(
                _render(str(param.__struct_config__.tag), param, prefix="", level=3)
                for param in (FloatParam, IntParam, CategoricalParam)
            ),
            _render("callbacks", CallbackConfig),
            _render("callbacks.optuna", OptunaCallbackConfig),
            _NOTIFY,
            *(
                _render(notifier.__name__.lower(), notifier, prefix="", level=3)
                for notifier in (Webhook, Slack, Desktop)
            ),
        ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _render_section(name: str, config: DictConfig) -> str:
    defaults: dict[str, Any] = {}
    if name not in _WITHOUT_DEFAULT_FILE:
        defaults = cast(
            dict[str, Any], OmegaConf.to_container(config[name], throw_on_missing=False)
        )
    return _render(name, settings.SECTIONS[name], defaults=defaults)


def _render_study() -> str:
    """Return the section of a study, with the key `objective` for the field `objectives`."""
    fields = [f for f in list_fields(StudySpec) if f.name not in NOT_WRITTEN]
    objective = Field(
        "objective",
        Objective | list[Objective],
        REQUIRED,
        "How the objective value is made from a trial's evaluations; a list for several.",
    )
    position = [field.name for field in fields].index("params") + 1
    fields.insert(position, objective)
    table = format_fields(fields, prefix="study.", links=_LINKS, name="key")
    return f"## study\n\n{read_summary(StudySpec)}\n\n{table}"


def _render(
    name: str,
    class_: type[Any],
    *,
    prefix: str | None = None,
    level: int = 2,
    defaults: Mapping[str, Any] | None = None,
) -> str:
    """Return the section of the page that describes the keys of a class."""
    fields = list_fields(class_)
    table = format_fields(
        fields,
        prefix=f"{name}." if prefix is None else prefix,
        defaults=defaults,
        links=_LINKS,
        name="key",
    )
    return "\n\n".join(
        [f"{'#' * level} {name}", read_summary(class_), *([table] if fields else [])]
    )
