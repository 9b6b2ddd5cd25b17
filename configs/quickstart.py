"""The main job: the embedded world, from nothing to a report in minutes on a laptop."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(arg: str = "") -> ConfigDict:
    """Every field of a run, with its reason; `arg` is not used."""
    c = ConfigDict()
    c.name = "quickstart"
    c.seeds = (0,)
    c.task = "embedded_world"
    c.source = ""  # where a published data set lies; the world is made here
    c.tokenizer = "data/embedded_world/tokenizer.model"

    # The world: the team practises on two or three items, and is tested on three, and on four of
    # domains that no document mixes.
    c.world = ConfigDict()
    c.world.negative = False  # True: experts share the laymen's errors; every gain must vanish
    c.world.items = 3
    c.world.ood_items = 4
    c.world.train_items = (2, 3)
    c.world.document_items = (2, 3, 4)
    c.world.discussion_steps = 20
    c.world.part_rates = (0.4, 0.3, 0.3)  # no trap; in one domain; in several
    c.world.train_part_rates = (0.1, 0.3, 0.6)  # the team practises what no single role can solve
    c.world.trap_rate = 0.30
    c.world.digit_skew = 0.7  # small numbers are commoner in text; problems draw all digits alike
    c.world.slip_rate = 0.01
    c.world.untagged_rate = 0.25
    c.world.byline_rate = 0.30
    c.world.expert_among_untagged = 0.12
    c.world.adoption_rate = 0.92
    c.world.earlier_weight = 1.0

    # 0.54M parameters: plays every agent, and is where every student starts.
    c.model = ConfigDict()
    c.model.vocab_size = 192
    c.model.d_model = 128
    c.model.num_layers = 3
    c.model.num_heads = 4
    c.model.num_kv_heads = 2
    c.model.head_dim = 32
    c.model.d_ff = 320
    c.model.rope_theta = 10_000.0
    c.model.norm_eps = 1e-6
    c.model.qk_norm = True
    c.model.tie_embeddings = True
    c.model.max_context = 512
    c.model.dtype = "float32"
    c.model.param_dtype = "float32"
    c.model.remat = False
    c.model.scan_unroll = 3  # all layers: loop bodies are slow on CPU; deep models keep 1

    c.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    c.sharding = ConfigDict()
    c.sharding.layers = placeholder(str)  # whole
    c.sharding.embed = "fsdp"
    c.sharding.heads = "tensor"
    c.sharding.kv_heads = "tensor"
    c.sharding.mlp = "tensor"
    c.sharding.vocab = "tensor"

    # Contexts: of bare prompts, and of transcripts.
    c.engine = ConfigDict()
    c.engine.length_classes = (56, 216, 512)
    c.engine.slots = 256
    c.engine.prefixes = 256
    c.engine.admit_rows = 64
    c.engine.prefix_rows = 16
    c.engine.chunk = 8
    c.engine.block_steps = 16
    c.engine.max_stop_ids = 1
    c.engine.cache = "model"  # or "int8": keys and values in a quarter of their bytes, or half
    c.engine.weights = "model"  # or "int8": the same for the layers' matrices

    c.base = ConfigDict()
    c.base.checkpoint = ""
    c.base.row_length = 208
    c.base.train = _train(steps=400, batch_rows=20, learning_rate=8e-3, warmup_steps=50)
    c.base.train.optimizer.muon_learning_rate = 0.02
    c.base.train.checkpoint_every = 100

    # Four experts answer, read one another, answer again; their last answers are counted.
    c.team = "debate:rounds=2,max_tokens=36"
    c.sample = ConfigDict()
    c.sample.problems = 1000  # few, seen often, teach three items at the expense of four
    c.sample.single = "vanilla:max_tokens=36"
    c.sample.samples = "self_consistency:max_tokens=36"
    c.sample.roles = "roles:max_tokens=36"

    c.synthesis = ConfigDict()
    c.synthesis.max_traces = 2
    c.synthesis.min_agreeing = 2
    c.synthesis.prefer_corrective = True
    c.synthesis.gate = "gold"  # each strategy sets its own; "team" never looks at the gold answer
    # Who contributed what: "flips" asks no model; ("flips", "influence", "shapley") does.
    c.synthesis.attribution = ConfigDict()
    c.synthesis.attribution.kinds = ("flips",)
    c.synthesis.attribution.problems = 0  # about which the model is asked; 0: all
    c.synthesis.prefer = "none"  # or "influence", "shapley", "corrected": such traces first
    c.synthesis.weights = "none"  # or these, or "agreement": such examples count up to 3 times
    # What becomes of a problem's traces: "none", examples as they are; "best", "corrective",
    # "consolidated", "synthesizer", "deliberation" make one voice of them. Strategies of these
    # names set it.
    c.synthesis.form = "none"
    c.synthesis.fallback = True  # where a form cannot be had, the best trace as it is
    c.synthesis.steps = "auto"
    c.synthesis.correction = "no ;"  # between an error and its correction, in this world's words
    c.synthesis.between = ";"  # between two messages of a deliberation
    c.synthesis.attempts = "learned"  # or "shown": its wrong answers then have weight 0
    c.synthesis.diversity = "ngrams"  # or "steps", "hidden"
    c.synthesis.near_duplicates = 0.0  # similarity from which examples count as one; 0: all stay
    c.synthesis.balance = "none"  # or "problems": all weigh the same
    c.synthesis.max_per_difficulty = 0  # most problems of each fifth of difficulty; 0: all
    c.synthesis.foreign = "leave_out"  # or "reencode": words of models with other tokenizers

    c.teacher = ConfigDict()
    # Role and transcript of the last round, of agents that were right there.
    c.teacher.contexts = ConfigDict({"rounds": "last", "agents": "correct", "most": 2})
    c.teacher.contexts.speakers = "all"  # or "debaters", "judge"
    c.teacher.contexts.weights = "uniform"  # "correctness", "accuracy", "attribution", "consensus"
    c.teacher.contexts.credit = "corrected"  # what "attribution" ranks
    c.teacher.contexts.mixture = "geometric"  # or "arithmetic"
    c.teacher.contexts.gate = "none"  # or "verified", "consensus": which examples
    c.teacher.contexts.agreement = 0.5
    c.teacher.contexts.token_gate = "none"  # or "consensus": which tokens
    c.teacher.contexts.token_agreement = 0.5
    c.teacher.tape = "top_k"  # or "sampled", "hidden"
    c.teacher.draws = 12  # of a sampled tape
    c.teacher.row_length = 416  # holds all that a problem's contexts share, and their branches
    c.teacher.top_k = 16
    c.teacher.dtype = "float16"
    c.teacher.batch_rows = 16
    c.teacher.shard_rows = 256

    c.students = (
        "student_rsft",
        "student_rsft_unverified",
        "student_da",
        "student_da_unverified",
        "student_sequence+logit",
        "control_single_agent",
        "control_no_debate",
        "control_answer_only",
    )
    c.student = ConfigDict()
    # One student in place of these: ("rsft",), or phases one after the other: ("rsft", "da").
    c.student.strategy = ()
    c.student.held_out = (
        0  # validation problems by which the best checkpoint is chosen; 0: the last
    )
    c.student.lora = None  # or ConfigDict({"rank": 16, "alpha": 32.0}): adapters only
    c.student.base_quantization = "none"  # under adapters also "int8" or "nf4"
    c.student.row_length = 128
    # A short, gentle training: the skills are there, and a longer one forgets long problems.
    c.student.train = _train(steps=60, batch_rows=16, learning_rate=3e-4, warmup_steps=6)
    c.student.objective = ConfigDict()
    c.student.objective.cross_entropy = 1.0
    c.student.objective.divergence = "forward_kl"
    c.student.objective.weight = 0.5
    c.student.objective.kd_temperature = 1.0
    c.student.objective.beta = 0.5
    c.student.objective.alpha = 0.1
    c.student.objective.scale_by_temperature_squared = False
    c.student.objective.normalize = False
    c.student.objective.token_clip = placeholder(float)  # none

    # Strategy "on_policy": half of the traces give way to the student's own answers.
    c.student.on_policy = ConfigDict()
    c.student.on_policy.own = ConfigDict({"own_share": 0.5})
    c.student.on_policy.own.own_share_end = placeholder(float)  # at the last step; none: the same
    c.student.on_policy.own.importance_cap = placeholder(float)
    c.student.on_policy.divergence = "reverse_kl"
    c.student.on_policy.weight = 0.5
    c.student.on_policy.rollouts = _rollouts(prompts=32, samples=1)
    c.student.on_policy.train = _train(60, 16, learning_rate=3e-4, warmup_steps=6)

    # Strategies "pad" and "grpo": from rewards of own answers, with and without those of steps.
    c.student.reward_model = ConfigDict()
    c.student.reward_model.labels = ConfigDict({"source": "peers", "gate": "gold"})
    c.student.reward_model.labels.steps = "auto"
    c.student.reward_model.labels.content = "numbers"
    c.student.reward_model.labels.hard = False
    c.student.reward_model.labels.min_references = 2
    c.student.reward_model.labels.negatives = 4
    c.student.reward_model.labels.rollouts = 8  # of source "rollouts", for each step
    c.student.reward_model.labels.rollout_temperature = 1.0
    c.student.reward_model.labels.rollout_tokens = 36
    c.student.reward_model.loss = "bce"  # or "contrastive", which only ranks steps; "implicit"
    c.student.reward_model.temperature = 0.1
    c.student.reward_model.beta = 0.05
    c.student.reward_model.head_epochs = 1
    c.student.reward_model.epochs = 2
    c.student.reward_model.batch_rows = 16
    c.student.reward_model.row_length = 128
    c.student.reward_model.aggregation = "min"
    c.student.reward_model.optimizer = _optimizer(learning_rate=1e-3, warmup_steps=10)
    c.student.policy = ConfigDict()
    c.student.policy.grpo = ConfigDict()
    c.student.policy.grpo.std = True
    c.student.policy.grpo.aggregation = "token"
    c.student.policy.grpo.ratio = "token"
    c.student.policy.grpo.clip_low = 0.2
    c.student.policy.grpo.clip_high = 0.28
    c.student.policy.grpo.importance_cap = placeholder(float)
    c.student.policy.grpo.drop_zero_variance = True
    c.student.policy.grpo.resample_rounds = 0  # other problems for groups of equal rewards
    c.student.policy.grpo.overlong_share = 0.0
    c.student.policy.grpo.kl_coefficient = 0.0
    c.student.policy.grpo.kl = "exact"
    c.student.policy.grpo.outcome_weight = 1.0
    c.student.policy.grpo.process_weight = 0.2
    c.student.policy.rollouts = _rollouts(prompts=16, samples=8)
    c.student.policy.train = _train(40, 16, learning_rate=5e-4, warmup_steps=4)

    # Who plays the team: "base", or the name of a model behind a server, described in remotes:
    # c.remotes = ConfigDict({"big": {"url": "http://127.0.0.1:8000/v1", "model": "my-model"}})
    # Further models on the same devices: {"other": {"checkpoint": "hf:owner/name"}}. Agents name
    # their model; where fewer are held at once than there are, models take turns.
    c.policy = "base"
    c.remotes = ConfigDict()
    c.models = ConfigDict()
    c.models_at_once = 1
    c.chat = "auto"  # the checkpoint's template; without one bylines here, plain text elsewhere
    c.chat_variables = ConfigDict()  # for the template, such as enable_thinking

    c.evaluation = ConfigDict()
    c.evaluation.splits = ("test", "ood")
    c.evaluation.limit = 0  # all: 1,000 problems each
    # How systems reason: steps are checked, and so many of the team's right messages are scored.
    c.evaluation.quality = ConfigDict({"proxies": True, "traces": 200})
    # A model that scores answers by a rubric, such as {"player": "base"} or the name of a remote;
    # with "correctness" it also says which are right, beside the task's grader.
    c.evaluation.judge = None
    return c


def _rollouts(prompts: int, samples: int) -> ConfigDict:
    c = ConfigDict({"prompts": prompts, "samples": samples})
    c.max_tokens = 36
    c.row_length = 128
    c.temperature = 1.0
    c.refresh_steps = 1  # steps for which the sampler keeps its weights
    c.rows = 0  # as many as any answers could need
    c.micro_rows = 0  # rows whose activations exist at once; 0: all of them
    return c


def _train(steps: int, batch_rows: int, learning_rate: float, warmup_steps: int) -> ConfigDict:
    c = ConfigDict()
    c.steps = steps
    c.batch_rows = batch_rows
    c.chunk_tokens = 4096  # tokens whose logits exist at once; lower it for large vocabularies
    c.log_every = 10
    c.checkpoint_every = 50
    c.micro_rows = 0  # rows whose activations exist at once; 0: all of them
    c.patience = 0  # looks at held-out problems without a new best before it stops; 0: never
    c.optimizer = _optimizer(learning_rate, warmup_steps)
    return c


def _optimizer(learning_rate: float, warmup_steps: int) -> ConfigDict:
    c = ConfigDict()
    c.learning_rate = learning_rate
    c.warmup_steps = warmup_steps
    c.final_fraction = 0.02
    c.beta1 = 0.9
    c.beta2 = 0.98
    c.weight_decay = 0.1
    c.clip_norm = 1.0
    c.muon_learning_rate = 0.0  # AdamW alone
    return c
