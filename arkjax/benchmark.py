"""`arkjax evaluate --task`: a model, and a team of it, on a problem set, without a config."""

import dataclasses
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from arkjax import config as configs
from arkjax import pipeline
from arkjax.errors import ConfigError, StaleArtifactError
from arkjax.evaluation.choices import score_choices
from arkjax.evaluation.contest import (
    Contest,
    mean_scores,
    opening_roles,
    unplayed,
    with_tokens,
    write_answers,
)
from arkjax.evaluation.outcomes import Outcomes
from arkjax.evaluation.systems import samples_for_budget
from arkjax.models.config import ModelConfig
from arkjax.models.huggingface.hub import PREFIX
from arkjax.models.huggingface.opening import find, open_model
from arkjax.models.weights import num_parameters
from arkjax.progress import Progress
from arkjax.reporting import systems
from arkjax.reporting.report import build_report, write_report
from arkjax.reporting.terminal import systems_table
from arkjax.run_config import RunConfig
from arkjax.rundir import RunDirectory
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.session import Session, device_facts
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh
from arkjax.shipped import shipped_path
from arkjax.storage import content_hash, write_atomic
from arkjax.tasks.problems import Problem
from arkjax.tasks.registry import Task, get_task
from arkjax.teams import library
from arkjax.text.chat import make_chat
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.transcript import printable
from arkjax.versions import versions

EMBEDDED_RUN = Path("runs/embedded")
"""Where the embedded base model is made when it is first needed."""
EMBEDDED_CONFIG = "quickstart"
"""The config whose base model that is."""

_STAGE = "evaluate"
_TOKENIZER = "data/embedded_world/tokenizer.model"
_MOST_TOKENS = 512
_SLOTS = 64
# Of the memory that is free beside the weights, what caches may take; where it is not known, bytes.
_CACHE_SHARE, _CACHE_BYTES = 0.5, 2 * 2**30
_EMBEDDED_NOTE = (
    "The embedded base model has half a million parameters and has read nothing but its own small "
    "world: on other problems its accuracy says that the path works, and nothing else."
)


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is to be evaluated, as the command line says it.

    Attributes:
      task: name of a task, or FILE.py:NAME.
      split: of the task.
      limit: how many problems, the first of the split; None: all.
      model: a model directory, a checkpoint, `hf:owner/name`; empty: the embedded base model.
      source: where the task's data lie; empty: where the task looks by itself.
      team: a team, as `library.load` takes it; empty: none.
      samples: of self-consistency; 0: none without a team, the team's token budget with one.
      max_tokens: most tokens of one answer; 0: 512, or a quarter of the context if that is less.
      seed: of everything that is drawn.
      slots: calls that are generated at once; 0: as many as memory holds, at most 64.
      tensor: devices over which each layer is spread.
    """

    task: str
    split: str = "test"
    limit: int | None = None
    model: str = ""
    source: str = ""
    team: str = ""
    samples: int = 0
    max_tokens: int = 0
    seed: int = 0
    slots: int = 0
    tensor: int = 1

    def __post_init__(self) -> None:
        least = {"samples": 0, "max_tokens": 0, "slots": 0, "tensor": 1, "limit": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                option = "--" + name.replace("_", "-")
                raise ConfigError(f"{option} is {value}: it must be at least {smallest}")
        if self.team and self.samples:
            raise ConfigError(
                "--samples goes without --team: beside a team, self-consistency gets as many "
                "samples as cost the team's tokens"
            )

    @property
    def command(self) -> str:
        """The command that says the same."""
        words = ["arkjax", "evaluate"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                words += ["--" + field.name.replace("_", "-"), str(value)]
        return shlex.join(words)


def main(
    wish: Wish, out: Path | None = None, *, redo: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Evaluate, print the table, and write outcomes, answers and report.

    Args:
      wish: what is to be evaluated.
      out: the directory for it; by default `runs/evaluate/TASK-SPLIT`. The same wish goes on
        there where it was interrupted.
      redo: delete what the directory holds of it first.
      progress: where work is shown.

    Returns:
      What report.json holds.

    Raises:
      ConfigError, DataError: if there is no such task, split, team, model or data.
      StaleArtifactError: if `out` holds an evaluation of another wish.
      StorageError: if it cannot be written.
    """
    progress = progress or Progress(enabled=False)
    task = get_task(wish.task)
    problems = load_problems(task, wish)
    if wish.team:
        library.load(wish.team)  # lest a model is trained before a wrong name is found
    model = wish.model or embedded_model(progress)
    out = out or Path("runs/evaluate") / f"{task.name}-{wish.split}"
    with RunDirectory(out, option="--out") as directory:
        return _Evaluation(wish, task, problems, model, directory, progress).run(redo)


