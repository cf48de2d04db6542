"""What people are shown of a certificate."""

import io

from rich.console import Console

from metatune.report.certificate import headline, level, number, summaries, table

STRENGTH = {"norm": 0.9, "coordinate": 0.7}
DOCUMENT = {
    "verdict": "red",
    "causes": ["too few seeds"],
    "steps": 25,
    "recipe_steps": 100,
    "phases": 2,
    "window": 10,
    "estimator": "MixFlow",
    "meta_parameters": 7,
    "settings": {"seeds": 4},
    "checks": {
        "training": {
            "level": "green",
            "finite_losses": True,
            "finite_gradients": True,
            "objective_before": 5.6,
            "objectives": [3.2, 3.3],
        },
        "differences": {
            "level": "amber",
            "epsilons": {"random": 0.1, "coordinate": 0.01},
            "sign_agreement": 0.75,
            "resolved": 4,
            "rows": [
                {
                    "name": "random 1",
                    "derivative": 0.25,
                    "difference": 0.26,
                    "noise": 0.001,
                    "error": None,
                }
            ],
            "spearman": 0.98,
            "relative_error": 0.04,
            "relative_noise": 0.004,
        },
        "agreement": {"level": "amber", "problem": "no room", "other": "Forward"},
        "signal": {
            "level": "red",
            "seeds": 4,
            "tunables": {"mixture": {"whole": STRENGTH, "windows": [STRENGTH, STRENGTH]}},
        },
        "metasmoothness": {"level": "green", "value": 0.97, "step": 0.1},
        "horizons": {
            "level": "green",
            "steps": 25,
            "rows": [
                {
                    "name": "1/2 of the steps",
                    "steps": 12,
                    "tunables": {"mixture": {"share": 0.25, "clear": 3, "clear_share": 0.0}},
                }
            ],
        },
        "growth": {
            "level": "amber",
            "windows": {"mixture window 1": None, "mixture window 2": 3.0},
            "dominated": ["mixture window 1"],
            "origin": {"before": 40, "steepest": [5, 10]},
        },
    },
}


def shown(renderable):
    Console(width=200, file=(file := io.StringIO())).print(renderable)
    return file.getvalue()


def test_a_certificate_is_shown_with_its_verdict_causes_and_numbers():
    text = shown(table(DOCUMENT))
    for said in (
        "gradient certificate: red",
        "too few seeds",
        "MixFlow in the first of 2 phases, 7 meta-parameters, 25 inner steps (the recipe has 100), "
        "the last 10 differentiated, 4 seeds",
        "75% of signs agree (4 of 1 clear), Spearman 0.98",
        "no room",
        "signal to noise of 4 seeds' mean: mixture 0.9",
        "0.97 at a step of 0.1",
        "1/2 of the steps: 0% of 3 clear signs differ",
        "the adjoint is inf times its least later behind mixture window 1; dominated by growth "
        "before inner step 40: mixture window 1; it grew fastest from inner step 10 back to 5",
        "random 1",
        "0.9 0.9",
    ):
        assert said in text


def test_what_noise_hides_and_a_shortened_check_cannot_say_is_told():
    hidden = {"level": "amber", "hidden": True, "value": 0.7, "step": 0.1, "foreseen": 0.2}
    checks = DOCUMENT["checks"] | {"metasmoothness": hidden}
    text = shown(table(DOCUMENT | {"checks": checks, "limits": ["25 of 100 inner steps"]}))
    assert "  25 of 100 inner steps\n" in text
    assert "not resolved" in text
    assert "0.7 at a step of 0.1; 0.2 foreseen at the recipe's own horizon" in text
    assert level(hidden) == "not resolved"
    # A certificate of before has none of it.
    assert level({"level": "green"}) == "green"
    assert "not resolved" not in shown(table(DOCUMENT))


def test_checks_that_were_not_made_are_said_to_be_so():
    broken = {"level": "red", "finite_losses": False}
    checks = {name: None for name in DOCUMENT["checks"]} | {"training": broken}
    text = shown(table(DOCUMENT | {"checks": checks}))
    assert "inner losses or objectives are not finite" in text
    assert text.count("not made") == 6
    assert summaries(checks) == {"training": "inner losses or objectives are not finite"}


def test_growth_is_told_in_its_kind():
    calm = {"windows": {"mixture window 1": 1.5, "mixture window 2": 3.0}, "dominated": []}
    said = "the adjoint is 3 times its least later behind mixture window 2, the most of 2"
    assert summaries({"growth": calm}) == {"growth": said}
    none = {"windows": {}, "dominated": []}
    assert summaries({"growth": none}) == {"growth": "no adjoint behind windows to watch"}


def test_the_headline_is_a_line_for_verdict_and_cause_each():
    assert [line.plain for line in headline(DOCUMENT)] == [
        "gradient certificate: red",
        "  too few seeds",
    ]


def test_numbers_are_short():
    assert [number(x) for x in (None, 0.123456, 12345.0)] == ["none", "0.123", "1.23e+04"]
