"""A third-party command; it lives in a module of its own so that `fewshot --help` stays fast."""

import click

from fewshot import hookimpl


@hookimpl
def register_commands(cli):
    @cli.command()
    @click.argument("name", default="world")
    def hello(name):
        """Say hello."""
        click.echo(f"hello {name}")
