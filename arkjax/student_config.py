"""The config of the students: their losses, trainings and roll-outs."""

import dataclasses

from arkjax.distillation.grpo import GRPOConfig
from arkjax.distillation.objective import Objective
from arkjax.distillation.on_policy import OnPolicyConfig
from arkjax.errors import ConfigError
from arkjax.models.config import Lora, Quantization
from arkjax.storage import added
from arkjax.synthesis.strategies import Phase
from arkjax.training.loop import TrainConfig
from arkjax.training.reward_training import ProcessRewardConfig
from arkjax.training.rollouts import RolloutConfig


@dataclasses.dataclass(frozen=True)
class OnPolicyTraining:
    """The phase "on_policy".

    Attributes:
      own: how often the student's own answers take the place of recorded traces.
      rollouts: examples of a step (`prompts`), and how answers are drawn; `samples` is 1.
      train: steps and optimizer; `batch_rows` has no meaning here.
      divergence: in place of the objective's, see `Objective.divergence`. What suits recorded
        traces need not suit own answers (GKD, arXiv 2306.13649, section 4).
      weight: of it, in place of the objective's.
    """

    own: OnPolicyConfig
    rollouts: RolloutConfig
    train: TrainConfig
    divergence: str
    weight: float

    def objective(self, of_words: Objective) -> Objective:
        """What is minimised, given the objective of recorded traces."""
        return dataclasses.replace(of_words, divergence=self.divergence, weight=self.weight)


@dataclasses.dataclass(frozen=True)
class PolicyTraining:
    """The phases "pad" and "grpo".

    Attributes:
      grpo: how rewards become a loss; "grpo" leaves out process rewards, whatever their weight.
      rollouts: problems and samples of a step, and how answers are drawn.
      train: steps and optimizer; `batch_rows` has no meaning here.
    """

    grpo: GRPOConfig
    rollouts: RolloutConfig
    train: TrainConfig


@dataclasses.dataclass(frozen=True)
class StudentConfig:
    """How students are trained; all of them alike.

    Attributes:
      row_length: T of the rows of examples.
      train: steps, batch and optimizer of phases that learn from recorded traces.
      objective: the loss of students that learn the team's distributions; "logit" leaves its
        cross-entropy out. The others minimise cross-entropy.
      lora: adapters, which are trained in place of the base model's weights and merged at the end;
        None trains all weights.
      base_quantization: how the base model is kept under adapters while they are trained.
      strategy: names of the phases of the one student that is trained in place of
        `RunConfig.students`, such as ("rsft",) or ("rsft", "da"); empty leaves it at these.
      held_out: problems of the split "validation" on which a student is measured at every
        checkpoint, so that its best weights are kept; 0 keeps those of the last step.
      on_policy: of the phase of that name; None without it.
      reward_model: of the phase "pad"; None without it.
      policy: of the phases "pad" and "grpo"; None without them.
    """

    row_length: int
    train: TrainConfig
    objective: Objective
    lora: Lora | None = None
    base_quantization: Quantization = "none"
    strategy: tuple[str, ...] = added(())
    held_out: int = added(0)
    on_policy: OnPolicyTraining | None = added(None)
    reward_model: ProcessRewardConfig | None = added(None)
    policy: PolicyTraining | None = added(None)

    def __post_init__(self) -> None:
        if self.base_quantization != "none" and self.lora is None:
            raise ConfigError(
                f"student.base_quantization is {self.base_quantization!r}, but student.lora is "
                "None: quantised weights cannot be trained; give adapters, or set it to 'none'"
            )
        if self.held_out < 0:
            raise ConfigError(f"student.held_out is {self.held_out}: it is 0 or more problems")
        if self.train.patience and not self.held_out:
            raise ConfigError(
                f"student.train.patience is {self.train.patience}, but student.held_out is 0: "
                "training stops early by its accuracy on held-out problems; say how many"
            )

    def check_phase(self, phase: Phase) -> None:
        """Raise ConfigError if what a phase needs is not configured."""
        needs = {
            "on_policy": ("on_policy",),
            "pad": ("policy", "reward_model"),
            "grpo": ("policy",),
        }
        for field in needs.get(phase.learns, ()):
            if getattr(self, field) is None:
                raise ConfigError(
                    f"config.student.{field} is None, but the strategy {phase.name!r} needs it: "
                    "give it as configs/quickstart.py does"
                )
        if phase.needs_tape and not self.objective.needs_teacher:
            field = "divergence" if self.objective.divergence == "none" else "weight"
            raise ConfigError(
                f"config.student.objective.{field} is {getattr(self.objective, field)!r}, but the "
                f"strategy {phase.name!r} learns the team's distributions: choose a divergence and "
                "a weight above 0, or a strategy of words alone"
            )
