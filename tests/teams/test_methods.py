"""What holds of every shipped method: options, costs, context, whom prompts name.

The methods themselves are followed call by call in the files test_methods_*.py beside this one.
"""

import ast
import os
import re
from pathlib import Path

import pytest

from arkjax import teams
from arkjax.errors import ConfigError
from arkjax.shipped import shipped_path
from arkjax.tasks.embedded_sets import EMBEDDED_SETS
from arkjax.teams.context import check_context
from arkjax.teams.team import total
from arkjax.text.chat import BylineChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.tools.python_runner import can_isolate

pytestmark = pytest.mark.fast

CONFIGS = sorted(shipped_path("configs/teams").glob("*.py"))
NAMES = [path.stem for path in CONFIGS]
# For each option a value that is no config's default.
OTHER = {
    "agents": "3",
    "aggregator": "b",
    "assistant": "bob",
    "checks": "3",
    "coders": "3",
    "critics": "ann+bob+cid",
    "drafts": "2",
    "experts": "ann+bob+cid+dan+eve",
    "fixes": "1",
    "iterations": "4",
    "layers": "4",
    "max_tokens": "32",
    "memory": "1",
    "models": "a+b",
    "n": "2",
    "nodes": "5",
    "others": "short+long",
    "plans": "3",
    "proposers": "ann+bob",
    "reach": "2",
    "reviews": "3",
    "right": "fine",
    "rounds": "4",
    "score": "9",
    "seed": "1",
    "sides": "ann+bob",
    "specify": "1",
    "stages": "3",
    "temperature": "0.9",
    "top": "3",
    "topology": "star",
    "trials": "2",
    "turns": "5",
    "user": "ann",
}
# Without one that draws, a seed has nothing to decide.
DRAWN = {("macnet", "seed"): "topology=random,nodes=6,"}


def known_options(name):
    with pytest.raises(ConfigError, match="no option 'unheard_of'") as error:
        teams.load(f"{name}:unheard_of=1")
    return re.search(r"known: (.*)", str(error.value))[1].split(", ")


def test_every_shipped_method_is_followed():
    followed = set()
    for path in Path(__file__).parent.glob("test_methods_*.py"):
        followed |= set(re.findall(r'follow\(\s*f?"(\w+)', path.read_text(encoding="utf-8")))
    assert followed == set(NAMES)


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_a_docstring_names_all_options_and_no_other(path):
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    listed = re.sub(r"\([^)]*\)", "", doc.rpartition("Options:")[2]).strip(" .\n")
    assert sorted(" ".join(listed.split()).replace(" ,", ",").split(", ")) == known_options(
        path.stem
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_option_changes_the_team(name):
    for option in known_options(name):
        base = f"{name}:{DRAWN.get((name, option), '')}"
        changed = teams.load(f"{base}{option}={OTHER[option]}")
        assert changed.hash != teams.load(base).hash, option
        for agent in changed.agents:
            if option == "max_tokens" and not agent.tool:
                # A manager says a name.
                assert agent.sampling.max_tokens == (16 if agent.id == "manager" else 32)
        if option == "temperature":
            heat = {agent.sampling.temperature for agent in changed.agents if not agent.tool}
            assert 0.9 in heat and heat <= {0.9, 0.0}


def test_all_fit_into_the_context_of_the_shipped_world():
    tokenizer = Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))
    problems = EMBEDDED_SETS.load("test")
    for name in NAMES:
        spec = teams.load(name)
        assert {agent.sampling.max_tokens for agent in spec.agents} <= {16, 64}
        check_context(spec, problems, BylineChat(tokenizer), 512)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        # All agree after the opening, or 3 rounds of 5; a synthesiser.
        ("agentark", 5 + 1, 3 * 5 + 1),
        ("agentark:rounds=2", 5 + 1, 2 * 5 + 1),
        # Recruit, solve, 2 critics, evaluate; twice with 2 reviews of 2 and 2 revisions.
        ("agentverse", 5, 2 * (1 + 1 + 2 * (2 + 1) + 1)),
        ("agentverse:critics=ann,turns=3,reviews=3", 4, 27),
        ("camel", 2, 6),
        ("camel:turns=50,specify=1", 3, 101),
        ("chain_of_thought", 1, 1),
        ("chatdev", 5, 3 + 2 * 2 + 2 * 2 + 1),
        ("chatdev:reviews=3,fixes=3", 5, 3 + 3 * 2 + 3 * 2 + 1),
        ("content_pipeline", 3, 7),
        # An opening, then checks and answers to them in turn.
        ("critic", 1 + 2, 1 + 2 * 2),
        ("critic:checks=3", 3, 1 + 3 * 2),
        ("debate", 8, 8),
        ("debate_judge", 9, 9),
        ("dylan", 4, 4 + 4 + 1 + 2),
        ("dylan:rounds=5", 4, 4 + 4 + 1 + 3 * 2),
        ("evomac", 1 + 2 + 1 + 1, 5 + (1 + 1 + 2)),
        ("evomac:iterations=5", 5, 5 + 4 * 4),
        # Two stages of two rounds of four, and two summaries between.
        ("group_debate", 18, 18),
        ("handover", 2, 4),
        ("judge", 5, 5),
        # Per node an actor, per edge a critic, the merger a node of its own.
        ("macnet", 4 + 3 + 1 + 1, 9),
        ("macnet:topology=star", 4 + 3 + 3 + 1, 11),
        ("macnet:topology=net", 4 + 6 + 1 + 1, 12),
        ("mad", 3, 2 * 3 + 2),
        ("mad:rounds=3", 3, 11),
        ("mapcoder", 1 + 2 * 2 + 1, 1 + 2 * 2 + 2 * 3),
        ("mapcoder:plans=3,fixes=5", 8, 25),
        ("mav", 4 + 4 * 5, 24),
        ("mixture_of_agents", 4 + 4 + 1, 9),
        ("mixture_of_agents:proposers=a+b+c+d+e+f,layers=2", 7, 7),
        ("mixture_of_agents:proposers=a+b+c+d+e+f", 13, 13),
        ("reconcile", 3, 3 + 3 * 3),
        ("reflexion", 1, 1 + 3 * 2),
        ("roles", 4, 4),
        # Asked up to three times who speaks next.
        ("selected_speaker", 1 * (3 + 1), 4 * (3 + 1)),
        ("self_consistency", 8, 8),
        ("self_refine", 2, 7),
        ("self_refine:iterations=4", 2, 9),
        ("sparse_debate:rounds=2", 8, 8),
        ("vanilla", 1, 1),
    ],
)
def test_numbers_of_calls(name, least, most):
    spec = teams.load(name)
    costs = [
        total(map(spec.cost, spec.unrolled(longest=longest))).calls for longest in (False, True)
    ]
    assert costs == [least, most]


