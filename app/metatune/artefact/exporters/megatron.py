"""Exports to Megatron-LM: data blends by phase with a launcher, and overrides by parameter."""

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import Exporter, Production, config_files, place
from metatune.artefact.exporters.named_rates import NAMES, flattened, rate_files
from metatune.artefact.exporters.stages import staged

RATES = """
Pass the overrides as `config_overrides` to `get_megatron_optimizer`:

```python
from megatron.core.optimizer.optimizer_config import ParamKey
from metatune_rates import groups

config_overrides = {
    ParamKey(name=name): {"max_lr": group.rate, "min_lr": group.last, "wd_mult": group.wd_mult}
    for group in groups(NAMES)
    for name in group.names
}
```
"""

PHASES = """
`phase_1.txt` and so on are blends for `--data-args-path`, in words `share prefix`: put the prefixes
of your data in the place of `PATH/TO/...`. `launch.sh` runs your command once for each phase; at
the end of a phase Megatron saves and exits, and the next run goes on with the next blend. The
global batch size must not change, and the command must save and load:

```sh
bash launch.sh torchrun pretrain_gpt.py --save CKPT --load CKPT --train-iters {steps} ...
```
"""

LAUNCH = """\
#!/usr/bin/env bash
# Runs the command given to it once for each phase of the mixture.
set -euo pipefail
here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
for phase in $(seq 1 {phases}); do
  "$@" --data-args-path "$here/phase_$phase.txt"{transitions}
done
"""


def _files(production: Production) -> dict[str, bytes | str]:
    artefact = production.artefact
    files, usage, lost = rate_files(production), NAMES + RATES, flattened(production)
    lost.append("the base schedule: choose the decay style (--lr-decay-style) yourself")
    if artefact.mixture is not None:
        cut = staged(artefact.mixture, production.steps)
        for number, stage in enumerate(cut.stages, 1):
            # Megatron refuses a weight of zero, and an odd count of words.
            kept = {domain: share for domain, share in stage.values.items() if share > 0}
            zero = [domain for domain in stage.values if domain not in kept]
            if zero:
                lost.append(f"phase {number} leaves out {', '.join(zero)}: a share of 0")
            words = (f"{share!r} {place(domain)}" for domain, share in kept.items())
            files[f"phase_{number}.txt"] = " ".join(words) + "\n"
        ends = ",".join(str(stage.start) for stage in cut.stages[1:])
        transitions = f" --phase-transition-iterations {ends}" if ends else ""
        files["launch.sh"] = LAUNCH.format(phases=len(cut.stages), transitions=transitions)
        usage += PHASES.format(steps=production.steps)
        lost += cut.lost()
    return config_files(production, "Megatron-LM (core 0.19.2)", usage, files, lost)


MEGATRON = Exporter(
    "megatron",
    "data blends by phase with a launcher, and a module of overrides by parameter",
    able(rates="exact", mixture="exact", moving_mixture="quantised"),
    _files,
    "core 0.19.2",
)
