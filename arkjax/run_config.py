"""The config of a run: every field that a config file must give, room by room."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from arkjax.config import nearest, to_dict
from arkjax.distillation.tape_format import TapeFormat, TapeKind
from arkjax.errors import ConfigError
from arkjax.evaluation.judge import JudgeConfig
from arkjax.evaluation.measures import QualityConfig
from arkjax.models.config import ModelConfig
from arkjax.sampling.engine import EngineConfig
from arkjax.sampling.remote_config import RemoteConfig
from arkjax.sharding import MeshConfig, ShardingRules
from arkjax.storage import added
from arkjax.student_config import StudentConfig
from arkjax.synthesis.contexts import ContextConfig
from arkjax.synthesis.selection import SelectionConfig
from arkjax.synthesis.strategies import PHASES, Strategy, stack, strategy
from arkjax.tasks.embedded_world import WorldConfig
from arkjax.tasks.search_world import SearchWorldConfig
from arkjax.teams.fields import unknown_name
from arkjax.teams.spec import TeamSpec
from arkjax.text.chat import ChatKind
from arkjax.training.loop import TrainConfig


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """The model that plays every agent and that students start from.

    Attributes:
      checkpoint: directory of an ArkJAX model, folder of a Hugging Face checkpoint in safetensors,
        or `hf:owner/name[@revision]`; empty trains the embedded world's base model.
      row_length: T of the rows of documents.
      train: how it is trained.
    """

    checkpoint: str
    row_length: int
    train: TrainConfig


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """What is sampled to learn from, and which systems the team is compared with.

    Attributes:
      problems: training problems that the team works on.
      single: team spec of the single agent: one greedy call.
      samples: team spec of several samples of the single agent; their number is chosen so that the
        budget equals the team's.
      roles: team spec of the team's roles without communication.
    """

    problems: int
    single: str
    samples: str
    roles: str


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """The team as a teacher of distributions.

    Attributes:
      contexts: the prompts under which the teacher reads the student's words.
      row_length: T of the rows that hold those prompts and the words.
      top_k: k, tokens of each position that a tape of kind "top_k" keeps.
      dtype: of the tape's log-probabilities or hidden states.
      batch_rows: student rows that are scored together.
      shard_rows: rows of one shard of the tape.
      tape: what the tape keeps: see `TapeFormat.kind`.
      draws: of each position of a tape of kind "sampled".
    """

    contexts: ContextConfig
    row_length: int
    top_k: int
    dtype: Literal["float16", "bfloat16", "float32"]
    batch_rows: int
    shard_rows: int
    tape: TapeKind = added("top_k")
    draws: int = added(12)

    def tape_format(self, kd_temperature: float, seed: int) -> TapeFormat:
        """What the tape keeps, of probabilities at a temperature; `seed` of the draws."""
        return TapeFormat(self.tape, self.top_k, self.draws, seed, self.dtype, kd_temperature)

    def check_tape(self, kd_temperature: float) -> None:
        """Raise ConfigError unless the contexts can be kept on such a tape."""
        try:
            self.tape_format(kd_temperature, 0)
        except ConfigError as error:
            raise ConfigError(f"config.teacher: {error}") from None
        contexts = self.contexts
        if self.tape == "hidden" and contexts.mixture == "arithmetic" and contexts.most > 1:
            raise ConfigError(
                "config.teacher.tape is 'hidden', one hidden state a token, and an arithmetic "
                "mixture of several contexts has none: set config.teacher.contexts.mixture to "
                "'geometric', or the tape to 'top_k' or 'sampled'"
            )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What systems are compared on.

    Attributes:
      splits: names of the task's splits, and of other tasks' as "TASK:SPLIT", such as "svamp:test",
        which their own graders judge.
      limit: problems of each split; 0 takes all.
      quality: what is measured of the reasoning.
      judge: a model that judges the answers; None: nobody does.
    """

    splits: tuple[str, ...]
    limit: int
    quality: QualityConfig = added(QualityConfig())
    judge: JudgeConfig | None = added(None)


