"""What exports share whose trainer has other parameter names: rates and the module that maps them.

Such trainers rename parameters and fuse some; `metatune_rates.py` takes the map from their names.
"""

from metatune.artefact.exporters.base import Production, template
from metatune.artefact.exporters.static_rates import RATES, rates_file, static_rates

NAMES = """
`metatune_rates.py` and `static_rates.json` stand side by side. Parameters have names of their own
here: say which parameters of the Hugging Face checkpoint each of them holds.

```python
NAMES = {"NAME.OF.THE.TRAINER": ["model.layers.0.self_attn.q_proj.weight"]}  # of each parameter
```

Parameters that are fused into one must have one rate; if they haven't, that is said and nothing is
made. Tune them as one group (`tune.learning_rates.per`) then.
"""


def rate_files(production: Production, *, shared: bool = False) -> dict[str, str]:
    """The module and its numbers; `shared` as for `static_rates`."""
    numbers = rates_file(production.artefact, shared=shared)
    return {"metatune_rates.py": template("named_rates.py"), RATES: numbers}


def flattened(production: Production, *, shared: bool = False) -> list[str]:
    """What is lost of rates that move over training by themselves, if they do."""
    deviation = static_rates(production.artefact, shared=shared).deviation
    if not deviation:
        return []
    return [
        "each parameter has the geometric mean over training of its multiplier: its rate is off by "
        f"up to {100 * deviation:.3g} % where the multiplier moves by itself"
    ]
