"""Options that several commands have in common."""

import argparse


def add_talking_options(parser: argparse.ArgumentParser) -> None:
    """Add how a model is kept in memory, and what its chat template is told.

    They are read as `cache` and `weights`, those of `EngineConfig`, and `variable`.
    """
    for name, what in (("cache", "keys and values"), ("weights", "the layers' matrices")):
        parser.add_argument(
            f"--{name}",
            choices=("model", "int8"),
            default="model",
            help=f"keep {what} as the model has them, or in int8 (default model)",
        )
    parser.add_argument(
        "--variable",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="for the chat template, such as enable_thinking=false; may be repeated",
    )


def quiet_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves progress unsaid."""
    parser.add_argument("--quiet", action="store_true", help="no progress, only errors")
