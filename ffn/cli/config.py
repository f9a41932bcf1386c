"""`ffn config`: check a configuration, and the documentation made from its model."""

import argparse
import json
from pathlib import Path

from ffn.cli.options import add_command


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `config check`, `config write`, `config schema` and `config table`."""
    parser = add_command(
        commands, "config", "check a configuration file, or print what one may hold", "  ffn config check config.yaml"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    check = add_command(
        actions,
        "check",
        "report all problems of a configuration file and of the inputs that it names at once",
        "  ffn config check config/fib25_split.yaml",
    )
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(run=_check)

    write = add_command(
        actions,
        "write",
        "check configuration values given as JSON and write them to a file with all defaults filled in",
        """  ffn config write '{"run": "mine", "data": {...}}' --output results/mine/config.yaml""",
    )
    write.add_argument("values", metavar="JSON")
    write.add_argument("--output", type=Path, required=True, metavar="FILE")
    write.set_defaults(run=_write)

    schema = add_command(
        actions, "schema", "print the JSON schema of the configuration", "  ffn config schema > config/schema.json"
    )
    schema.set_defaults(run=_schema)

    table = add_command(
        actions,
        "table",
        "print all keys as Markdown tables",
        "  ffn config table > docs/reference/config.md",
    )
    table.set_defaults(run=_table)


def _check(args: argparse.Namespace) -> None:
    from ffn.config.load import read_values
    from ffn.workflow import checked

    config = checked(read_values(args.file), str(args.file))
    print(f"{args.file} is in order: run {config.run}.")


def _write(args: argparse.Namespace) -> None:
    import yaml

    from ffn.config import parse_config
    from ffn.errors import ConfigError
    from ffn.files import write_text

    try:
        values = json.loads(args.values)
    except json.JSONDecodeError as error:
        raise ConfigError(f"The values are not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f'The values must be a JSON object such as {{"run": "demo"}}, not {args.values!r}.')
    config = parse_config(values, "The configuration")
    write_text(args.output, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _schema(args: argparse.Namespace) -> None:
    from ffn.config.docs import schema_text

    print(schema_text(), end="")


def _table(args: argparse.Namespace) -> None:
    from ffn.config.docs import table_text

    print(table_text(), end="")
