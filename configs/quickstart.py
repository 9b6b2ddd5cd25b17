"""The main job: the embedded world, from nothing to a report in minutes on a laptop."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(arg: str = "") -> ConfigDict:
    """Every field of a run, with its reason; `arg` is not used."""
    c = ConfigDict()
    c.name = "quickstart"
    c.seeds = (0,)
    c.task = "embedded_world"
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
    c.synthesis.weights = "none"  # or the same: such examples count more, up to 3 times as much

    c.teacher = ConfigDict()
    c.teacher.contexts = ConfigDict({"rounds": "last", "agents": "correct", "most": 2})
    c.teacher.row_length = 208
    c.teacher.top_k = 16
    c.teacher.dtype = "float16"
    c.teacher.batch_rows = 16
    c.teacher.shard_rows = 256

    c.students = (
        "student_rsft",
        "student_da",
        "student_da_unverified",
        "student_logit",
        "control_single_agent",
        "control_no_debate",
    )
    c.student = ConfigDict()
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
    return c


def _train(steps: int, batch_rows: int, learning_rate: float, warmup_steps: int) -> ConfigDict:
    c = ConfigDict()
    c.steps = steps
    c.batch_rows = batch_rows
    c.chunk_tokens = 4096  # tokens whose logits exist at once; lower it for large vocabularies
    c.log_every = 10
    c.checkpoint_every = 50
    c.optimizer = ConfigDict()
    c.optimizer.learning_rate = learning_rate
    c.optimizer.warmup_steps = warmup_steps
    c.optimizer.final_fraction = 0.02
    c.optimizer.beta1 = 0.9
    c.optimizer.beta2 = 0.98
    c.optimizer.weight_decay = 0.1
    c.optimizer.clip_norm = 1.0
    c.optimizer.muon_learning_rate = 0.0  # AdamW alone
    return c
