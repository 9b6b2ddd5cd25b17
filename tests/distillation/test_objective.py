"""The grammar of sums of divergences, and what is refused."""

import pytest

from arkjax.distillation.objective import DIVERGENCES, Objective, Term
from arkjax.errors import ConfigError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    "text, terms",
    [
        ("none", ()),
        ("jsd", (Term(1.0, "jsd"),)),
        ("0.7*forward_kl + 0.3*jsd", (Term(0.7, "forward_kl"), Term(0.3, "jsd"))),
        ("forward_kl+reverse_kl", (Term(1.0, "forward_kl"), Term(1.0, "reverse_kl"))),
        (" 2 * tvd+1e-3*skew_rkl ", (Term(2.0, "tvd"), Term(0.001, "skew_rkl"))),
    ],
)
def test_terms(text, terms):
    objective = Objective(divergence=text)
    assert objective.terms == terms
    assert objective.needs_teacher == bool(terms)
    assert objective.divergence == text


def test_every_name_is_a_divergence():
    assert [Objective(divergence=name).terms for name in DIVERGENCES] == [
        (Term(1.0, name),) for name in DIVERGENCES
    ]


@pytest.mark.parametrize(
    "text, match",
    [
        ("js", "'js' where a name should be"),
        ("", "'' where a name should be"),
        ("jsd +", "'' where a name should be"),
        ("jsd + none", "'none' where a name should be"),
        ("0.5 jsd", "'0.5 jsd' where a name should be"),
        ("jsd*0.5", "'0.5' where a name should be"),
        ("x*jsd", "'x' before jsd"),
        ("*jsd", "'' before jsd"),
        ("0*jsd", "'0' before jsd"),
        ("-1*jsd", "'-1' before jsd"),
        ("nan*jsd", "'nan' before jsd"),
        ("inf*jsd", "'inf' before jsd"),
        ("2*3*jsd", "'2[*]3' before jsd"),
        ("jsd + 0.5*jsd", "names jsd twice"),
        (None, "expected a text"),
    ],
)
def test_what_is_no_sum_is_refused(text, match):
    with pytest.raises(ConfigError, match=match):
        Objective(divergence=text)
