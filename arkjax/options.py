"""Options that several commands have in common."""

import argparse
from pathlib import Path


def positive(text: str) -> float:
    """A number above 0, as the `type` of an argument.

    Raises:
      ArgumentTypeError, ValueError: if it is none.
    """
    value = float(text)
    if not value > 0:  # nan is not either
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def positive_count(text: str) -> int:
    """A whole number from 1 on, as the `type` of an argument. Raises as `positive` does."""
    value = int(text)
    positive(text)
    return value


def add_talking_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which model it is, how it is kept in memory, and what its chat template is told.

    They are read as `checkpoint`, as `cache` and `weights`, those of `EngineConfig`, and as
    `variable`.
    """
    parser.add_argument("checkpoint", help="a model directory, or a Hugging Face checkpoint")
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


# Of `arkjax evaluate --task`: name, type, and what it is for.
_PROBLEM_SET = (
    ("--split", str, "of the problem set (default test)"),
    ("--limit", int, "only so many problems, the first ones; by default all"),
    (
        "--model",
        str,
        "a model directory, a Hugging Face checkpoint or hf:OWNER/NAME; by default the embedded "
        "base model, which is trained in two minutes where runs/embedded has none",
    ),
    (
        "--source",
        str,
        "where the problems lie: a file or folder, hf:OWNER/NAME or tfds:NAME; by default "
        "$ARKJAX_DATASETS/TASK, or the data set's home on the Hub",
    ),
    ("--team", str, "also this team, its roles alone, and self-consistency at its token budget"),
    ("--samples", int, "also self-consistency with so many samples"),
    (
        "--max-tokens",
        int,
        "of one answer (default 512, or a quarter of the model's context if that is less)",
    ),
    ("--slots", int, "answers that are generated at once; by default what memory holds, up to 64"),
    ("--tensor", int, "devices over which each layer is spread (default 1)"),
    ("--out", Path, "the directory for it (default runs/evaluate/TASK-SPLIT)"),
)


def add_problem_set_options(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a model is evaluated on a problem set, without a config."""
    group = parser.add_argument_group("a problem set, in place of --config and --workdir")
    group.add_argument("--task", help="its name, such as gsm8k, or FILE.py:NAME of one's own")
    for name, kind, purpose in _PROBLEM_SET:
        group.add_argument(name, type=kind, help=purpose)


def problem_set_options(arguments: argparse.Namespace) -> list[str]:
    """Those of these options that were given, without `--task`."""
    names = [name for name, _, _ in _PROBLEM_SET]
    return [n for n in names if getattr(arguments, n[2:].replace("-", "_")) is not None]
