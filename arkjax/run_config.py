"""The config of a run: every field that a config file must give, room by room."""

import dataclasses
from typing import Literal

from arkjax.distillation.objective import Objective
from arkjax.errors import ConfigError
from arkjax.models.config import ModelConfig
from arkjax.sampling.engine import EngineConfig
from arkjax.sharding import MeshConfig, ShardingRules
from arkjax.synthesis.contexts import ContextConfig
from arkjax.synthesis.selection import SelectionConfig
from arkjax.synthesis.strategies import strategy
from arkjax.tasks.embedded_world import WorldConfig
from arkjax.training.loop import TrainConfig


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """The model that plays every agent and that students start from.

    Attributes:
      checkpoint: directory of an ArkJAX model; empty trains the embedded world's base model.
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
      top_k: k, tokens of each position that the tape keeps.
      dtype: of the tape's log-probabilities.
      batch_rows: student rows that are scored together.
      shard_rows: rows of one shard of the tape.
    """

    contexts: ContextConfig
    row_length: int
    top_k: int
    dtype: Literal["float16", "bfloat16", "float32"]
    batch_rows: int
    shard_rows: int


@dataclasses.dataclass(frozen=True)
class StudentConfig:
    """How students are trained; all of them alike.

    Attributes:
      row_length: T of the rows of examples.
      train: steps, batch and optimizer.
      objective: the loss of students that learn logits; the others minimise cross-entropy.
    """

    row_length: int
    train: TrainConfig
    objective: Objective


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What systems are compared on.

    Attributes:
      splits: names of the splits.
      limit: problems of each split; 0 takes all.
    """

    splits: tuple[str, ...]
    limit: int


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run, from base model to report.

    Attributes:
      name: names the run in its report.
      seeds: the stages are done once for each; intervals are taken over seeds and problems.
      task: where problems and their grader come from.
      world: the embedded world.
      tokenizer: a SentencePiece model: a path, or the name of a shipped file.
      model: shape of the model.
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
    """

    name: str
    seeds: tuple[int, ...]
    task: str
    world: WorldConfig
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

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"config.seeds is {self.seeds}: give distinct seeds, 0 or more")
        if not self.students or len(set(self.students)) != len(self.students):
            raise ConfigError(f"config.students is {self.students}: name each student once")
        for name in self.students:
            strategy(name)
        if self.sample.problems < 1:
            raise ConfigError(
                f"config.sample.problems is {self.sample.problems}: the team needs at least one"
            )
        if not self.evaluation.splits or self.evaluation.limit < 0:
            raise ConfigError("config.evaluation: name at least one split; limit is 0 or more")