@dataclasses.dataclass(frozen=True)
class LocalModel:
    """A further model that plays agents on the run's own devices.

    Attributes:
      checkpoint: as `BaseConfig.checkpoint`.
      tokenizer: as `RunConfig.tokenizer`; empty takes the one that comes with the checkpoint.
      chat: as `RunConfig.chat`.
      chat_variables: as `RunConfig.chat_variables`.
    """

    checkpoint: str
    tokenizer: str = ""
    chat: ChatKind = "auto"
    chat_variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)


BASE = "base"
"""The name of the run's own model among those that play."""
POLICY = "policy"
"""The name that agents give their model where they leave it to the run."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run, from base model to report.

    Attributes:
      name: names the run in its report.
      seeds: the stages are done once for each; intervals are taken over seeds and problems.
      task: where problems and their grader come from.
      world: the world of the task, the embedded or the search world; other tasks do not read it.
      tokenizer: a tokenizer.model, a tokenizer.json or the folder of a checkpoint: a path, or the
        name of a shipped file; empty takes the one that comes with the base checkpoint.
      model: shape of the model that is trained where there is no checkpoint. A checkpoint has its
        own; it is trained with `remat` if it is set here.
      mesh: devices along each axis of the mesh.
      sharding: which logical axis of a weight lies on which axis of the mesh.
      engine: sizes of the sampling engine.
      base: the base model.
      team: team spec: name of a shipped one or path of a config, with options after a colon.
      sample: what is sampled.
      synthesis: which calls become traces.
      teacher: how the team scores the students' words.
      students: names of the students to train; see `arkjax.synthesis.strategies`.
      student: how they are trained.
      evaluation: what systems are compared on.
      remotes: models behind OpenAI-compatible servers, by name. An agent with such a name as its
        `model` is played by it, one with "base" by the base model.
      policy: who plays all other agents of the team, and of the single agent and the roles that it
        is compared with: "base", or the name of a remote or a local model. The system `base` and
        the students always answer themselves.
      models: further models on the same devices, by name; agents name them as they name remotes.
      models_at_once: how many of these and the base model are held there at once; with fewer than
        there are they take turns.
      chat: how turns are written for the base model: "template", its tokenizer's chat template;
        "plain", with role texts and instructions as they are; "bylines", which leaves these out;
        "auto": the template if there is one, else bylines in the embedded world, else plain.
      chat_variables: what the chat template reads, such as `enable_thinking`.
      source: where the task's problems lie: a file or folder, `hf:owner/name` or `tfds:name`; empty
        for the task's own place. Generated worlds have none.
    """

    name: str
    seeds: tuple[int, ...]
    task: str
    world: WorldConfig | SearchWorldConfig
    tokenizer: str
    model: ModelConfig
    mesh: MeshConfig
    sharding: ShardingRules
    engine: EngineConfig
    base: BaseConfig
    team: str
    sample: SampleConfig
    synthesis: SelectionConfig
    teacher: TeacherConfig
    students: tuple[str, ...]
    student: StudentConfig
    evaluation: EvaluationConfig
    remotes: Mapping[str, RemoteConfig] = dataclasses.field(default_factory=dict)
    policy: str = BASE
    models: Mapping[str, LocalModel] = added({})
    models_at_once: int = added(1)
    chat: ChatKind = added("auto")
    chat_variables: Mapping[str, Any] = added({})
    source: str = added("")

    def __post_init__(self) -> None:
        if self.student.strategy:
            # The same run by another name.
            only = stack(self.student.strategy).student
            object.__setattr__(self, "students", (only,))
            plain = dataclasses.replace(self.student, strategy=())
            object.__setattr__(self, "student", plain)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"config.seeds is {self.seeds}: give distinct seeds, 0 or more")
        if not self.students or len(set(self.students)) != len(self.students):
            raise ConfigError(f"config.students is {self.students}: name each student once")
        for name in self.students:
            for phase in strategy(name).phases:
                self.student.check_phase(phase)
                if phase.needs_tape:
                    self.teacher.check_tape(self.student.objective.kd_temperature)
        if self.sample.problems < 1:
            raise ConfigError(
                f"config.sample.problems is {self.sample.problems}: the team needs at least one"
            )
        terms = [term.name for term in self.student.objective.terms]
        if self.teacher.tape == "sampled" and terms != ["forward_kl"]:
            raise ConfigError(
                "config.teacher.tape is 'sampled', but config.student.objective.divergence is "
                f"{self.student.objective.divergence!r}: drawn tokens give an unbiased gradient of "
                "the forward KL alone; choose forward_kl, or another tape"
            )
        if self.student.held_out and "validation" in self.evaluation.splits:
            raise ConfigError(
                "config.evaluation.splits has 'validation', from which student.held_out chooses "
                "the best weights: systems must be compared on problems that chose nothing"
            )
        if not self.evaluation.splits or self.evaluation.limit < 0:
            raise ConfigError("config.evaluation: name at least one split; limit is 0 or more")
        if apart := [split for split in self.evaluation.splits if {"/", "\\"} & set(split)]:
            raise ConfigError(
                f"config.evaluation.splits has {apart[0]!r}, and a folder of the run is called "
                "after each: run the command where the task's file lies, and name it without a path"
            )
        reserved = {BASE, POLICY, *(Strategy((phase,)).student for phase in PHASES.values())}
        for kind, names, others in (
            ("remotes", self.remotes, reserved),
            ("models", self.models, reserved | set(self.remotes)),
        ):
            if taken := sorted(others & set(names)):
                raise ConfigError(
                    f"config.{kind}.{taken[0]}: this name is taken; give the model another one"
                )
        players = [BASE, *self.remotes, *self.models]
        if self.policy not in players:
            raise ConfigError(
                f"config.policy is {self.policy!r}{nearest(self.policy, players)}: it is 'base' or "
                "the name of one of config.remotes or config.models"
            )
        judge = self.evaluation.judge
        if judge is not None and judge.player not in players:
            raise ConfigError(
                f"config.evaluation.judge.player is {judge.player!r}"
                f"{nearest(judge.player, players)}: it is 'base' or the name of one of "
                "config.remotes or config.models"
            )
        if self.models_at_once < 1:
            raise ConfigError("config.models_at_once: at least one model must be there")

    def players(self, team: TeamSpec, policy: str) -> dict[str, str]:
        """Which model plays under each of the names that a team gives its models.

        Args:
          team: the team.
          policy: who plays all that are not called after another model.

        Raises:
          ConfigError: if a name is none of theirs.
        """
        known = [POLICY, BASE, *self.remotes, *self.models]
        for i, agent in enumerate(team.agents):
            if agent.model not in known and not agent.tool:
                place = f"team {team.name!r}: agents[{i}].model"
                raise unknown_name(place, agent.model, known, "model")
        return {name: policy if name == POLICY else name for name in team.models}

    def check_players(self, team: TeamSpec, single: TeamSpec) -> None:
        """Make sure that what follows can be done with those who play the team.

        Args:
          team: the team that is distilled.
          single: the single agent, as which the base model and the students are asked.

        Raises:
          ConfigError: if it cannot.
        """
        for name, player in self.players(single, POLICY).items():
            if player != POLICY:
                raise ConfigError(
                    f"config.sample.single: an agent of it names the model {name!r}, but the base "
                    f"model and the students are asked with it: call its model {POLICY!r}"
                )
        others = sorted(set(self.players(team, self.policy).values()) - {BASE})
        asking = self.synthesis.attribution
        if others and asking.asks_the_model:
            raise ConfigError(
                f"config.synthesis.attribution.kinds is {asking.kinds}: influence and shapley are "
                f"log-probabilities of the team's model, which {others[0]!r} does not give: name "
                "'flips' alone"
            )
        learned = [n for n in self.students if any(p.needs_teacher for p in strategy(n).phases)]
        if others and learned:
            raise ConfigError(
                f"config.students: {learned[0]} is held to the distributions of the team's model, "
                f"which only the base model gives, and not {others[0]!r}: leave it out"
            )

    def to_dict(self) -> dict[str, Any]:
        """The config as plain data; what came later is named only where it is set.

        Without remotes, or attribution of its own, a config has the hash that it had before there
        were such things.
        """
        data = to_dict(self)
        if not self.remotes:
            del data["remotes"], data["policy"]
        for name, default in _LATER.items():
            if data["synthesis"][name] == default:
                del data["synthesis"][name]
        return data


_LATER = {
    field.name: to_dict(field.default)
    for field in dataclasses.fields(SelectionConfig)
    if field.name in ("attribution", "prefer", "weights")
}
