"""Rules on how a mixture is held."""

import pytest

from metatune.recipe import reading


@pytest.mark.parametrize(
    ("mixture", "lines"),
    [
        (
            {"production_tokens": 5, "available_tokens": {"prose": 0, "drama": 7}},
            [
                "tune.mixture.production_tokens = 5: has no effect without "
                "tune.mixture.max_epochs; write max_epochs, or take it out",
                "tune.mixture.available_tokens = {'prose': 0, 'drama': 7}: has no effect without "
                "tune.mixture.max_epochs; write max_epochs, or take it out",
                "tune.mixture.available_tokens.prose = 0: must be a whole number of 1 or above; "
                "take a domain without text out of data.domains",
                "tune.mixture.available_tokens.drama = 7: unknown domain; allowed: code, prose, "
                "maths",
            ],
        ),
        (
            {"max_epochs": 0, "kl": -1, "smoothness": -0.1},
            [
                "tune.mixture.max_epochs = 0.0: must be a number above 0; leave it out for the "
                "default, null",
                "tune.mixture.kl = -1.0: must be 0 or above; leave it out for the default, 0.0",
                "tune.mixture.smoothness = -0.1: must be 0 or above; leave it out for the "
                "default, 0.0",
            ],
        ),
        (
            {"groups": {"web": ["prose", "coda"], "none": [], "text": ["prose", "maths"]}},
            [
                "tune.mixture.groups.web = ['prose', 'coda']: domain prose is named 2 times in "
                "the groups; name it once",
                "tune.mixture.groups.web = ['prose', 'coda']: unknown domain; did you mean code? "
                "(allowed: code, prose, maths)",
                "tune.mixture.groups.none = []: names no domain; name one or more, or take it out",
                "tune.mixture.groups.text = ['prose', 'maths']: domain prose is named 2 times in "
                "the groups; name it once",
            ],
        ),
        (
            {"groups": {"all": ["prose", "maths", "code"]}},
            [
                "tune.mixture.groups.all = ['prose', 'maths', 'code']: holds every domain: its "
                "share is always one; name two groups or more, or take groups out",
            ],
        ),
        (
            {"prior": {"code": 1, "prose": 0, "poems": 1}},
            [
                "tune.mixture.prior = {'code': 1.0, 'prose': 0.0, 'poems': 1.0}: has no effect "
                "without tune.mixture.kl; write kl, e.g. kl: 0.01, or take it out",
                "tune.mixture.prior.prose = 0.0: must be above 0: what the prior excludes is "
                "infinitely far from it; take a small one, e.g. 0.001",
                "tune.mixture.prior.poems = 1.0: unknown domain; did you mean prose? "
                "(allowed: code, prose, maths)",
                "tune.mixture.prior = {'code': 1.0, 'prose': 0.0, 'poems': 1.0}: lacks the "
                "domains: maths; write a share for each domain, or leave prior out for the "
                "initial mixture",
            ],
        ),
        (
            {"kl": 0.1, "floor": 0.2, "prior": {"code": 8, "prose": 1, "maths": 3}},
            [
                "tune.mixture.prior.prose = 1.0: a share of 0.08333, which tune.mixture.floor, "
                "0.2, keeps the mixture from; raise it, or lower the floor",
            ],
        ),
        (
            {"smoothness": 0.5},
            [
                "tune.mixture.smoothness = 0.5: has no effect on a single window; raise "
                "tune.mixture.windows, or take it out",
            ],
        ),
        ({"max_epochs": 4, "production_tokens": "5e9", "groups": {"text": ["prose", "code"]}}, []),
        ({"kl": 0.1, "prior": {"code": 2, "prose": 1, "maths": 1}}, []),
    ],
)
def test_what_holds_a_mixture_makes_sense(tree, mixture, lines):
    tree["data"]["domains"]["maths"] = {"path": "maths.txt"}
    tree["tune"] = {"mixture": mixture}
    sections, faults = reading.collect(tree)
    assert sorted(map(str, faults)) == sorted(lines)
