"""The grid of the AgentArk paper (arXiv 2602.03955) on the benchmarks and models that it names.

One point of it is `--config agentark:teacher=Qwen3-32B,student=Qwen3-8B,dataset=gsm8k,strategy=da`.
Options:

- teacher: plays the team: Qwen3-32B, Qwen3-8B, Gemma-3-27B-it.
- student: what is trained: Qwen3-8B, Qwen3-1.7B, Qwen3-0.6B, Llama-3-8B-Instruct, Gemma-7B.
- dataset: what the team practises on: gsm8k, medmcqa, metamath_qa, math.
- strategy: rsft, da, pad, or phases one after the other: rsft+da, pad+da. Others of
  `arkjax.synthesis.strategies` work too, but those that learn the team's distributions only where
  teacher and student are the same model.
- tests: what is evaluated, joined by "+": gsm8k, medmcqa, math, math_500, svamp, aqua, hotpotqa,
  qasper, qmsum, truthfulqa, truthfulqa_mc. The paper's tables have gsm8k+medmcqa; of transfer it
  shows hotpotqa+qasper+qmsum, whose long documents need a larger `context`, and truthfulqa.
- agents, rounds: of the debate; the paper has 5 agents, 10 and 20 in a study, and 3 rounds.
- temperature: of all that the team says.
- max_tokens: of each answer.
- context: tokens that the models hold; 0 takes what the debate can need.
- problems: that the team practises on; 0 takes as many as the paper.
- lora: rank of the student's adapters; 0 trains all weights.

Teacher and student may be of different families: the team's words are then encoded anew for the
student, since it has other tokens (`config.synthesis.foreign`).

Each value has its source: the paper with its section; "repository", the commands and defaults that
the README of its code gives (github.com/AIFrontierLab/AgentArk); "ours" where both are silent.
"""

import dataclasses
import math

from ml_collections import ConfigDict

from arkjax.config import load, nearest, to_dict
from arkjax.errors import ConfigError
from arkjax.models import presets
from arkjax.synthesis.strategies import PHASES, stack
from arkjax.teams.arguments import options

# By the paper's names (section 4.1): where the weights are, and their shape.
MODELS = {
    "Qwen3-32B": ("hf:Qwen/Qwen3-32B", presets.qwen3_32b),
    "Qwen3-8B": ("hf:Qwen/Qwen3-8B", presets.qwen3_8b),
    "Qwen3-1.7B": ("hf:Qwen/Qwen3-1.7B", presets.qwen3_1_7b),
    "Qwen3-0.6B": ("hf:Qwen/Qwen3-0.6B", presets.qwen3_0_6b),
    "Gemma-3-27B-it": ("hf:google/gemma-3-27b-it", presets.gemma3_27b),
    "Gemma-7B": ("hf:google/gemma-7b", presets.gemma_7b),
    "Llama-3-8B-Instruct": ("hf:meta-llama/Meta-Llama-3-8B-Instruct", presets.llama3_8b),
}
TEACHERS = ("Qwen3-32B", "Qwen3-8B", "Gemma-3-27B-it")
STUDENTS = ("Qwen3-8B", "Qwen3-1.7B", "Qwen3-0.6B", "Llama-3-8B-Instruct", "Gemma-7B")
STRATEGIES = ("rsft", "da", "pad", "rsft+da", "pad+da")

# Problems of each training set (Table 3; MedMCQA's 183k exactly), and about how many tokens a
# right answer to one has (ours), which only says how long training is.
DATASETS = {
    "gsm8k": (7_473, 400),
    "medmcqa": (182_822, 400),
    "metamath_qa": (151_000, 400),
    "math": (500, 800),
}
# The split of each test whose answers are public.
TESTS = {
    "gsm8k": "test",
    "medmcqa": "validation",
    "math": "test",
    "math_500": "test",
    "svamp": "test",
    "aqua": "test",
    "hotpotqa": "validation",
    "qasper": "test",
    "qmsum": "test",
    "truthfulqa": "validation",
    "truthfulqa_mc": "validation",
}

TRACES = 3  # k in {1, 2, 3} (section 3.3.2)
ROWS, ROW_LENGTH = 16, 2048  # ours; the paper names "a global batch size of 4" (appendix D.3)
QUESTION = 1024  # tokens of the longest question with its headers; ours


