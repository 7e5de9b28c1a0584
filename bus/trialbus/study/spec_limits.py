"""Limits of names, numbers and sizes in a study: what bus, databases and processes can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from trialbus.study.search_space import CategoricalParam, Param
from trialbus.study.values import check_text, check_value

#: Seeds that NumPy, PyTorch and Optuna accept.
MAX_SEED = 2**32 - 1

# Databases keep numbers of trials and steps as integers of 32 bits.
_MAX_COUNT = 2**31 - 1

# Names stand in file names, log lines and terminals.
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# Names that a program takes for one of its options, and those of Hydra's own settings.
_OPTION = re.compile(r"^[\s+]*[-~]|=")
_HYDRA = re.compile(r"(^|@)[\s+]*hydra\s*([./@:]|$)")

# Characters of a study's name in topics: a pattern, of 256 at most, holds a type and a trial too.
_MAX_STUDY_NAME = 200

# Characters of a param's name and of a metric's name; Optuna's databases keep 512.
_MAX_NAME = 500

# A worker hands the trial to its process in an environment variable, which Linux limits to 128 KiB.
_MAX_CONFIG_BYTES = 64 * 1024
_MAX_PARAMS_BYTES = 56 * 1024

# A message of the bus may have 1 MiB; the submission holds the whole config beside the study.
_MAX_SPEC_BYTES = 640 * 1024


def check_study_name(name: str) -> None:
    """Check that the bus, every database and every file system can hold the name of a study.

    Raises:
        ValueError: They cannot; the message begins with `name`.
    """
    _check_name("name", name, "the name of the study")
    length = len(name) + 2 * sum(map(name.count, "/*%"))  # as escaped in topics
    if length > _MAX_STUDY_NAME:
        raise ValueError(
            f"name {name[:40]!r}... has {length} characters (expected at most "
            f"{_MAX_STUDY_NAME}; each '/', '*' and '%' counts as three)"
        )


def check_param_name(key: str, name: str) -> None:
    """Check that bus and databases can hold the name of a param.

    Args:
        key: Key of the study that has the params, for the error.
        name: Name of the param.

    Raises:
        ValueError: They cannot; the message begins with `key`.
    """
    try:
        _check_name("name", name, "the name of a param")
        check_override("name", name)
    except ValueError as error:
        raise ValueError(f"{key} has a param whose {error}") from None
    if len(name) > _MAX_NAME:
        raise ValueError(
            f"{key} has a param whose name {name[:40]!r}... has {len(name)} characters (expected "
            f"at most {_MAX_NAME})"
        )


def check_override(key: str, name: str) -> None:
    """Check that the name of a value, as an argument of a training, sets that value only.

    Names become overrides of Hydra and flags. A name that begins with a dash would be an option of
    the program, and `hydra` has classes that Hydra imports before the training starts.

    Raises:
        ValueError: The name is an option, a deletion, or about Hydra itself; the message begins
            with `key`.
    """
    if _OPTION.search(name):
        raise ValueError(
            f"{key} {name!r} begins with '-' or '~' or contains '=' (expected the name of a value)"
        )
    if _HYDRA.search(name):
        raise ValueError(
            f"{key} {name!r} is a setting of Hydra itself (expected the name of a value of the "
            "training; settings of Hydra belong in trainer.arguments)"
        )


def check_metric_name(key: str, name: str) -> None:
    """Check that bus and databases can hold the name of a metric.

    Raises:
        ValueError: They cannot; the message begins with `key`.
    """
    check_text(key, name)
    if len(name) > _MAX_NAME:
        raise ValueError(
            f"{key} {name[:40]!r}... has {len(name)} characters (expected at most {_MAX_NAME})"
        )


def check_count(key: str, count: int | None, least: int, expected: str) -> None:
    """Check a count of trials or steps.

    Raises:
        ValueError: The count is below `least` or beyond 32 bits; the message begins with `key`.
    """
    if count is not None and count < least:
        raise ValueError(f"{key} {count} is below {least} (expected {expected})")
    if count is not None and count > _MAX_COUNT:
        raise ValueError(f"{key} {count} is above 2**31 - 1 (expected {expected})")


def check_seed(key: str, seed: Any) -> None:
    """Check a seed; None stands for no seed.

    Raises:
        ValueError: The seed is no integer from 0 to 2**32 - 1; the message begins with `key`.
    """
    if seed is not None and (type(seed) is not int or not 0 <= seed <= MAX_SEED):
        raise ValueError(f"{key} {seed!r} is not a seed (expected an integer from 0 to 2**32 - 1)")


def check_arguments(key: str, args: Mapping[str, Any]) -> None:
    """Check that the arguments of a sampler or a pruner can travel.

    Raises:
        ValueError: A value cannot, or `seed` is not a seed; the message begins with `key`.
    """
    for name, value in args.items():
        check_value(f"{key}.{name}", value)
    check_seed(f"{key}.seed", args.get("seed"))


def check_config_size(config: Mapping[str, Any]) -> None:
    """Check that the configuration of all trials fits into the environment of a process.

    Raises:
        ValueError: The configuration does not fit.
    """
    size = len(msgspec.json.encode(config))
    if size > _MAX_CONFIG_BYTES:
        raise ValueError(
            f"base_config and trial_overrides are {size} bytes of JSON (expected at most "
            f"{_MAX_CONFIG_BYTES}; let the training read a file of that size itself)"
        )


def check_params_size(params: Mapping[str, Param]) -> None:
    """Check that the params of any trial fit into the environment of a process.

    Args:
        params: Each param by its key in the study.

    Raises:
        ValueError: The longest values together do not fit; the message begins with the key of the
            param with the longest value.
    """
    sizes = {name: _measure(name, _list_values(param)) for name, param in params.items()}
    total = sum(sizes.values())
    if total > _MAX_PARAMS_BYTES:
        longest = max(sizes, key=lambda name: sizes[name])
        raise ValueError(
            f"{longest} has up to {sizes[longest]} bytes of JSON, and the params of a trial up "
            f"to {total} (expected at most {_MAX_PARAMS_BYTES}; let the training read "
            "larger values from a file)"
        )


def check_define_by_run(spec: Any) -> None:
    """Check that a study whose training asks for its params declares none.

    Raises:
        ValueError: The study declares what the training decides; the message begins with the key.
    """
    if not spec.define_by_run:
        return
    for key in ("params", "fixed"):
        if names := getattr(spec, key):
            raise ValueError(
                f"{key} has {', '.join(names)}, and with define_by_run=true the training asks for "
                "its params itself (expected one of the two)"
            )
    if spec.duplicates not in (None, "allow"):
        raise ValueError(
            f"duplicates {spec.duplicates!r} needs params that are known before a trial begins "
            "(expected allow, or null, with define_by_run=true)"
        )


def check_spec_size(spec: msgspec.Struct) -> None:
    """Check that a study fits into a message of the bus.

    Raises:
        ValueError: The study does not fit; the message begins with the key of the largest part.
    """
    size = len(msgspec.msgpack.encode(spec))
    if size > _MAX_SPEC_BYTES:
        sizes = {
            name: len(msgspec.msgpack.encode(getattr(spec, name)))
            for name in spec.__struct_fields__
        }
        largest = max(sizes, key=lambda name: sizes[name])
        raise ValueError(
            f"{largest} has {sizes[largest]} bytes, and the whole study {size} (expected at most "
            f"{_MAX_SPEC_BYTES}, which a message of the bus can hold)"
        )


def _check_name(key: str, name: str, expected: str) -> None:
    if not name.strip():
        raise ValueError(f"{key} is empty (expected {expected})")
    if _CONTROL_CHARACTER.search(name):
        raise ValueError(f"{key} {name!r} has a control character (expected printable characters)")
    check_text(key, name)


def _list_values(param: Param) -> Iterable[Any]:
    if not isinstance(param, CategoricalParam):
        return ()
    return param.choices.values() if isinstance(param.choices, dict) else param.choices


def _measure(name: str, values: Iterable[Any]) -> int:
    number_bytes = 32  # of the longest float, with quotes and commas
    longest = max((len(msgspec.json.encode(value)) for value in values), default=0)
    return len(name.encode()) + max(longest, number_bytes)
