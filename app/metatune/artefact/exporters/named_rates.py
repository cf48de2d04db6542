"""What exports share whose trainer has other parameter names: rates and the module that maps them.

Such trainers rename parameters and fuse some; `metatune_rates.py` takes the map from their names.
"""

import numpy as np

from metatune.artefact.exporters.base import Production, template
from metatune.artefact.exporters.static_rates import RATES, rates_file, static_rates
from metatune.artefact.exporters.trainer_names import names_of

KNOWN = """
The names that {trainer} has for the parameters of this model are in `static_rates.json`.
"""

UNKNOWN = """
No table here knows what {trainer} calls the parameters of this model: say which parameters of the
Hugging Face checkpoint each of them holds, and give that as `names`.

```python
NAMES = {{"NAME.OF.THE.TRAINER": ["model.layers.0.self_attn.q_proj.weight"]}}  # of each parameter
```
"""

FUSED = """
Parameters that are fused into one have the mean of their rates in log space, weighted by their
sizes where these are known; how far off that is, is warned (`fused="refuse"` refuses it instead). A
name that matches no parameter of the model is refused when the training starts.
"""


def names(production: Production, target: str, trainer: str) -> str:
    """What a README says of the names of parameters."""
    known = names_of(target, production.artefact.learning_rates.parameters)
    return (UNKNOWN if known is None else KNOWN).format(trainer=trainer) + FUSED


def rate_files(production: Production, target: str, *modules: str) -> dict[str, str]:
    """The module and its numbers, and further modules by the names of their templates."""
    artefact = production.artefact
    known = names_of(target, artefact.learning_rates.parameters)
    numbers = rates_file(artefact, names=known, sizes=production.sizes)
    files = {"metatune_rates.py": template("named_rates.py"), RATES: numbers}
    return files | {f"metatune_{name}.py": template(f"{name}.py") for name in modules}


def fused(production: Production, target: str) -> list[str]:
    """What is lost of matrices that the trainer fuses, if anything is."""
    curves = production.artefact.learning_rates.parameters
    known, sizes = names_of(target, curves) or {}, production.sizes or {}
    worst, off = "", 0.0
    for name, parts in known.items():
        rates = np.stack([curves[part] for part in parts])
        if np.all(rates == rates[0]):
            continue
        with np.errstate(divide="ignore", invalid="ignore"):  # a rate of 0 makes a mean of 0
            weights = [float(sizes.get(part, 1)) for part in parts]
            mean = np.exp(np.average(np.log(rates), axis=0, weights=weights))
            away = float(np.where(mean == rates, 0.0, np.abs(mean / rates - 1)).max())
        worst, off = (name, away) if away > off else (worst, off)
    if not off:
        return []
    weighed = "weighted by size" if sizes else "each alike: sizes aren't known here"
    return [
        f"matrices that are fused have the mean of their rates in log space, {weighed}: off by up "
        f"to {100 * off:.3g} % (`{worst}`)"
    ]


def flattened(production: Production) -> list[str]:
    """What is lost of rates that move over training by themselves, if they do."""
    deviation = static_rates(production.artefact).deviation
    if not deviation:
        return []
    return [
        "each parameter has the geometric mean over training of its multiplier: its rate is off by "
        f"up to {100 * deviation:.3g} % where the multiplier moves by itself"
    ]
