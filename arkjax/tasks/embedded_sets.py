"""The embedded world whose evaluation sets are shipped, and its problems."""

from arkjax.tasks.embedded_world import NAME, WorldConfig, make_problems
from arkjax.tasks.world_sets import WorldSets

SHIPPED_WORLD = WorldConfig(
    negative=False,
    items=3,
    ood_items=4,
    train_items=(2, 3),
    document_items=(2, 3, 4),
    discussion_steps=20,
    part_rates=(0.4, 0.3, 0.3),
    train_part_rates=(0.4, 0.3, 0.3),
    trap_rate=0.25,
    digit_skew=0.7,
    slip_rate=0.02,
    untagged_rate=0.3,
    byline_rate=0.3,
    expert_among_untagged=0.5,
    adoption_rate=0.9,
    earlier_weight=1.0,
)

EMBEDDED_SETS = WorldSets(NAME, make_problems, SHIPPED_WORLD, seed=0)
