"""From a YAML file to a checked `Config`, with every problem in one report."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ffn.config.sections import Config
from ffn.errors import ConfigError


def load_config(path: Path) -> Config:
    """Read and check a configuration file. Raises ConfigError listing all problems at once."""
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
    return parse_config(loaded, str(path))


def parse_config(values: Mapping[str, Any], name: str = "configuration") -> Config:
    """Check already loaded values. Raises ConfigError listing all problems at once."""
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        problems = [line for issue in error.errors() for line in _explain(dict(issue))]
        text = "\n".join(f"  - {problem}" for problem in problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        raise ConfigError(f"{name} has {count}:\n{text}") from error


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
    section: type[BaseModel] | None = Config
    for part in location[:-1]:
        section = None if section is None or part.isdigit() else _section_of(section, part)
    known = [] if section is None else list(section.model_fields)
    nearest = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
    advice = f"did you mean '{nearest[0]}'?" if nearest else f"known here: {', '.join(known) or 'nothing'}."
    return f"{'.'.join(location)} is not a known key; {advice}"


def _section_of(section: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = section.model_fields.get(name)
    if field is None:
        return None
    candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
