"""The search world, from nothing to a report: where talk itself is what helps."""

from ml_collections import ConfigDict

from arkjax import config


def get_config(arg: str = "") -> ConfigDict:
    """The fields in which it differs from the quickstart; `arg` is not used."""
    c = config.load("quickstart")
    c.name = "search_quickstart"
    c.task = "search_world"
    c.tokenizer = "data/search_world/tokenizer.model"

    # The team practises on two to four items, and is tested on three, and on four of operations
    # that neither document nor practice mixes. Who has only checked three learns to stop there.
    c.world = ConfigDict()
    c.world.negative = False  # True: critics write by lot; every gain must vanish
    c.world.items = 3
    c.world.ood_items = 4
    c.world.train_items = (2, 3, 4)
    c.world.document_items = (2, 3, 4)
    c.world.part_rates = (0.25, 0.35, 0.4)  # the common guess is right; one off; further off
    c.world.train_part_rates = (0.25, 0.35, 0.4)
    c.world.proposal_rate = 0.3
    c.world.bylines_rate = 0.4
    c.world.stray_rate = 0.2
    c.world.slip_rate = 0.01
    c.world.most_checks = 5
    c.world.earlier_weight = 1.0

    c.model.vocab_size = 224
    c.base.row_length = 280  # the longest discussion of four items
    c.base.train.batch_rows = 16
    c.base.train.steps = 240  # checks are learned soon
    c.base.train.optimizer.warmup_steps = 30

    # Whole searches, of the team and of a student in one call.
    c.engine.length_classes = (56, 216, 512)

    # Proposals and checks until the critic finds one right, or five checks are done.
    c.team = "critic:checks=5,max_tokens=40"
    c.sample.problems = 800
    c.sample.single = "vanilla:max_tokens=256"
    c.sample.samples = "self_consistency:max_tokens=40"
    c.sample.roles = "roles:experts=solver+critic,max_tokens=40"

    # The way to the answer is what a student is to learn, and the answer alone teaches nothing.
    c.synthesis.steps = "clause"

    c.students = (
        "student_deliberation",
        "student_deliberation_unverified",
        "student_rsft",
        "control_single_agent",
        "control_no_debate",
    )
    c.student.row_length = 280
    for phase in (c.student.on_policy, c.student.policy):
        phase.rollouts.max_tokens = 256
        phase.rollouts.row_length = 320
    c.student.train.steps = 120
    c.student.train.optimizer.learning_rate = 1e-3
    return c