def test_only_reflexion_looks_at_the_gold_answer():
    assert [name for name in NAMES if teams.load(name).uses_oracle] == ["reflexion"]


@pytest.mark.parametrize("name", NAMES)
def test_roles_and_instructions_reach_the_speaker_only(follow, name):
    """What is read of others are their words, under their own bylines or numbers."""
    spec = teams.load(name)
    if spec.tools and (reason := can_isolate()) and "ARKJAX_PARITY" not in os.environ:
        pytest.skip(reason)
    told = follow(name, {agent.id: f"so 1 {agent.id} speaks" for agent in spec.agents})
    # A role is a sentence or the byline, not an id.
    assert all(a.tool or " " in a.role or a.role == a.name for a in spec.agents)
    orders = {stage.instruction for stage in spec.stages} | {agent.role for agent in spec.agents}
    orders = {text for text in orders if " " in text}
    for prompt in told.prompts.values():
        transcript, _, header = prompt.rpartition("#")
        assert not any(text in transcript for text in orders)
        assert sum(text in header for text in orders) <= 2
        for byline, words in re.findall(r"#([^#:]+):([^#]*)", transcript):
            if byline != "tests":
                agent = spec.agent(re.fullmatch(r"so 1 (\S+) speaks", words)[1])
                assert byline in (agent.name, f"agent {spec.ids.index(agent.id) + 1}")


@pytest.mark.parametrize(
    ("name", "chooser", "where"),
    [
        ("handover", "triage", "role"),
        ("handover", "work", "instruction"),
        ("selected_speaker", "manager", "role"),
    ],
)
def test_who_can_be_chosen_is_listed_by_the_name_that_is_understood(name, chooser, where):
    spec = teams.load(f"{name}:experts=ann+bob+cid")
    text = spec.agent(chooser).role if where == "role" else spec.stage(chooser).instruction
    assert "ann, bob, cid" in text
    assert [agent.name for agent in spec.agents if "expert" in agent.tags] == ["ann", "bob", "cid"]


def test_what_is_out_of_range_is_refused():
    for name in (
        "dylan:rounds=2",
        "mad:rounds=0",
        "mixture_of_agents:layers=1",
        "self_refine:iterations=0",
        "chatdev:reviews=0",
        "evomac:iterations=0",
        "sparse_debate:rounds=0",
        "macnet:topology=cube",
        "macnet:nodes=0",
    ):
        with pytest.raises(ConfigError):
            teams.load(name)
