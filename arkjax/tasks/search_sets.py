"""The search world whose evaluation sets are shipped, and its problems."""

from arkjax.tasks.search_world import NAME, SearchWorldConfig, make_problems
from arkjax.tasks.world_sets import WorldSets

SHIPPED_SEARCH_WORLD = SearchWorldConfig(
    negative=False,
    items=3,
    ood_items=4,
    train_items=(2, 3, 4),
    document_items=(2, 3, 4),
    part_rates=(0.25, 0.35, 0.4),
    train_part_rates=(0.25, 0.35, 0.4),
    proposal_rate=0.3,
    bylines_rate=0.4,
    stray_rate=0.2,
    slip_rate=0.01,
    most_checks=5,
    earlier_weight=1.0,
)

# Not seed 0, on whose problems the settings of the shipped config were tried.
SEARCH_SETS = WorldSets(NAME, make_problems, SHIPPED_SEARCH_WORLD, seed=1)
