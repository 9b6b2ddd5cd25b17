"""Answers that a student gives with its weights of the moment.

What a step asks and with which seeds is a pure function of the run's seed and the step's number, so
the answers of a step are one of its weights: a run that was killed goes on as if it had not been.
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import jax
import numpy as np

from arkjax.distillation.rows import order
from arkjax.errors import ConfigError, DataError
from arkjax.models.transformer import Transformer
from arkjax.sampling.params import Generation, Request, SamplingParams, whole_prefix


class LiveGenerator(Protocol):
    """A generator that can be given other weights: `arkjax.sampling.engine.Engine`."""

    max_context: int

    def check(self, request: Request) -> None:
        """Raise DataError or ConfigError if the request cannot be generated."""

    def update(self, model: Transformer) -> None:
        """Generate with these weights from now on."""

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Generate all requests, in their order."""


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """What a student is asked at each step, and how it answers.

    Attributes:
      prompts: P, problems of a step.
      samples: G, answers to each of them.
      max_tokens: most tokens of an answer, the end token included.
      temperature: of the sampler. A policy gradient is that of the distribution at this
        temperature, since it is the one that was drawn from; without filters such as top-p, under
        which there would be no such distribution.
      refresh_steps: steps for which the sampler keeps its weights; 1 samples every step with the
        weights that it trains. More leaves answers up to `refresh_steps - 1` steps behind.
      row_length: T of the rows that answers are packed into behind their prompts.
      rows: B of a step's batch; 0: as many as any answers to these prompts could need.
      micro_rows: rows whose activations exist at once in a training step; 0: all.

    Raises:
      ConfigError: if a value is outside its range.
    """

    prompts: int
    samples: int
    max_tokens: int
    row_length: int
    temperature: float = 1.0
    refresh_steps: int = 1
    rows: int = 0
    micro_rows: int = 0

    def __post_init__(self) -> None:
        for name in ("prompts", "samples", "max_tokens", "row_length", "refresh_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"rollouts.{name} is {getattr(self, name)}: expected at least 1")
        if not 0 < self.temperature < math.inf:
            raise ConfigError(
                f"rollouts.temperature is {self.temperature}: expected a positive number; at 0 all "
                "answers to a problem are the same"
            )
        for name in ("rows", "micro_rows"):
            if getattr(self, name) < 0:
                raise ConfigError(f"rollouts.{name} is {getattr(self, name)}: expected 0 or more")
        if self.rows and self.micro_rows and self.rows % self.micro_rows:
            raise ConfigError(
                f"rollouts.rows is {self.rows}: expected a multiple of rollouts.micro_rows, "
                f"{self.micro_rows}"
            )

    def check_resume(self, checkpoint_every: int) -> None:
        """Raise ConfigError unless a run can go on from each of its checkpoints as if unbroken.

        Between two refreshments the sampler has weights that no checkpoint holds any more.
        """
        if checkpoint_every % self.refresh_steps:
            raise ConfigError(
                f"checkpoint_every is {checkpoint_every}: expected a multiple of "
                f"rollouts.refresh_steps, which is {self.refresh_steps}, since the sampler's older "
                "weights are in no checkpoint"
            )


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked at one place of a step.

    Attributes:
      problem: index into the run's prompts.
      first: number of its first sample; beyond 0 where a step asks a problem for a second time.
    """

    problem: int
    first: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """One sample.

    Attributes:
      question: index into the questions of the step: answers that share it are a group.
      problem: index into the run's prompts.
      sample: its number among the answers of the step to this problem.
      prompt_ids: what was asked.
      ids: the answer, up to and including its first end token; all tokens if it has none.
      logprobs: for each id, its log-probability in the distribution that it was drawn from.
      finish_reason: "stop" if the last id is an end token, "length" if the answer was cut off.
    """

    question: int
    problem: int
    sample: int
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str

    @property
    def ended(self) -> bool:
        """Whether it came to its end token."""
        return self.finish_reason == "stop"


def questions(num_problems: int, prompts: int, seed: int, step: int) -> list[Question]:
    """What step `step` asks: every problem once an epoch, shuffled anew in each."""
    asked: dict[int, int] = {}
    chosen = []
    for problem in order(num_problems, prompts, seed, step).tolist():
        chosen.append(Question(problem, asked.get(problem, 0)))
        asked[problem] = asked.get(problem, 0) + 1
    return chosen


def replacements(
    num_problems: int, asked: Sequence[Question], seed: int, step: int
) -> list[Question]:
    """All problems that step `step` has not `asked`, in an order of the step's own."""
    known = {question.problem for question in asked}
    # As in `rows.order`: a stream that NumPy promises for ever.
    bits = np.random.MT19937(np.random.SeedSequence([seed, step, 1]))
    shuffled = np.random.RandomState(bits).permutation(num_problems).tolist()
    return [Question(problem, 0) for problem in shuffled if problem not in known]


def answer_seed(seed: int, step: int, problem: int, sample: int) -> int:
    """Seed of one answer, in [0, 2^63)."""
    place = f"answer/{seed}/{step}/{problem}/{sample}"
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") >> 1


def answer_length(ids: Sequence[int], end_ids: Collection[int]) -> int:
    """How many of the ids belong to the answer: up to and including the first end token, or all."""
    return next((n for n, token in enumerate(ids, start=1) if token in end_ids), len(ids))


def roll_out(
    generator: LiveGenerator,
    prompts: Sequence[Sequence[int]],
    asked: Sequence[Question],
    config: RolloutConfig,
    end_ids: Collection[int],
    *,
    seed: int,
    step: int,
) -> list[Answer]:
    """G answers to each question, with the weights that the generator has.

    The answers to a question share the prefill of its prompt.

    Args:
      generator: answers.
      prompts: for every problem of the run, token ids.
      asked: the questions of the step.
      config: how to answer.
      end_ids: tokens that end an answer.
      seed, step: of which the seeds of the answers are made.

    Returns:
      The answers, those to one question together.

    Raises:
      DataError: a prompt and an answer do not fit into the generator.
    """
    requests, made = [], []
    sampling = _sampling(config, end_ids)
    for at, question in enumerate(asked):
        prompt = tuple(prompts[question.problem])
        prefix_len, shared = whole_prefix(prompt, 0, ())
        for i in range(config.samples):
            sample = question.first * config.samples + i
            own = answer_seed(seed, step, question.problem, sample)
            name = f"step {step}, problem {question.problem}, sample {sample}"
            requests.append(Request(name, prompt, prefix_len, sampling, own, shared))
            made.append((at, question.problem, sample, prompt))
    answers = []
    for about, generation in zip(made, generator.generate(requests), strict=True):
        length = answer_length(generation.ids, end_ids)
        ended = generation.ids[length - 1] in end_ids
        answers.append(
            Answer(
                *about,
                ids=generation.ids[:length],
                logprobs=generation.sampling_logprobs[:length],
                finish_reason="stop" if ended else generation.finish_reason,
            )
        )
    return answers


def check_prompts(
    generator: LiveGenerator,
    prompts: Sequence[Sequence[int]],
    config: RolloutConfig,
    end_ids: Collection[int],
) -> None:
    """See before any step that every prompt can be answered, and packed with its longest answer.

    Raises:
      DataError: there is no prompt, or one is too long; the message names it.
      ConfigError: as `Engine.check`.
    """
    if not prompts:
        raise DataError("there are no prompts to answer: give problems to train on")
    for i, prompt in enumerate(prompts):
        request = Request(f"prompt {i}", tuple(prompt), 0, _sampling(config, end_ids), 0)
        generator.check(request)
        if len(prompt) + config.max_tokens > config.row_length:
            raise DataError(
                f"prompt {i} has {len(prompt)} tokens, with up to {config.max_tokens} of an answer "
                f"more than rollouts.row_length, {config.row_length}: raise it, or lower "
                "rollouts.max_tokens"
            )


class LiveSampler:
    """Answers of the student as it is at each step, with the time that they take.

    Attributes:
      config: how to answer.
      seed: of the run.
    """

    def __init__(
        self,
        generator: LiveGenerator,
        prompts: Sequence[Sequence[int]],
        config: RolloutConfig,
        end_ids: Collection[int],
        seed: int,
    ):
        """Set up a sampler.

        Args:
          generator: answers; its weights are replaced by the student's.
          prompts: for every problem of the run, token ids.
          config: how to answer.
          end_ids: tokens that end an answer.
          seed: of the run.

        Raises:
          DataError, ConfigError: as `check_prompts`.
        """
        check_prompts(generator, prompts, config, end_ids)
        self.config, self.seed = config, seed
        self._generator, self._prompts, self._end_ids = generator, prompts, end_ids
        self._refreshed = -1
        self._left = time.monotonic()

    def answers(
        self, step: int, model: Callable[[], Transformer], asked: Sequence[Question]
    ) -> tuple[list[Answer], dict[str, float]]:
        """The answers of a step, and what to log of them.

        Args:
          step: its number.
          model: gives the student as it is before the step.
          asked: the questions; none samples nothing.

        Returns:
          The answers, and `train_seconds` (since the answers before these), `rollout_seconds`,
          `lag` (steps that the sampler's weights are behind), `answer_length` (mean, in tokens),
          `log_answer_length` (mean natural logarithm) and `cut_off` (share without end token);
          zeros where nothing is asked.

        Raises:
          DataError: if the run goes on at a step whose sampler had weights of an earlier one.
        """
        every = self.config.refresh_steps
        wanted = step // every * every
        began = time.monotonic()
        # Weights that last for several steps are taken even where nothing is asked yet.
        if self._refreshed != wanted and (asked or every > 1):
            if step != wanted:
                raise DataError(
                    f"training goes on at step {step}, but the answers there are those of the "
                    f"weights at step {wanted}: expected a checkpoint at a multiple of "
                    f"rollouts.refresh_steps, {every}"
                )
            student = model()
            # Else what the steps before have still to do would count as sampling.
            jax.block_until_ready(student.arrays())
            began = time.monotonic()
            self._generator.update(student)
            self._refreshed = wanted
        made = self.further(step, asked) if asked else []
        lengths = [len(answer.ids) for answer in made]
        measured = {
            "train_seconds": began - self._left,
            "rollout_seconds": time.monotonic() - began,
            "lag": step - self._refreshed if asked else 0,
            "answer_length": _mean(lengths),
            "log_answer_length": _mean([math.log(length) for length in lengths]),
            "cut_off": _mean([not answer.ended for answer in made]),
        }
        return made, measured

    def further(self, step: int, asked: Sequence[Question]) -> list[Answer]:
        """Answers with the weights that the sampler has: more of a step that has had `answers`."""
        return roll_out(
            self._generator,
            self._prompts,
            asked,
            self.config,
            self._end_ids,
            seed=self.seed,
            step=step,
        )

    def hand_over(self) -> None:
        """The step's inputs are complete: what follows until the next answers is training."""
        self._left = time.monotonic()


def _sampling(config: RolloutConfig, end_ids: Collection[int]) -> SamplingParams:
    return SamplingParams(
        temperature=config.temperature, max_tokens=config.max_tokens, stop_ids=tuple(end_ids)
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
