"""What the stages of one seed have in common: config, directories, models, teams."""

import dataclasses
import functools
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from arkjax.errors import ConfigError, DataError
from arkjax.models.huggingface.opening import find
from arkjax.models.huggingface.reading import read_checkpoint
from arkjax.models.placement import load_model
from arkjax.models.quantized import check_quantization
from arkjax.models.transformer import Transformer
from arkjax.origins import Origins
from arkjax.players import Players, open_tokenizer
from arkjax.progress import Progress
from arkjax.run_config import BASE, RunConfig
from arkjax.rundir import RunDirectory, StageDirectory, apart
from arkjax.sampling.params import Generator
from arkjax.sampling.precision import check_precision
from arkjax.sampling.remotes import max_active
from arkjax.sharding import make_mesh
from arkjax.storage import content_hash
from arkjax.synthesis.attribution import attribute
from arkjax.synthesis.strategies import Dataset, Phase, Strategy, with_prefixes
from arkjax.tasks import registry
from arkjax.tasks.problems import Problem
from arkjax.teams import library
from arkjax.teams.context import check_context
from arkjax.teams.debate import Debate
from arkjax.teams.runner import play, team_tools
from arkjax.teams.spec import TeamSpec
from arkjax.text.chat import Chat, make_chat
from arkjax.text.files import SENTENCEPIECE, tokenizer_files
from arkjax.text.tokenizer import Tokenizer
from arkjax.training.loop import check_batch
from arkjax.trajectories.attribution import Attribution
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
        """The run's tokenizer: the config's, or that of the base checkpoint."""
        if self.config.tokenizer:
            return open_tokenizer(self.config.tokenizer)
        checkpoint = self.config.base.checkpoint
        folder = find(checkpoint).tokenizer if checkpoint else None
        if folder is None:
            raise ConfigError(
                "config.tokenizer is empty, and no tokenizer comes with config.base.checkpoint "
                f"({checkpoint!r}): give its file or folder"
            )
        return Tokenizer(folder)

    @property
    def tokenizer_files(self) -> dict[str, Path]:
        """The tokenizer's files, by the names under which models keep copies."""
        path = self.tokenizer.path
        if path.is_file() and path.suffix != ".json":
            return {SENTENCEPIECE: path}
        folder = path if path.is_dir() else path.parent
        return {file.relative_to(folder).as_posix(): file for file in tokenizer_files(folder)}

    @functools.cached_property
    def chat(self) -> Chat:
        """How turns are written for the base model, the students and the remotes."""
        c = self.config
        bylines = self.task.world is not None
        return make_chat(self.tokenizer, c.chat, c.chat_variables, bylines=bylines)

    @functools.cached_property
    def task(self) -> registry.Task:
        """Where problems and their grader come from."""
        return registry.get_task(self.config.task)

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

    def task_of(self, split: str) -> registry.Task:
        """The task of a split by its name in the config: of "svamp:test", the task "svamp"."""
        name = split.rpartition(":")[0]
        return registry.get_task(name) if name else self.task

    def problems(self, split: str, limit: int | None) -> list[Problem]:
        """Problems of a split; those of "train" are this seed's own.

        Those of another task, "TASK:SPLIT", lie where that task looks for them by itself, and are
        of its shipped world, unless the run's is of the same kind.
        """
        task, name = self.task_of(split), split.rpartition(":")[2]
        source = self.config.source if name == split else ""
        world = self.config.world
        if task.world is not None and not isinstance(world, task.world.config):
            world = None
        settings = {"world": world, "seed": self.seed, "source": source}
        options = {option: settings[option] for option in task.options}
        problems = task.load(name, limit, **options)
        if not problems:
            raise DataError(f"task {task.name!r} has no problems in split {name!r}")
        return problems

    @functools.cached_property
    def training_problems(self) -> dict[str, Problem]:
        """What the team works on for training, by id."""
        problems = self.problems("train", self.config.sample.problems)
        return {problem.id: problem for problem in problems}

    def prompt(self, question: str) -> list[int]:
        """The bare prompt, under which students are asked, as token ids."""
        return [*self.chat.question(question), *self.chat.turn(self.single.agents[0].role)]

    @property
    def strategies(self) -> dict[str, Strategy]:
        """The students of this run, and those that others of them begin with, in order."""
        return with_prefixes(self.config.students)

    @property
    def datasets(self) -> dict[str, Dataset]:
        """What the students learn from, by name."""
        return {p.dataset.name: p.dataset for p in self._phases() if p.dataset}

    def check(self, stages: Collection[str]) -> None:
        """Find now what would otherwise stop the run after hours of work.

        Args:
          stages: those that are going to be done; only if a team plays in one are remotes asked.

        Raises:
          ConfigError: if there is no such task, split, team, team option or player, a batch cannot
            be spread over the devices, qwix is missing where something shall be in int8, or a
            remote's key, address, model or tokenizer is wrong.
          DataError: if a team's longest prompt does not fit into the engine, a remote does not
            answer, or there is no checkpoint where the config says.
          IsolationError: if an agent may run programs, and they cannot be isolated here.
        """
        config = self.config
        for local in config.models.values():
            if (source := find(local.checkpoint)).published:
                read_checkpoint(source.folder)
        if config.base.checkpoint:
            source = find(config.base.checkpoint)
            if source.published:
                read_checkpoint(source.folder)
        check_quantization(config.student.base_quantization)
        check_precision(config.engine)
        check_batch(config.base.train, self.mesh, "base.train.batch_rows")
        check_batch(config.student.train, self.mesh, "student.train.batch_rows")
        self._check_world()
        problems = self.problems("train", config.sample.problems)
        for split in config.evaluation.splits:
            problems = problems + self.problems(split, config.evaluation.limit or None)
        config.check_players(self.team, self.single)
        self._check_students()
        self._check_roll_outs()
        limits = {}
        judge = config.evaluation.judge
        judges = {judge.player} if judge and "evaluate" in stages else set()
        for name in sorted(self._who_plays() | judges):
            if name not in config.remotes:
                limits[name] = config.engine.length_classes[-1]
            elif {"sample", "evaluate"} & set(stages):
                remote = config.remotes[name]
                self.progress.say(f"remote {name}: asking {remote.url} for {remote.model}")
                self.players.remotes.check(name)
                limits[name] = self.players.remotes[name].max_context
            else:
                limits[name] = sys.maxsize
        for team, policy in self._teams():
            players = config.players(team, policy)
            own = {name: limits[player] for name, player in players.items()}
            chats = {name: self.players.voice(player).chat for name, player in players.items()}
            check_context(team, problems, chats, own, team_tools(team))

    def _check_world(self) -> None:
        """The world of the config has to be that of the task, if it has one."""
        world, given = self.task.world, type(self.config.world)
        if world is not None and given is not world.config:
            fields = ", ".join(field.name for field in dataclasses.fields(world.config))
            raise ConfigError(
                f"config.world has the fields of {given.__name__}, but task {self.task.name!r} "
                f"takes {world.config.__name__}: give {fields}"
            )

    def _check_students(self) -> None:
        """What students learn from, and what decides which of their weights are kept."""
        config = self.config
        speakers = sorted(set(config.players(self.team, config.policy).values()))
        if config.synthesis.foreign == "leave_out" and all(map(self.players.is_foreign, speakers)):
            raise ConfigError(
                "config.synthesis.foreign is 'leave_out', but all of the team is played by "
                f"{', '.join(speakers)}, with another tokenizer than the students': nothing would "
                "be left to learn; set it to 'reencode'"
            )
        if any(phase.needs_tape for phase in self._phases()):
            kept = config.teacher.tape_format(config.student.objective.kd_temperature, self.seed)
            try:
                kept.meta(self.tokenizer.vocab_size)
            except ConfigError as error:
                raise ConfigError(f"config.teacher.top_k: {error}") from None
        if config.student.held_out:
            try:
                self.problems("validation", config.student.held_out)
            except ConfigError as error:
                raise ConfigError(f"config.student.held_out: {error}") from None

    def _check_roll_outs(self) -> None:
        """What students write anew has to fit into rows and into the engine."""
        student, learned = self.config.student, {p.learns for p in self._phases()}
        fields = {"on_policy": {"on_policy"}, "policy": {"pad", "grpo"}}
        used = [name for name, kinds in fields.items() if kinds & learned]
        if not used:
            return
        longest = max(len(self.prompt(p.question)) for p in self.training_problems.values())
        for name in used:
            rollouts = getattr(student, name).rollouts
            need = longest + rollouts.max_tokens
            room = min(rollouts.row_length, self.config.engine.length_classes[-1])
            if need > room:
                raise ConfigError(
                    f"config.student.{name}.rollouts: the longest prompt has {longest} tokens and "
                    f"an answer up to {rollouts.max_tokens}, but rows and engine hold {room}: "
                    "raise row_length or engine.length_classes, or lower max_tokens"
                )
        if "pad" in learned:
            check_batch(student.reward_model, self.mesh, "student.reward_model.batch_rows")

    def _phases(self) -> list[Phase]:
        """Every phase that some student goes through."""
        return [strategy.last for strategy in self.strategies.values()]

    def _teams(self) -> list[tuple[TeamSpec, str]]:
        """All teams, and who plays their agents."""
        policy = self.config.policy
        teams = [(self.single, BASE)]
        return teams + [(team, policy) for team in (self.team, self.samples(1), self.roles(1))]

    def _who_plays(self) -> set[str]:
        """Whoever plays in any of the teams."""
        players = [self.config.players(team, policy) for team, policy in self._teams()]
        return {player for of_team in players for player in of_team.values()}

    @functools.cached_property
    def players(self) -> Players:
        """Those who play."""
        return Players(self.config, self.mesh, self.tokenizer, self.chat, self.model, self.progress)

    # --- models ----------------------------------------------------------------------------------

    def model(self, name: str) -> Transformer:
        """The base model, or a student by its name."""
        if name == "base":
            self.stage("base").summary()  # Says clearly if the stage is not finished.
            return load_model(self.stage("base").path / "model", self.mesh, self.config.sharding)
        path = self.stage("distill").path / name / "model"
        return load_model(path, self.mesh, self.config.sharding)

    def model_id(self, name: str) -> str:
        """Identity of a model's weights: what they were made from, or where a remote has them."""
        if name in self.config.remotes:
            return self.players.remotes.identity(name)
        if name in self.config.models:
            return self.players.local_id(name)
        if name == BASE:
            made_from = self.inputs("base")
        else:
            whole, students = apart(self.inputs("distill"))
            made_from = whole | {"student": students[name]}
        return f"{name}-{content_hash(made_from)[:16]}"

    def play(
        self,
        team: TeamSpec,
        problems: Sequence[Problem],
        policy: str,
        directory: Path,
        label: str,
        known: Sequence[CallStore] = (),
        task: registry.Task | None = None,
    ) -> tuple[list[Debate], CallStore]:
        """Play a team on problems and record its calls; what is recorded is not made again.

        `policy` plays all agents but those that name a model: see `RunConfig.players`. `task` is
        that of the problems, where it is not the run's.
        """
        grader = (task or self.task).grader
        store, players = CallStore(directory), self.config.players(team, policy)
        with self.progress.task(label, total=len(problems), unit="problems") as shown, store:
            debates = play(
                team,
                problems,
                self.players.generators(players, shown),
                {name: self.players.voice(player) for name, player in players.items()},
                self.tokenizer,
                grader,
                store,
                self.seed,
                shown,
                list(known),
                model_ids={name: self.model_id(player) for name, player in players.items()},
                max_active=max_active([self.config.remotes.get(p) for p in players.values()]),
            )
        return debates, store

    def accuracy(self, generator: Generator, problems: Sequence[Problem]) -> float:
        """Share of problems that a model solves as the single agent does; nothing is recorded."""
        debates = play(
            self.single,
            problems,
            dict.fromkeys(self.single.models, generator),
            self.chat,
            self.tokenizer,
            self.task.grader,
            None,
            self.seed,
        )
        return sum(debate.correct for debate in debates) / len(debates)

    def attribute(self, directory: Path, answers: Mapping[str, str | None]) -> Attribution:
        """Work out who contributed what to the team's recorded debates, and write it.

        Args:
          directory: where to; what is done so far lies beside it until all is done.
          answers: the team's answer by problem id.
        """
        config = self.config.synthesis.attribution
        calls = CallStore(self.stage("sample").path / "team").load()
        total = len({call.problem_id for call in calls})
        scratch = directory.with_name(f"{directory.name}-parts")
        with self.progress.task("attribution", total=total, unit="problems") as task:
            attribution = attribute(
                calls,
                self.team,
                answers,
                self.task.grader,
                config,
                scorer=self._score if config.asks_the_model else None,
                end_id=self.chat.end_id if self.chat.keeps_end else None,
                longest=self.config.engine.length_classes[-1],
                task=task,
                scratch=scratch,
            )
        attribution.save(directory)
        shutil.rmtree(scratch, ignore_errors=True)
        return attribution

    def _score(self, *arguments: Any, **options: Any) -> list[np.ndarray]:
        """Score continuations by the base model; see `Engine.score_continuations`."""
        return self.players.engine(BASE).score_continuations(*arguments, **options)

    def close(self) -> None:
        """Free the engines, and end all talk with servers."""
        if "players" in self.__dict__:
            self.players.close()

    def inputs(self, stage: str) -> dict[str, Any]:
        """Everything that a stage's artifacts depend on: see `Origins.inputs`."""
        return self._origins.inputs(stage)

    @functools.cached_property
    def _origins(self) -> Origins:
        players = sorted(self._who_plays() - {BASE})
        others = {
            kind: {n: self.model_id(n) for n in players if n in getattr(self.config, kind)}
            for kind in ("remotes", "models")
        }
        judge = self.config.evaluation.judge
        judge = judge.player if judge else ""
        return Origins(
            self.config,
            self.seed,
            self.team,
            self.tokenizer.hash,
            self.chat.identity,
            others,
            # What the base model is made from stands there already.
            judge if judge in ("", BASE) else self.model_id(judge),
        )


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
