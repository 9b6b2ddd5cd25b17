"""What the stages of one seed have in common: config, directories, models, teams."""

import dataclasses
import functools
import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from arkjax.config import to_dict
from arkjax.errors import DataError
from arkjax.models.placement import load_model, model_info
from arkjax.models.transformer import Transformer
from arkjax.progress import Progress
from arkjax.run_config import RunConfig
from arkjax.rundir import RunDirectory, StageDirectory
from arkjax.sampling.engine import Engine
from arkjax.sharding import make_mesh
from arkjax.shipped import shipped_path
from arkjax.storage import content_hash
from arkjax.synthesis.strategies import STRATEGIES, Strategy
from arkjax.tasks import embedded_world
from arkjax.tasks.problems import Problem
from arkjax.tasks.registry import Task, get_task
from arkjax.teams import library
from arkjax.teams.prompts import check_context
from arkjax.teams.runner import play
from arkjax.teams.script import Debate
from arkjax.teams.spec import TeamSpec
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.training.loop import check_batch
from arkjax.trajectories.store import CallStore


@dataclasses.dataclass
class Session:
    """One seed of a run.

    Attributes:
      config: of the run.
      run: its directory.
      seed: the seed.
      progress: where work is shown.
    """

    config: RunConfig
    run: RunDirectory
    seed: int
    progress: Progress

    def stage(self, name: str) -> StageDirectory:
        """Directory of a stage of this seed."""
        return self.run.stage(self.seed, name)

    # --- what everything is made of --------------------------------------------------------------

    @functools.cached_property
    def mesh(self) -> Mesh:
        """All devices."""
        return make_mesh(self.config.mesh)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        path = Path(self.config.tokenizer)
        return Tokenizer(path if path.exists() else shipped_path(self.config.tokenizer))

    @functools.cached_property
    def chat(self) -> PlainChat:
        """How turns are written."""
        return PlainChat(self.tokenizer)

    @functools.cached_property
    def task(self) -> Task:
        """Where problems and their grader come from."""
        return get_task(self.config.task)

    @functools.cached_property
    def team(self) -> TeamSpec:
        """The team that is distilled."""
        return library.load(self.config.team)

    @functools.cached_property
    def single(self) -> TeamSpec:
        """The single agent, and how students are asked."""
        return library.load(self.config.sample.single)

    def samples(self, n: int) -> TeamSpec:
        """Several samples of the single agent, which vote."""
        return library.load(_with_option(self.config.sample.samples, f"n={n}"))

    def roles(self, n: int) -> TeamSpec:
        """The team's roles without communication, each sampled n times."""
        return library.load(_with_option(self.config.sample.roles, f"n={n}"))

    def problems(self, split: str, limit: int | None) -> list[Problem]:
        """Problems of a split; those of "train" are this seed's own."""
        options: dict[str, Any] = {}
        if self.task.name == embedded_world.NAME:
            options = {"world": self.config.world, "seed": self.seed}
        problems = self.task.load(split, limit, **options)
        if not problems:
            raise DataError(f"task {self.task.name!r} has no problems in split {split!r}")
        return problems

    @property
    def strategies(self) -> dict[str, Strategy]:
        """The students of this run."""
        return {name: STRATEGIES[name] for name in self.config.students}

    def check(self) -> None:
        """Find now what would otherwise stop the run after hours of work.

        Raises:
          ConfigError: if there is no such task, split, team or team option, or a batch cannot be
            spread over the devices.
          DataError: if a team's longest prompt does not fit into the engine, or there is no
            checkpoint where the config says.
        """
        config = self.config
        if config.base.checkpoint:
            model_info(Path(config.base.checkpoint))
        check_batch(config.base.train, self.mesh, "base.train.batch_rows")
        check_batch(config.student.train, self.mesh, "student.train.batch_rows")
        problems = self.problems("train", config.sample.problems)
        for split in config.evaluation.splits:
            problems = problems + self.problems(split, config.evaluation.limit or None)
        for team in (self.team, self.single, self.samples(1), self.roles(1)):
            check_context(team, problems, self.chat, config.engine.length_classes[-1])

    # --- models ----------------------------------------------------------------------------------

    def model(self, name: str) -> Transformer:
        """The base model, or a student by its name."""
        if name == "base":
            self.stage("base").summary()  # Says clearly if the stage is not finished.
            return load_model(self.stage("base").path / "model", self.mesh, self.config.sharding)
        path = self.stage("distill").path / name / "model"
        return load_model(path, self.mesh, self.config.sharding)

    def model_id(self, name: str) -> str:
        """Identity of a model's weights: what they were made from."""
        made_from = self.inputs("base" if name == "base" else "distill")
        return f"{name}-{content_hash(made_from)[:16]}"

    def play(
        self,
        team: TeamSpec,
        problems: Sequence[Problem],
        engine: Engine,
        model: str,
        directory: Path,
        label: str,
        known: Sequence[CallStore] = (),
    ) -> tuple[list[Debate], CallStore]:
        """Play a team on problems and record its calls; what is recorded is not made again."""
        store = CallStore(directory)
        # One model plays every agent of the team, under whatever names the team gives it.
        names = {agent.model for agent in team.agents}
        with self.progress.task(label, total=len(problems), unit="problems") as task, store:
            debates = play(
                team,
                problems,
                dict.fromkeys(names, engine),
                self.chat,
                self.tokenizer,
                self.task.grader,
                store,
                self.seed,
                task,
                list(known),
                model_ids=dict.fromkeys(names, self.model_id(model)),
            )
        return debates, store

    @functools.cached_property
    def base_engine(self) -> Engine:
        """The engine of the base model."""
        return Engine(self.model("base"), self.config.engine)

    def release(self) -> None:
        """Free the base model's engine."""
        self.__dict__.pop("base_engine", None)
        gc.collect()

    # --- what each stage is made from ------------------------------------------------------------

    def inputs(self, stage: str) -> dict[str, Any]:
        """Everything that a stage's artifacts depend on, those of earlier stages included."""
        c = to_dict(self.config)
        base = {
            "seed": self.seed,
            "task": c["task"],
            "tokenizer": self.tokenizer.hash,
            "base": c["base"],
        }
        if not self.config.base.checkpoint:
            base |= {"world": c["world"], "model": c["model"]}
        sample = base | {
            "world": c["world"],
            "team": to_dict(self.team),
            "sample": c["sample"],
        }
        synthesize = sample | {
            "synthesis": c["synthesis"],
            "students": c["students"],
            "student": {"row_length": c["student"]["row_length"]},
        }
        score = synthesize | {"teacher": c["teacher"]}
        score["student"] = score["student"] | {
            "kd_temperature": c["student"]["objective"]["kd_temperature"]
        }
        distill = score | {"student": c["student"]}
        evaluate = distill | {"evaluation": c["evaluation"]}
        return {
            "base": base,
            "sample": sample,
            "synthesize": synthesize,
            "score": score,
            "distill": distill,
            "evaluate": evaluate,
        }[stage]


def device_facts() -> dict[str, Any]:
    """What the run computes on."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "count": jax.device_count(),
        "processes": jax.process_count(),
    }


def _with_option(team: str, option: str) -> str:
    name, _, options = team.partition(":")
    return f"{name}:{options},{option}" if options else f"{name}:{option}"
