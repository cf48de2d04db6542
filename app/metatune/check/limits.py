"""What a shortened check can't say of the recipe's own horizon, told before it is run."""

from metatune.check.numbers import CheckedHorizon


def limits(horizon: CheckedHorizon, own: CheckedHorizon) -> tuple[str, ...]:
    """Sentences; none of a check that goes as far as the recipe.

    Args:
        horizon: of the check.
        own: of the recipe.
    """
    if horizon.life >= own.life:
        return ()
    return (
        f"{horizon.life} of {own.life} inner steps: what is said of the estimator holds for all "
        "(differences, agreement); the training is another one, with its warmup shorter, too",
        "metasmoothness falls as steps are added, about in proportion: foreseen, not measured",
        "signal is less over fewer steps: its thresholds are lowered with them",
        "signs that keep over these steps are good news; whether those that change still do at "
        f"{own.life} is not said",
    )
