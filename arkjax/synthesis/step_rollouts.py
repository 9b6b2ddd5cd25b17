"""Which steps are right: by how often the model still gets to the right answer from them.

Math-Shepherd (arXiv 2312.08935): from the prompt and the answer up to the end of a step the model
goes on N times. The share of continuations that end right is the step's soft label (eq. 4), whether
there is any its hard one (eq. 3). Every continuation is a recorded call, so that what was killed
goes on, and what was generated is there to be read, replayed and counted.
"""

import collections
import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from arkjax.progress import Task
from arkjax.sampling.generating import Cancelling, refuse_pending
from arkjax.sampling.params import Generation, Request, SamplingParams
from arkjax.synthesis.judged_answers import UNKNOWN, JudgedAnswer
from arkjax.synthesis.step_labels import StepLabelConfig
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.schema import (
    TEMPLATE,
    Call,
    call_id,
    call_seed,
    canonical_json,
    sampling_dict,
)
from arkjax.trajectories.store import CallStore

ROLLOUT = "rollout"
"""Stage, agent and system of the calls that continue a step."""

Accept = Callable[[str, str], bool]
"""Problem id, text of a whole answer -> whether it ends right."""


@dataclasses.dataclass
class RolloutCosts:
    """What labels by roll-outs cost.

    Attributes:
      steps: steps that were labelled, those of equal beginnings once for all.
      calls: continuations; `recorded` of them were there from an earlier run.
      prompt_tokens: tokens before the continuations; `cached_tokens` of them were shared.
      generated_tokens: tokens of the continuations.
      seconds: of the generator.
      without_room: steps that got no label, since a continuation would be too long.
    """

    steps: int = 0
    calls: int = 0
    recorded: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    without_room: int = 0

    def count(self, call: Call, recorded: bool) -> None:
        """Add one continuation."""
        self.calls += 1
        self.recorded += recorded
        self.prompt_tokens += len(call.prompt_ids)
        self.cached_tokens += call.cached_len
        self.generated_tokens += len(call.gen_ids)
        self.seconds += call.seconds