def get_config(arg: str = "") -> ConfigDict:
    """One point of the grid."""
    o = options(
        arg,
        teacher="Qwen3-32B",
        student="Qwen3-0.6B",
        dataset="gsm8k",
        strategy="pad",
        tests=("gsm8k", "medmcqa"),  # section 4.2
        agents=5,  # appendix A.2
        rounds=3,  # appendix A.2
        temperature=0.5,  # repository
        max_tokens=1024,  # ours; the repository's limit is 4,096
        context=0,
        problems=0,
        lora=0,  # the paper names no adapters
    )
    for name, value, known in (
        ("teacher", o.teacher, TEACHERS),
        ("student", o.student, STUDENTS),
        ("dataset", o.dataset, DATASETS),
        *(("tests", test, TESTS) for test in o.tests),
    ):
        if value not in known:
            raise ConfigError(
                f"argument {arg!r}: {name} is {value!r}{nearest(value, list(known))}: there are "
                f"{', '.join(known)}"
            )
    for name, least in (("agents", 1), ("rounds", 1), ("max_tokens", 1), ("problems", 0)):
        if getattr(o, name) < least:
            raise ConfigError(
                f"argument {arg!r}: {name} is {getattr(o, name)}: expected {least} or more"
            )
    student = _student(arg, o.strategy)

    c = load("quickstart")  # for all that is not named here
    c.name = f"agentark-{o.teacher}-{o.student}-{o.dataset}-{o.strategy}".replace("+", "-then-")
    c.seeds = (0,)  # the paper names none; three give intervals, at three times the cost
    c.task = o.dataset
    with c.unlocked():
        c.source = ""  # where its files lie; empty: where the task looks for them

    # --- models ---
    checkpoint, shape = MODELS[o.student]
    c.base.checkpoint = checkpoint
    c.tokenizer = ""  # the checkpoint's
    c.model = ConfigDict(to_dict(dataclasses.replace(shape(), remat=True)))
    c.chat = "auto"  # a checkpoint without a template, such as Gemma-7B, gets plain text
    c.chat_variables = _variables(o.student)
    if o.teacher != o.student:
        c.policy = "teacher"
        c.models = ConfigDict(
            {
                "teacher": {
                    "checkpoint": MODELS[o.teacher][0],
                    "chat_variables": _variables(o.teacher),
                }
            }
        )
    c.models_at_once = 1  # teacher and student take turns

    # --- devices; ours ---
    c.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})
    # The synthesiser reads every agent's last answer, and each agent its own and all others'.
    needed = QUESTION + (o.agents + 1) * (o.max_tokens + 32)
    context = o.context or 1024 * math.ceil(needed / 1024)
    least = min((o.student, o.teacher), key=lambda name: MODELS[name][1]().max_context)
    if context > (held := MODELS[least][1]().max_context):
        raise ConfigError(
            f"argument {arg!r}: {o.agents} agents who each say up to {o.max_tokens} tokens need "
            f"contexts of {context}, but {least} holds {held}: lower agents or max_tokens"
        )
    c.engine.length_classes = tuple(sorted({min(2048, context), context}))
    c.engine.slots = 32
    c.engine.prefixes = 32
    c.engine.admit_rows = 16
    c.engine.prefix_rows = 4
    c.engine.chunk = 128
    c.engine.block_steps = 32
    c.engine.max_stop_ids = 4

    # --- the debate (section 3.2, appendix A.2): agents without roles, and one who sums up ---
    said = f"temperature={o.temperature},max_tokens={o.max_tokens}"
    c.team = f"agentark:agents={o.agents},rounds={o.rounds},{said}"
    c.sample.problems = o.problems or DATASETS[o.dataset][0]
    c.sample.single = f"vanilla:max_tokens={o.max_tokens}"
    c.sample.samples = f"self_consistency:{said}"
    # Without roles, a debate without its debate is as many answers to the bare question.
    c.sample.roles = f"roles:experts=answer,agents={o.agents},{said}"

    # --- which answers are learned (section 3.2, appendices A.3 and A.4) ---
    c.synthesis.max_traces = TRACES
    c.synthesis.min_agreeing = 2  # appendix A.3
    c.synthesis.prefer_corrective = True  # section 3.2, "prioritize corrective trajectories"
    c.synthesis.gate = "gold"  # graders, where the paper asks Qwen2.5-72B-Instruct
    c.synthesis.diversity = "ngrams"  # ours, where the paper asks Qwen2.5-72B-Instruct
    c.synthesis.correction = "\n\nWait, that is not right.\n\n"  # of the form "corrective" alone
    c.synthesis.foreign = "reencode"  # section 4.2, "cross-family distillation"

    # --- RSFT and DA (sections 3.3.1 and 3.3.2); the paper names no hyper-parameters: ours ---
    c.students = (student, *_controls(o.strategy))
    c.student.row_length = ROW_LENGTH
    tokens = c.sample.problems * TRACES * DATASETS[o.dataset][1]
    # Once over DA's traces, which is three times over RSFT's single ones.
    c.student.train.steps = max(2, math.ceil(tokens / (ROWS * ROW_LENGTH)))
    c.student.train.batch_rows = ROWS
    c.student.train.micro_rows = ROWS // 2
    c.student.train.chunk_tokens = 1024  # vocabularies of up to 262,144
    c.student.train.checkpoint_every = 200
    _optimizer(c.student.train.optimizer, learning_rate=1e-5, warmup_steps=20)
    if o.lora:
        c.student.lora = ConfigDict({"rank": o.lora, "alpha": 2.0 * o.lora})
        c.student.train.optimizer.learning_rate = 1e-4
    # Of strategies that learn distributions.
    c.teacher.row_length = context
    c.teacher.top_k = 64
    c.student.on_policy.rollouts.update({"max_tokens": o.max_tokens, "row_length": ROW_LENGTH})
    c.student.on_policy.train = c.student.train

    # --- PAD, its reward model (section 3.3.3, appendix B.1) ---
    model = c.student.reward_model
    model.loss = "contrastive"  # eq. 7
    model.temperature = 0.1  # ours: tau is not named
    model.head_epochs, model.epochs = 1, 2  # repository: 3 epochs; their division is ours
    model.batch_rows = 64  # repository
    model.row_length = ROW_LENGTH  # ours
    model.optimizer.learning_rate = 1e-4  # repository
    model.optimizer.warmup_steps = 0  # repository
    model.optimizer.weight_decay = 0.1  # repository
    model.optimizer.beta2 = 0.95  # repository
    model.labels.source = "peers"  # appendix B.1: the consensus's step against other agents'
    model.labels.content = "numbers" if o.dataset != "medmcqa" else "words"  # ours
    model.labels.rollout_tokens = o.max_tokens

    # --- PAD, its policy (section 3.3.3) ---
    grpo = c.student.policy.grpo
    grpo.std = True  # eq. 5
    grpo.aggregation = "sequence"  # eq. 3: the mean over the answers of a group
    grpo.clip_low = grpo.clip_high = 0.2  # eq. 4; the default of the library that they use
    grpo.drop_zero_variance = False
    grpo.kl_coefficient = 1e-3  # repository
    grpo.kl = "exact"  # ours
    grpo.outcome_weight = 1.0  # repository: reward mode PRMVR, coefficient of the outcome 1
    grpo.process_weight = 1.0  # eq. 5
    answers = c.student.policy.rollouts
    answers.samples = 8  # repository
    answers.temperature = 0.5  # repository
    # Repository: rollouts of 64 problems, from which steps of 128 answers are made: four steps of
    # 16 problems with the weights of their first.
    answers.prompts, answers.refresh_steps = 16, 4
    answers.max_tokens = o.max_tokens
    answers.row_length = ROW_LENGTH
    answers.micro_rows = ROWS
    train = c.student.policy.train
    train.steps = max(2, math.ceil(c.sample.problems / answers.prompts))  # repository: 1 episode
    train.chunk_tokens = 1024
    train.checkpoint_every = 100
    _optimizer(train.optimizer, learning_rate=5e-7, warmup_steps=10)  # repository: the rate

    # --- tests ---
    c.evaluation.splits = tuple(
        TESTS[name] if name == o.dataset else f"{name}:{TESTS[name]}" for name in o.tests
    )
    c.evaluation.limit = 0
    return c


