"""`ffn config`: check a configuration, and the documentation made from its model."""

import argparse
from pathlib import Path

from ffn.cli.options import add_command


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `config check`, `config schema` and `config table`."""
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
    from ffn.preflight import checked

    config = checked(read_values(args.file), str(args.file))
    print(f"{args.file} is in order: run {config.run}.")


def _schema(args: argparse.Namespace) -> None:
    from ffn.config.docs import schema_text

    print(schema_text(), end="")


def _table(args: argparse.Namespace) -> None:
    from ffn.config.docs import table_text

    print(table_text(), end="")