def load_problems(task: Task, wish: Wish) -> list[Problem]:
    """The problems of a wish. Raises ConfigError or DataError as the task's loader does."""
    settings: dict[str, Any] = {"seed": wish.seed, "source": wish.source}
    if wish.source and "source" not in task.options:
        raise ConfigError(f"--source {wish.source}: task {task.name!r} makes its problems itself")
    options = {name: settings[name] for name in task.options if name in settings}
    return task.load(wish.split, wish.limit, **options)


def embedded_model(progress: Progress) -> str:
    """The directory of the base model of `EMBEDDED_CONFIG`, seed 0; trained if it is not there.

    Raises:
      StaleArtifactError: if `EMBEDDED_RUN` holds that of another config.
    """
    config = configs.build(RunConfig, configs.load(EMBEDDED_CONFIG))
    folder = str(EMBEDDED_RUN / "seed-0" / "base" / "model")
    if EMBEDDED_RUN.is_dir():
        # Without its lock: several evaluations may read the model at once.
        session = Session(config, RunDirectory(EMBEDDED_RUN, lock=False), 0, progress)
        stage = session.stage("base")
        if stage.finished:
            try:
                stage.require(session.inputs("base"))
            except StaleArtifactError as error:
                raise StaleArtifactError(
                    f"{EMBEDDED_RUN} holds the base model of another config: delete it, or give "
                    f"{folder} as --model"
                ) from error
            progress.say(f"no --model is given: the embedded base model of {EMBEDDED_RUN} is taken")
            return folder
    progress.say(
        "no --model is given: the embedded base model is trained, in about two minutes on two idle "
        f"cores, into {EMBEDDED_RUN}"
    )
    pipeline.run(config, EMBEDDED_RUN, ("base",), seed=0, progress=progress)
    return folder


