"""What each stage of a run is made from, which decides whether what is there can stay."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from arkjax.config import to_dict
from arkjax.run_config import RunConfig
from arkjax.synthesis.strategies import Strategy, with_prefixes
from arkjax.teams.spec import TeamSpec

# Fields of `StudentConfig` that only some phases read, by what these learn.
_OWN_FIELDS = {"on_policy": {"on_policy"}, "policy": {"pad", "grpo"}, "reward_model": {"pad"}}


@dataclasses.dataclass(frozen=True)
class Origins:
    """Everything that a seed's artifacts depend on.

    Attributes:
      config: of the run.
      seed: the seed.
      team: the team that is distilled.
      tokenizer: hash of the base model's tokenizer.
      chat_template: identity of the base model's chat; empty if it has no template.
      others: identities of the models that play beside the base model, by name, those behind
        servers under "remotes", further ones here under "models".
      judge: identity of the model that judges answers; empty if none does.
    """

    config: RunConfig
    seed: int
    team: TeamSpec
    tokenizer: str
    chat_template: str
    others: Mapping[str, Mapping[str, str]]
    judge: str = ""

    def inputs(self, stage: str) -> dict[str, Any]:
        """What a stage depends on, the inputs of earlier stages included.

        Data sets, tapes, students and their evaluations do not depend on one another: each is a
        part of its stage, with inputs of its own under "parts" (see `StageDirectory`).
        """
        c = to_dict(self.config)
        base = {
            "seed": self.seed,
            "task": c["task"],
            "tokenizer": self.tokenizer,
            "base": c["base"],
        }
        if self.config.source:
            base["source"] = self.config.source
        if not self.config.base.checkpoint:
            base |= {"world": c["world"], "model": c["model"]}
        sample = self._sample(c, base)
        synthesize = sample | {
            "synthesis": self.config.to_dict()["synthesis"],
            "student": {"row_length": c["student"]["row_length"]},
        }
        score = synthesize | {"teacher": c["teacher"]}
        score["student"] = score["student"] | {
            "kd_temperature": c["student"]["objective"]["kd_temperature"]
        }
        own = {"strategy", *_OWN_FIELDS}
        distill = score | {"student": {n: v for n, v in c["student"].items() if n not in own}}
        compared = {name: value for name, value in c["evaluation"].items() if name != "judge"}
        evaluate = distill | {"evaluation": compared}

        strategies = with_prefixes(self.config.students)
        last = [strategy.last for strategy in strategies.values()]
        synthesize |= {"parts": {p.dataset.name: to_dict(p.dataset) for p in last if p.dataset}}
        score |= {"parts": {p.dataset.name: to_dict(p.dataset) for p in last if p.needs_tape}}
        students = {name: _student(made, c["student"]) for name, made in strategies.items()}
        distill |= {"parts": students}
        evaluate |= {"parts": {name: students[name] for name in self.config.students}}
        if self.judge:
            # A part of its own, so that answers that are there can be judged later.
            judge = {**c["evaluation"]["judge"], "model": self.judge}
            evaluate["parts"]["judge"] = judge
        return {
            "base": base,
            "sample": sample,
            "synthesize": synthesize,
            "score": score,
            "distill": distill,
            "evaluate": evaluate,
        }[stage]

    def _sample(self, c: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
        sample = {**base, "world": c["world"], "team": to_dict(self.team), "sample": c["sample"]}
        # Sizes of the engine change no token, but in what it keeps its numbers does. Named only
        # where it is not the model's, so that a run without it goes on as before.
        engine = {name: c["engine"][name] for name in ("cache", "weights")}
        if set(engine.values()) != {"model"}:
            sample["engine"] = engine
        for kind, identities in self.others.items():
            if identities:
                sample["policy"] = self.config.policy
                sample[kind] = dict(identities)
        if self.chat_template:
            sample["chat_template"] = self.chat_template
        return sample


def _student(strategy: Strategy, config: Mapping[str, Any]) -> dict[str, Any]:
    learned = {phase.learns for phase in strategy.phases}
    fields = {n: config[n] for n, kinds in _OWN_FIELDS.items() if kinds & learned and n in config}
    return {"phases": [phase.name for phase in strategy.phases], **fields}