def _student(arg: str, strategy: str) -> str:
    # A phase of this name has the sign that joins phases.
    both = "sequence+logit"
    phases = [p.replace("&", "+") for p in strategy.replace(both, "sequence&logit").split("+")]
    for phase in phases:
        if phase not in PHASES:
            raise ConfigError(
                f"argument {arg!r}: strategy is {strategy!r}{nearest(phase, list(PHASES))}: write "
                f"one of {', '.join(STRATEGIES)}, or other phases joined by '+'"
            )
    return stack(phases).student


def _controls(strategy: str) -> tuple[str, ...]:
    """What the student is compared with: answers alone (appendix G.1); the others are ours."""
    twin = f"student_{strategy}_unverified"
    twins = (twin,) if twin.removeprefix("student_") in PHASES else ()
    controls = ("control_single_agent", "control_no_debate", "control_answer_only")
    return (*twins, *(name for name in controls if name != f"control_{strategy}"))


def _variables(model: str) -> ConfigDict:
    """Ours: Qwen3 answers at once, as the other families do; the paper does not say."""
    return ConfigDict({"enable_thinking": False} if model.startswith("Qwen3") else {})


def _optimizer(c: ConfigDict, learning_rate: float, warmup_steps: int) -> None:
    c.learning_rate = learning_rate
    c.warmup_steps = warmup_steps
    c.final_fraction = 0.1
    c.beta1, c.beta2 = 0.9, 0.95
    c.weight_decay = 0.0
    c.clip_norm = 1.0