# A problem's id and an answer to it up to the end of a step: what is continued.
Start = tuple[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """One continuation that is asked for."""

    start: Start
    round: int
    sample: int
    request: Request
    sampling: dict[str, Any]

    def call(self, generation: Generation, tokenizer: Tokenizer, accept: Accept, model: str):
        """The continuation as it is recorded."""
        problem_id, prefix = self.start
        correct = accept(problem_id, tokenizer.decode([*prefix, *generation.ids]))
        return Call(
            call_id=self.request.id,
            problem_id=problem_id,
            system=ROLLOUT,
            stage=ROLLOUT,
            round=self.round,
            agent=ROLLOUT,
            sample=self.sample,
            parents=(),
            prompt_segments=((TEMPLATE, 0, len(self.request.prompt_ids)),),
            prompt_ids=self.request.prompt_ids,
            prefix_len=self.request.prefix_len,
            cached_len=generation.cached_len,
            gen_ids=generation.ids,
            logprobs=generation.logprobs,
            sampling_logprobs=generation.sampling_logprobs,
            text=tokenizer.decode(generation.ids),
            parsed={},
            parse_ok=True,
            finish_reason=generation.finish_reason,
            sampling=self.sampling,
            seed=self.request.seed,
            model=model,
            correct=correct,
            seconds=generation.seconds,
        )


def label_by_rollouts(
    answers: Sequence[JudgedAnswer],
    generator: Cancelling,
    accept: Accept,
    tokenizer: Tokenizer,
    config: StepLabelConfig,
    *,
    model_id: str,
    seed: int,
    end_ids: Collection[int] | None = None,
    store: CallStore | None = None,
    task: Task | None = None,
    max_active: int = 1024,
) -> tuple[list[JudgedAnswer], RolloutCosts]:
    """Label each step by its continuations; `step_labels.with_sets` makes sets of them.

    The last step of an answer that has ended needs none: its label is the outcome. Steps with equal
    beginnings are continued once for all. The continuations are a function of the model, the
    beginning and `seed` alone, whatever is generated beside them.

    Args:
      answers: as `step_labels.judged_answers` gives them.
      generator: continues; nothing may be pending in it.
      accept: whether an answer ends right: by the gold answer, or, for the gate "team", if it ends
        as the team's does.
      tokenizer: of the tokens.
      config: N, temperature, lengths, soft or hard.
      model_id: identity of the model that continues; part of the calls' ids.
      seed: of the run.
      end_ids: tokens that end an answer; None takes the tokenizer's.
      store: where continuations are recorded; what it holds is not made again, so that a killed
        command goes on where it was. None records nothing.
      task: told how many starts are done; `num_starts` says of how many.
      max_active: how many continuations are under way at once.

    Raises:
      DataError: if a beginning with its continuation does not fit into the generator.
      StorageError: if they cannot be recorded.
      RuntimeError: if calls are pending in the generator.
    """
    refuse_pending(generator)
    ends = tuple(tokenizer.end_ids if end_ids is None else end_ids)
    costs = RolloutCosts()
    rights: collections.Counter[Start] = collections.Counter()
    left: collections.Counter[Start] = collections.Counter()
    plans = _plans(answers, config, ends, model_id, seed)
    waiting: dict[str, _Plan] = {}

    def take(plan: _Plan, call: Call, recorded: bool) -> None:
        costs.count(call, recorded)
        rights[plan.start] += bool(call.correct)
        left[plan.start] -= 1
        if not left[plan.start]:
            costs.steps += 1
            if task:
                task.advance(1, note=f"{costs.generated_tokens:,} tokens")

    with _settled(generator, store):
        more = True
        while more or waiting:
            while more and len(waiting) < max_active:
                plan = next(plans, None)
                if plan is None:
                    more = False
                    break
                if not plan.sample:
                    left[plan.start] = config.rollouts
                known = store.get(plan.request.id) if store is not None else None
                if known is not None:
                    take(plan, known, recorded=True)
                else:
                    generator.submit(plan.request)
                    waiting[plan.request.id] = plan
            for generation in generator.step() if waiting else ():
                plan = waiting.pop(generation.request_id)
                call = plan.call(generation, tokenizer, accept, model_id)
                if store is not None:
                    store.append(call)
                take(plan, call, recorded=False)

    def label(answer: JudgedAnswer, step: int) -> float:
        if _is_closed(answer, step):
            return answer.outcome
        start = answer.problem_id, answer.prefix(step)
        if start not in left:
            costs.without_room += 1
            return UNKNOWN
        return float(rights[start] > 0) if config.hard else rights[start] / config.rollouts

    labelled = [
        dataclasses.replace(a, labels=tuple(label(a, step) for step in range(len(a.step_ends))))
        for a in answers
    ]
    return labelled, costs


def num_starts(answers: Sequence[JudgedAnswer], config: StepLabelConfig) -> int:
    """How many different beginnings are continued."""
    return sum(1 for _ in _starts(answers, config))


def _is_closed(answer: JudgedAnswer, step: int) -> bool:
    """Whether a step is the last of an answer that has ended: nothing can follow it."""
    last = step == len(answer.step_ends) - 1
    return last and answer.step_ends[-1] < len(answer.answer_ids)


def _starts(
    answers: Sequence[JudgedAnswer], config: StepLabelConfig
) -> Iterator[tuple[JudgedAnswer, int]]:
    """The first answer and step of each beginning that is to be continued and has room."""
    seen: set[Start] = set()
    for answer in answers:
        for step, end in enumerate(answer.step_ends):
            start = answer.problem_id, answer.prefix(step)
            if end < config.rollout_tokens and not _is_closed(answer, step) and start not in seen:
                seen.add(start)
                yield answer, step


def _plans(
    answers: Sequence[JudgedAnswer],
    config: StepLabelConfig,
    end_ids: tuple[int, ...],
    model_id: str,
    seed: int,
) -> Iterator[_Plan]:
    for answer, step in _starts(answers, config):
        prefix = answer.prefix(step)
        ids = (*answer.prompt_ids, *prefix)
        sampling = SamplingParams(
            temperature=config.rollout_temperature,
            max_tokens=config.rollout_tokens - len(prefix),
            stop_ids=end_ids,
        )
        recorded = sampling_dict(sampling)
        # All but the last token is prefilled once for the N, and grows from the step before.
        longest = len(ids) - 1
        before = (0, *answer.step_ends[:step])
        shared = tuple(n for e in before if 0 < (n := len(answer.prompt_ids) + e) < longest)
        digest = hashlib.sha256(canonical_json(list(ids)).encode()).hexdigest()
        for sample in range(config.rollouts):
            own = call_seed(seed, answer.problem_id, ROLLOUT, digest, step, sample)
            name = call_id(
                problem_id=answer.problem_id,
                model=model_id,
                stage=ROLLOUT,
                round=step,
                agent=ROLLOUT,
                sample=sample,
                prompt_ids=ids,
                sampling=recorded,
                seed=own,
            )
            request = Request(name, ids, longest, sampling, own, shared)
            start = answer.problem_id, prefix
            yield _Plan(start, step, sample, request, recorded)


@contextlib.contextmanager
def _settled(generator: Cancelling, store: CallStore | None) -> Iterator[None]:
    """Whatever happens, what was generated is kept, and nothing stays behind in the generator."""
    try:
        yield
    except BaseException:
        generator.cancel()
        raise
    finally:
        if store is not None:
            store.flush()
