"""fewshot demo: the main job, offline, on real photographs; a plugin that adds a command."""

from __future__ import annotations

from pathlib import Path

import click

from fewshot import hookimpl


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `fewshot demo`."""
    cli.add_command(demo)


@click.command(short_help="Index, search and classify real photographs, offline.")
@click.option("--out", type=Path, default=Path("demo-output"), show_default=True, help="Folder to write into.")
@click.option("--encoder", default="lite", show_default=True, metavar="NAME", help="Encoder; see `fewshot encoders`.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to compute.")
def demo(out: Path, encoder: str, device: str) -> None:
    """Index, search and classify real photographs, offline.

    Takes photographs from scikit-image and handwritten digits from scikit-learn (pip install 'fewshot[demo]'), and
    prints each answer beside the truth.
    """
    from fewshot_plugins.demo.steps import run

    run(out, encoder, device)