class _Evaluation:
    """One evaluation in its directory."""

    def __init__(
        self,
        wish: Wish,
        task: Task,
        problems: list[Problem],
        model: str,
        directory: RunDirectory,
        progress: Progress,
    ) -> None:
        self.wish, self.task, self.problems = wish, task, problems
        self.directory, self.progress = directory, progress
        self.stage = directory.stage(wish.seed, _STAGE)
        self.source = find(model)
        own = self.source.tokenizer
        self.tokenizer = Tokenizer(own or shipped_path(_TOKENIZER))
        world = Tokenizer(shipped_path(_TOKENIZER)).hash
        self.embedded = not self.source.published and self.tokenizer.hash == world
        self.chat = make_chat(self.tokenizer, bylines=self.embedded)
        self.model_id = f"model-{self.source.identity[:16]}"
        self.team = library.load(wish.team) if wish.team else None

    def inputs(self) -> dict[str, Any]:
        """All that the answers depend on."""
        asked = [[p.id, p.question, p.answer] for p in self.problems]
        wish = dataclasses.asdict(self.wish)
        for name in ("model", "source", "slots", "tensor"):  # where from and how, not what
            del wish[name]
        return {
            **wish,
            "problems": content_hash(asked),
            "model": self.model_id,
            "tokenizer": self.tokenizer.hash,
            "chat": self.chat.identity,
            "team": self.team.hash if self.team else "",
        }

    def run(self, redo: bool) -> dict[str, Any]:
        self._refuse_other_seeds()
        if redo:
            self.stage.clear()
        inputs = self.inputs()
        if self.stage.begin(inputs):
            self.progress.say(f"{self.stage.path}: finished before")
        else:
            started = time.monotonic()
            summary = self._evaluate()
            seconds = self.stage.seconds() + time.monotonic() - started
            self.stage.finish({**summary, "seconds": seconds})
        return self._report(content_hash(inputs))

    def _refuse_other_seeds(self) -> None:
        mine = self.stage.path.parent.name
        others = sorted(path.name for path in self.directory.root.glob("seed-*"))
        if others and mine not in others:
            raise StaleArtifactError(
                f"{self.directory.root} holds an evaluation with {others[0].replace('-', ' ')}: "
                "choose another --out"
            )

    # --- playing ---------------------------------------------------------------------------------

    def _evaluate(self) -> dict[str, Any]:
        wish, path = self.wish, self.stage.path
        self.progress.say(f"reading the model of {self.source.folder}")
        mesh = make_mesh(MeshConfig(data=-1, fsdp=1, tensor=wish.tensor))
        model = open_model(self.source, mesh, ShardingRules(), progress=self.progress).model
        self.tokenizer.check_fits(model.config.vocab_size, self.source.folder)
        context = model.config.max_context
        most = wish.max_tokens or min(_MOST_TOKENS, context // 4)
        contest = Contest(
            self.problems,
            wish.split,
            self.task.grader,
            self.chat,
            self.tokenizer,
            context,
            wish.seed,
            self.model_id,
            path / "calls",
        )
        base = library.vanilla(max_tokens=most)
        team = with_tokens(self.team, wish.team, most) if self.team else None
        teams = [base] + ([team] if team else [])
        needed = [n for one in teams for n in contest.needed(one) if n <= context]
        rows = mesh.shape["data"]
        engine_config = sized(model.config, needed, wish.slots, rows, self.tokenizer)
        self.progress.say(
            f"{len(self.problems):,} problems of {self.task.name}, {wish.split}; answers of up to "
            f"{most} tokens, {engine_config.slots} at once in up to "
            f"{engine_config.length_classes[-1]:,} tokens"
        )
        engine = Engine(model, engine_config, self.tokenizer)
        played = {"base": contest.play("base", base, engine, self.progress)}
        samples = wish.samples
        if team:
            if roles := opening_roles(team):
                spec = library.roles(roles=roles, max_tokens=most)
                played["role_vote"] = contest.play("role_vote", spec, engine, self.progress)
            played["team"] = contest.play("team", team, engine, self.progress, ("role_vote",))
            # Counted where both have an answer: a problem without room costs nothing.
            spent = [
                (a.outcome.generated_tokens, b.outcome.generated_tokens)
                for a, b in zip(played["team"], played["base"], strict=True)
                if a.outcome.calls and b.outcome.calls
            ]
            if spent:
                of_team, of_base = (sum(tokens) / len(spent) for tokens in zip(*spent, strict=True))
                samples = samples_for_budget(of_team, of_base)
        if samples:
            spec = library.self_consistency(n=samples, max_tokens=most)
            name = "self_consistency"
            played[name] = contest.play(name, spec, engine, self.progress)
        answers = [answer for of_system in played.values() for answer in of_system]
        choices = score_choices(
            engine, self.chat, self.tokenizer, self.problems, context, self.progress
        )
        Outcomes.from_records([a.outcome for a in answers]).save(path / "outcomes.parquet")
        write_answers(path / "answers.jsonl", self.problems, answers)
        if choices.rows:
            lines = (json.dumps(row, ensure_ascii=False) for row in choices.rows)
            write_atomic(path / "choices.jsonl", "".join(f"{line}\n" for line in lines))
        return {
            "max_tokens": most,
            "samples": samples,
            "unplayed": {name: unplayed(of_system) for name, of_system in played.items()},
            "scores": {name: mean_scores(of_system) for name, of_system in played.items()},
            "choices": choices.figures,
            "choices_unscored": choices.without_room,
            "oracle": ["team"] if team and team.uses_oracle else [],
            "parameters": num_parameters(model.config),
        }

    # --- what came out ---------------------------------------------------------------------------

    def _report(self, config_hash: str) -> dict[str, Any]:
        summary, path = self.stage.summary(), self.stage.path
        outcomes = Outcomes.load(path / "outcomes.parquet")
        present = outcomes.distinct("system")
        pairs = (
            ("self_consistency", "base"),
            ("team", "base"),
            ("team", "self_consistency"),
            ("team", "role_vote"),
        )
        report = build_report(
            outcomes,
            config_hash=config_hash,
            versions=versions(),
            device=device_facts(),
            seeds=[self.wish.seed],
            wall_seconds={_STAGE: summary["seconds"]},
            claims=[(a, b, self.wish.split, None) for a, b in pairs if {a, b} <= set(present)],
            notes=self._notes(summary),
            oracle=summary["oracle"],
            labels=self._labels(),
            command=self.wish.command,
        )
        scores = {name: dict(of_system) for name, of_system in summary["scores"].items()}
        report["task"] = self.task.name
        report["scores"] = {name: found for name, found in scores.items() if found}
        report["choices"] = summary["choices"]
        write_report(self.directory.report, report)
        print(systems_table(report, self.wish.split))
        for note in self._notes(summary):
            print(note)
        print(f"answers: {path / 'answers.jsonl'}")
        print(f"report: {self.directory.report / 'report.html'}", flush=True)
        return report

    def _labels(self) -> dict[str, str]:
        """The model's row is called after it, if one was given."""
        name = model_name(self.wish.model) if self.wish.model else ""
        # Nor like another row: a folder may well be called "team".
        taken = {systems.label(n) for n in ("self_consistency", "role_vote", "team")}
        return {"base": f"model {name}" if name in taken else name} if name else {}

    def _notes(self, summary: dict[str, Any]) -> list[str]:
        notes = []
        total = len(self.problems)
        if self.wish.limit is not None:
            notes.append(f"The problems are the first {total:,} of the split, no random choice.")
        for name, count in summary["unplayed"].items():
            if count:
                who = self._labels().get(name, name)
                notes.append(
                    f"{who}: {count:,} of {total:,} problems do not fit into the model's context "
                    f"with {summary['max_tokens']} tokens to answer; they count as wrong."
                )
        if summary["choices_unscored"]:
            notes.append(
                f"MC1 and MC2 leave out {summary['choices_unscored']:,} problems whose choices do "
                "not fit into the model's context."
            )
        # Not of a model that was given: it may know more than the embedded one.
        if not self.wish.model and self.task.world is None:
            notes.append(_EMBEDDED_NOTE)
        return notes


def model_name(given: str) -> str:
    """What a model is called after how it was given: "Qwen/Qwen3-8B", or its folder's name.

    A folder in a run that is called `model` is named after the one around it, as `student_da`.
    """
    if given.startswith(PREFIX):
        return printable(given.removeprefix(PREFIX))
    parts = [part for part in Path(given).expanduser().resolve().parts if part != "model"]
    return printable(parts[-1]) if parts[1:] else printable(given)


def sized(
    config: ModelConfig, needed: Sequence[int], slots: int, rows: int, tokenizer: Tokenizer
) -> EngineConfig:
    """An engine for calls of these lengths, with as many slots as memory holds.

    Args:
      config: of the model.
      needed: tokens that the calls can need, prompt and answer.
      slots: calls at once; 0: a power of two, at most 64, whose keys and values take half of the
        memory that is free beside the weights.
      rows: over how many devices slots are spread; at least so many are there.
      tokenizer: the model's.
    """
    ordered = sorted(needed)
    longest = min(config.max_context, -(-ordered[-1] // 32) * 32)
    middle = -(-ordered[len(ordered) // 2] // 32) * 32
    lengths = (middle, longest) if middle <= longest * 2 // 3 else (longest,)
    if not slots:
        # Slots and prefixes of every length class, keys and values.
        size = 2 if config.dtype in ("bfloat16", "float16") else 4
        position = 2 * config.num_layers * config.num_kv_heads * config.head_dim * size
        each = 2 * sum(lengths) * position
        slots = rows
        most = min(_SLOTS, 2 * len(needed))
        while slots < most and 2 * slots * each <= _cache_bytes():
            slots *= 2
    return EngineConfig(
        length_classes=lengths,
        slots=slots,
        prefixes=slots,
        admit_rows=min(slots, 16),
        prefix_rows=min(slots, 8),
        chunk=min(32, longest),
        block_steps=16,
        max_stop_ids=max(4, len(tokenizer.end_ids) + 1),
    )


def _cache_bytes() -> int:
    """Bytes that caches may take, over all devices."""
    free = 0
    for device in jax.local_devices():
        facts = (device.memory_stats() or {}) if device.platform != "cpu" else {}
        if "bytes_limit" in facts:
            free += facts["bytes_limit"] - facts.get("bytes_in_use", 0)
    return int(free * _CACHE_SHARE) if free else _CACHE_BYTES
