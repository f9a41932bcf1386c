"""From a YAML file to a checked `Config`, with every problem in one report."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ffn.config.sections import Config
from ffn.errors import ConfigError

MENDING_ROUNDS = 4


def default_config_file(shipped: str) -> str:
    """`config.yaml` of the working directory where there is one, else the one that comes with the workflow."""
    return "config.yaml" if Path("config.yaml").is_file() else shipped


def load_config(path: Path) -> Config:
    """Read and check a configuration file. Raises ConfigError listing all problems at once."""
    return parse_config(read_values(path), str(path))


def read_values(path: Path) -> dict[str, Any]:
    """Read a configuration file without checking its keys. Raises ConfigError if it is no YAML mapping."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no configuration file {path}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text: {error}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold keys and values such as 'run: demo'; it holds {type(loaded).__name__}.")
    return loaded


def parse_config(values: Mapping[str, Any], name: str = "configuration") -> Config:
    """Check already loaded values. Raises ConfigError listing all problems at once."""
    found = examine(values)
    if found.config is None or found.problems:
        raise ConfigError(report_of(found.problems, name))
    return found.config


def report_of(problems: Sequence[str], name: str) -> str:
    """All problems of what is called `name` as one text."""
    count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
    return f"{name} has {count}:\n" + "\n".join(f"  - {problem}" for problem in problems)


@dataclass(frozen=True)
class Examination:
    """What was found in values that may be wrong.

    Attributes:
        config: the configuration; with problems a mended one, or None where that was not possible.
        problems: a sentence each.
        mended: last parts of the names of keys that `config` has guessed.
    """

    config: Config | None
    problems: list[str]
    mended: frozenset[str]

    def also(self, problems: Iterable[str]) -> list[str]:
        """All problems: these and `problems` of the mended configuration, without those that come from a guess."""
        return self.problems + [problem for problem in problems if not _mentions(problem, self.mended)]


def examine(values: Mapping[str, Any]) -> Examination:
    """Find every problem, not only those of the first look.

    A misspelt key or a wrong value would hide the problems between keys, which only show once each key is right. So
    such keys are set right (the nearest name) or to their default, and the rest is looked at again.
    """
    remaining = deepcopy(dict(values))
    problems: list[str] = []
    mended: set[str] = set()
    for _ in range(MENDING_ROUNDS):
        try:
            return Examination(Config.model_validate(remaining), problems, frozenset(mended))
        except ValidationError as error:
            issues = [dict(issue) for issue in error.errors()]
        lines = [line for issue in issues for line in _explain(issue)]
        problems += [line for line in lines if line not in problems and not _mentions(line, mended)]
        names = {name for issue in issues for name in _mend(remaining, issue)}
        if not names:
            break
        mended |= names
    return Examination(None, problems, frozenset(mended))


def _mentions(problem: str, keys: Iterable[str]) -> bool:
    return any(re.search(rf"\b{re.escape(key)}\b", problem) for key in keys)


def _mend(values: dict[str, Any], issue: dict[str, Any]) -> set[str]:
    """Make the key of an issue harmless in `values`; the names whose values are now guessed, none if it stays."""
    location = list(issue["loc"])
    if issue["type"] == "missing" or not location:
        return set()
    depth, holder = _innermost_section(values, location)
    key = str(location[depth])
    if not isinstance(holder, dict) or key not in holder:
        return set()
    value = holder.pop(key)
    if issue["type"] != "extra_forbidden":
        return {key, *(value if isinstance(value, dict) else ())}
    nearest = _nearest([str(part) for part in location])
    if nearest is not None and nearest not in holder:
        holder[nearest] = value
    return {key}


def _innermost_section(values: Any, location: list[Any]) -> tuple[int, Any]:
    """How many parts of `location` lead into sections, and what is there; the next part is the key with a value."""
    section: type[BaseModel] | None = Config
    depth, here = 0, values
    while depth < len(location) - 1:
        part = location[depth]
        if isinstance(here, dict):
            section, inside = (None if section is None else _section_of(section, str(part))), here.get(part)
        else:
            inside = here[part]
        if section is None or not isinstance(inside, dict | list):
            break
        here, depth = inside, depth + 1
    if isinstance(here, list):
        # An element cannot be left out for its default: the key of the list is.
        return _innermost_section(values, location[:depth])
    return depth, here


def _explain(issue: dict[str, Any]) -> list[str]:
    location = [str(part) for part in issue["loc"]]
    key = ".".join(location)
    if issue["type"] == "extra_forbidden":
        return [_unknown_key(location)]
    if issue["type"] == "missing":
        return [f"{key} is missing."]
    if issue["type"] == "value_error":
        lines = str(issue["ctx"]["error"]).splitlines()
        return [f"{key}: {line}" if key else line for line in lines]
    return [f"{key} is {issue['input']!r}: {issue['msg'][0].lower()}{issue['msg'][1:]}."]


def _unknown_key(location: list[str]) -> str:
    nearest = _nearest(location)
    known = _known_keys(location)
    advice = f"did you mean '{nearest}'?" if nearest else f"known here: {', '.join(known) or 'nothing'}."
    return f"{'.'.join(location)} is not a known key; {advice}"


def _nearest(location: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(location[-1], _known_keys(location), n=1, cutoff=0.5)), None)


def _known_keys(location: list[str]) -> list[str]:
    """Keys of the section that holds the last part of `location`."""
    section: type[BaseModel] | None = Config
    for part in location[:-1]:
        if not part.isdigit():
            section = None if section is None else _section_of(section, part)
    return [] if section is None else list(section.model_fields)


def _section_of(section: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = section.model_fields.get(name)
    if field is None:
        return None
    candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
