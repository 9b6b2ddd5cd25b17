"""The quickstart in miniature, for tests: every stage in a few minutes, problems of two items."""

from ml_collections import ConfigDict

from arkjax import config


def get_config(arg: str = "") -> ConfigDict:
    """The fields in which it differs from the quickstart; `arg` is not used."""
    c = config.load("quickstart")
    c.name = "tiny"

    # Documents without slips, half of their items traps: little text teaches the whole world.
    c.world.items = 2
    c.world.ood_items = 3
    c.world.train_items = (2,)
    c.world.document_items = (2,)
    c.world.discussion_steps = 10
    c.world.part_rates = (0.3, 0.3, 0.4)
    c.world.untagged_rate = 0.15
    c.world.byline_rate = 0.25
    c.world.trap_rate = 0.5
    c.world.slip_rate = 0.0
    c.world.adoption_rate = 1.0
    c.world.earlier_weight = 1.0

    c.model.max_context = 192

    c.engine.length_classes = (48, 180)
    c.engine.slots = 64
    c.engine.prefixes = 64
    c.engine.admit_rows = 32

    c.base.row_length = 128
    c.base.train.steps = 320
    c.base.train.batch_rows = 16

    c.team = "debate:rounds=2,max_tokens=30"
    c.sample.problems = 60
    c.sample.single = "vanilla:max_tokens=30"
    c.sample.samples = "self_consistency:max_tokens=30"
    c.sample.roles = "roles:max_tokens=30"

    c.teacher.row_length = 320
    c.teacher.shard_rows = 16

    # The report says which twin and which control are missing.
    c.students = (
        "student_rsft",
        "student_da",
        "student_da_unverified",
        "student_sequence+logit",
        "control_single_agent",
        "control_no_debate",
    )
    c.student.row_length = 96
    c.student.train.steps = 30
    c.student.train.batch_rows = 8
    c.student.train.checkpoint_every = 10
    c.student.train.optimizer.warmup_steps = 3
    for phase in (c.student.on_policy, c.student.policy):
        phase.train.steps = 6
        phase.train.checkpoint_every = 3
        phase.rollouts.prompts = 8
        phase.rollouts.max_tokens = 30
        phase.rollouts.row_length = 96
    c.student.policy.rollouts.samples = 4
    c.student.reward_model.row_length = 96
    c.student.reward_model.batch_rows = 8
    c.student.reward_model.labels.rollouts = 2
    c.student.reward_model.labels.rollout_tokens = 30

    c.evaluation.limit = 80
    return c
