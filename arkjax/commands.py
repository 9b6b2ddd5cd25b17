"""The commands that need no config: their arguments, and what each of them does.

Parsers are made at every start, so what works is imported only by the command that needs it.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

from arkjax.comparing import command as comparing
from arkjax.options import add_talking_arguments, positive, quiet_option
from arkjax.progress import Progress
from arkjax.records import command as records
from arkjax.reporting.viewer import command as viewer
from arkjax.serving import command as serving


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of `arkjax`.

    Attributes:
      add_parser: adds it to the command line under a name, and returns its parser.
      run: does what its arguments say, and returns the exit code.
    """

    add_parser: Callable[[argparse._SubParsersAction, str], argparse.ArgumentParser]
    run: Callable[[argparse.Namespace], int]


def _add_doctor(commands: argparse._SubParsersAction, name: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help="check versions, devices, memory, disk, and a small computation",
        description="Check the installation and the machine; exit code 1 if something is broken.",
    )
    parser.add_argument(
        "--workdir", type=Path, default=Path("."), help="where runs are going to be written"
    )
    return parser


def _doctor(arguments: argparse.Namespace) -> int:
    from arkjax import doctor

    return doctor.main(arguments.workdir)


def _add_import(commands: argparse._SubParsersAction, name: str) -> argparse.ArgumentParser:
    does = "turn a Hugging Face checkpoint into an ArkJAX model"
    parser = commands.add_parser(name, help=does, description=does)
    parser.add_argument(
        "source", help="folder with config.json and safetensors files, or hf:OWNER/NAME[@REVISION]"
    )
    parser.add_argument("--out", required=True, type=Path, help="the model directory to be made")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the computation; by default bfloat16 for 16-bit checkpoints",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is there")
    quiet_option(parser)
    return parser


def _import(arguments: argparse.Namespace) -> int:
    from arkjax import convert

    convert.import_checkpoint(
        arguments.source,
        arguments.out,
        arguments.dtype,
        overwrite=arguments.overwrite,
        progress=Progress(enabled=not arguments.quiet),
    )
    return 0


def _add_export(commands: argparse._SubParsersAction, name: str) -> argparse.ArgumentParser:
    does = "write a model as a Hugging Face checkpoint that transformers, vLLM and SGLang load"
    parser = commands.add_parser(name, help=does, description=does)
    parser.add_argument(
        "checkpoint", help="a model directory, such as RUN/seed-0/distill/student_da/model"
    )
    parser.add_argument("--out", required=True, type=Path, help="the folder to be made")
    parser.add_argument("--base", help="name of the published base model, for card and adapter")
    parser.add_argument(
        "--adapter", action="store_true", help="a PEFT folder of the LoRA adapters alone"
    )
    parser.add_argument(
        "--max-shard-gib", type=positive, default=5.0, help="largest file of weights (default 5)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the folder, whatever it holds"
    )
    quiet_option(parser)
    return parser


def _export(arguments: argparse.Namespace) -> int:
    from arkjax import convert

    convert.export_checkpoint(
        arguments.checkpoint,
        arguments.out,
        base=arguments.base,
        adapter=arguments.adapter,
        max_shard_bytes=int(arguments.max_shard_gib * 2**30),
        overwrite=arguments.overwrite,
        progress=Progress(enabled=not arguments.quiet),
    )
    return 0


def _add_chat(commands: argparse._SubParsersAction, name: str) -> argparse.ArgumentParser:
    does = "talk to a model in the terminal"
    parser = commands.add_parser(name, help=does, description=does)
    parser.add_argument("--role", help="system prompt; in the embedded world a byline")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 is greedy (default 0.7)")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=512, help="of one answer (default 512)")
    parser.add_argument("--max-context", type=int, default=4096, help="of a talk (default 4096)")
    parser.add_argument("--seed", type=int, default=0)
    add_talking_arguments(parser)
    return parser


def _chat(arguments: argparse.Namespace) -> int:
    from arkjax import chat

    return chat.main(
        arguments.checkpoint,
        role=arguments.role,
        sampling=chat.SamplingParams(
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            max_tokens=arguments.max_tokens,
        ),
        seed=arguments.seed,
        max_context=arguments.max_context,
        cache=arguments.cache,
        weights=arguments.weights,
        variables=arguments.variable,
    )


COMMANDS = {
    "view": Command(viewer.add_parser, viewer.run),
    "import": Command(_add_import, _import),
    "export": Command(_add_export, _export),
    "chat": Command(_add_chat, _chat),
    "serve": Command(serving.add_parser, serving.run),
    "compare": Command(comparing.add_parser, comparing.run),
    "trajectories": Command(records.add_parser, records.run),
    "doctor": Command(_add_doctor, _doctor),
}
