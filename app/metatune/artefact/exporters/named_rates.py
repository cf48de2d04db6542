"""What exports share whose trainer has other parameter names: rates and the module that maps them.

Such trainers rename parameters and fuse some; `metatune_rates.py` takes the map from their names.
"""

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
Parameters that are fused into one must have one rate; where they haven't, `fused="mean"` gives them
the mean in log space, weighted by their sizes where these are known, and warns how far off it is. A
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


def flattened(production: Production) -> list[str]:
    """What is lost of rates that move over training by themselves, if they do."""
    deviation = static_rates(production.artefact).deviation
    if not deviation:
        return []
    return [
        "each parameter has the geometric mean over training of its multiplier: its rate is off by "
        f"up to {100 * deviation:.3g} % where the multiplier moves by itself"
    ]
