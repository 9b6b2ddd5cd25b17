"""ArkJAX's side of `bench_teams.py`; makes the model and the questions, too.

    python teams_arkjax.py FOLDER

Runs in ArkJAX's own environment.
"""

import dataclasses
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import sentencepiece
from commands import serve
from shape import MODEL

from arkjax.models.huggingface.reading import load_hf
from arkjax.models.huggingface.writing import export_hf
from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.params import Request, SamplingParams
from arkjax.sharding import ShardingRules, make_mesh
from arkjax.tasks.graders.reading import last_number
from arkjax.tasks.problems import Grade, Problem
from arkjax.teams.runner import play
from arkjax.teams.spec import TeamSpec
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.versions import versions

PAD_ID = 0
OTHERS = "\nThese are the recent opinions of other agents:"
ONE = "\none agent's response:"
ADVICE = "\nUse these opinions carefully as additional advice, and give an updated answer to:"


class Numbers:
    """Grades by the last number."""

    def extract(self, text: str) -> str | None:
        return last_number(text)

    def equal(self, a: str, b: str) -> bool:
        return a == b

    def grade(self, problem: Problem, text: str) -> Grade:
        number = last_number(text)
        return Grade(number == problem.answer, number, "")


def train_tokenizer(questions: list[str], path: Path) -> None:
    """A SentencePiece model of the questions' own words."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(questions),
        model_writer=model,
        model_type="bpe",
        vocab_size=8_000,
        hard_vocab_limit=False,
        num_threads=1,
        pad_id=PAD_ID,
        unk_id=1,
        bos_id=-1,
        eos_id=2,
        minloglevel=1,
    )
    path.write_bytes(model.getvalue())


def team(agents: int, rounds: int, answer: int) -> TeamSpec:
    """The debate: all answers of all rounds are read, as in the peers' conversations."""
    # Nothing ends an answer before its limit: of the model's tokens no text has this one.
    sampling = {"temperature": 1.0, "max_tokens": answer, "stop_ids": [MODEL.vocab_size - 1]}
    return TeamSpec.from_config(
        {
            "name": "debate",
            "agents": [
                {"id": f"agent-{i + 1}", "role": "answer", "sampling": sampling}
                for i in range(agents)
            ],
            "stages": [
                {"name": "opening"},
                {"name": "rebuttal", "view": {"rounds": "all"}, "instruction": ADVICE.strip()},
            ],
            "schedule": ["opening", {"repeat": ["rebuttal"], "max": rounds - 1, "min": rounds - 1}],
        }
    )


def main(folder: Path) -> None:
    state: dict[str, Any] = {}

    def prepare(questions: list[str], agents: int, rounds: int, answer: int, seed: int) -> dict:
        """Write model, tokenizer and the peers' work."""
        model = Transformer(MODEL, init_weights(MODEL, seed))
        export_hf(model, folder / "model")
        train_tokenizer(questions, folder / "tokenizer.model")
        tokenizer = Tokenizer(folder / "tokenizer.model")
        encoded = [tokenizer.encode(question) for question in questions]
        work = {
            "pad_id": PAD_ID,
            "agents": agents,
            "rounds": rounds,
            "answer": answer,
            "words": {
                "others": tokenizer.encode(OTHERS),
                "one": tokenizer.encode(ONE),
                "advice": tokenizer.encode(ADVICE),
            },
            "questions": encoded,
            "check": encoded[:4],
            "texts": questions,
        }
        (folder / "work.json").write_text(json.dumps(work))
        return {
            "parameters": sum(array.size for array in model.arrays().values()),
            "question_tokens": sum(map(len, encoded)) / len(encoded),
            "longest_question": max(map(len, encoded)),
        }

    def load(slots: int, problems: int) -> None:
        work = json.loads((folder / "work.json").read_text())
        tokenizer = Tokenizer(folder / "tokenizer.model")
        spec = team(work["agents"], work["rounds"], work["answer"])
        chat = PlainChat(tokenizer)
        longest = max(len(chat.question(text)) for text in work["texts"])
        said = work["agents"] * (work["rounds"] - 1) * (work["answer"] + 8)
        context = -(-(longest + said + 40 + work["answer"]) // 64) * 64
        model = load_hf(folder / "model", make_mesh(), ShardingRules())
        config = EngineConfig(
            length_classes=(context,),
            slots=slots,
            # Of each problem a question, and in two rounds a transcript and what is asked about it.
            prefixes=8 * problems,
            admit_rows=slots // 2,
            prefix_rows=2,
            chunk=8,
            # Five read each transcript, which is longer than what they add to it.
            grouped_prefixes=True,
            block_steps=16,
            max_stop_ids=1,
            prefill_tokens=2048,
            least_length=64,
        )
        state.update(work=work, spec=spec, chat=chat, tokenizer=tokenizer)
        state["engine"] = Engine(model, config, tokenizer)
        state["engine"].warm_up(top_logprobs=False)

    def run(first: int, count: int) -> dict[str, float]:
        work, engine = state["work"], state["engine"]
        problems = [
            Problem(f"p{i}", work["texts"][i], "", "gsm8k", "") for i in range(first, first + count)
        ]
        engine.cancel()
        started = time.perf_counter()
        debates = play(
            state["spec"],
            problems,
            {"policy": engine},
            state["chat"],
            state["tokenizer"],
            Numbers(),
            None,
            first,
        )
        seconds = time.perf_counter() - started
        calls = [call for debate in debates for call in debate.calls]
        wanted = work["agents"] * work["rounds"] * work["answer"] * count
        tokens = sum(len(call.gen_ids) for call in calls)
        if tokens < 0.99 * wanted:
            raise SystemExit(f"{tokens} tokens were generated where {wanted} were to be forced")
        return {
            "seconds": seconds / count,
            "prompt_tokens": sum(len(call.prompt_ids) for call in calls) / count,
            "prefilled": sum(debate.cost.prefill_tokens for debate in debates) / count,
            "generated": tokens / count,
        }

    def greedy() -> list[list]:
        sampling = SamplingParams(temperature=0.0, max_tokens=8)
        requests = [
            Request(str(i), tuple(prompt), 0, sampling, 0)
            for i, prompt in enumerate(state["work"]["check"])
        ]
        answers = state["engine"].generate(requests)
        return [[answer.ids for answer in answers], [answer.logprobs for answer in answers]]

    def about() -> dict[str, Any]:
        shape = dataclasses.asdict(MODEL)
        return {"kind": jax.devices()[0].device_kind, "versions": versions(), "model": shape}

    serve({"prepare": prepare, "load": load, "about": about, "greedy": greedy, "run": run})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
