"""Exports to Megatron-LM: data blends by phase with a launcher, and overrides by parameter."""

from collections.abc import Mapping
from typing import Any

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import Exporter, Production, config_files, place
from metatune.artefact.exporters.base_schedule import base_schedule
from metatune.artefact.exporters.named_rates import flattened, fused, names, rate_files
from metatune.artefact.exporters.stages import averaged, staged
from metatune.artefact.exporters.supply import supply

RATES = """
Put this folder on the Python path, and pass the overrides to `get_megatron_optimizer`:

```python
from metatune_megatron import config_overrides

optimizer = get_megatron_optimizer(
    config, model_chunks, config_overrides=config_overrides(model_chunks)
)
```

`max_lr` and `min_lr` of each group are absolute, and its decay is `wd_mult` times `--weight-decay`.
Megatron fuses queries, keys and values, and gate and up projections: these have the mean of the
tuned rates. Names hold under DDP, Float16Module and in each stage of a pipeline; one that matches
no parameter of any process is refused when the training starts.

`launch.sh` runs your command with the numbers of the tuned optimizer and its schedule, which every
parameter follows there: {schedule}.

```sh
bash launch.sh torchrun pretrain_gpt.py --global-batch-size N --save CKPT --load CKPT ...
```

The training has {steps} updates: give neither `--train-iters` nor `--train-samples`.
"""

PHASES = """
`phase_1.txt` and so on are blends for `--data-args-path`, in words `share prefix`: put the prefixes
of your data in the place of `PATH/TO/...`. `launch.sh` runs your command once for each phase; at
the end of a phase Megatron saves and exits, and the next run goes on with the next blend. After a
crash start it again: it takes the phase of the checkpoint in `--load`. The global batch size must
not change, and the command must save and load.
"""

LAUNCH = """\
#!/usr/bin/env bash
# Runs the command given to it with the tuned optimizer, once for each phase of the mixture that is
# still to come.
set -euo pipefail
here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
steps={steps}
ends=({ends} $steps)
batch="" load="" before=""
for word in "$@"; do
  case "$before" in
    --global-batch-size) batch="$word" ;;
    --load) load="$word" ;;
  esac
  case "$word" in
    --global-batch-size=*) batch="${{word#*=}}" ;;
    --load=*) load="${{word#*=}}" ;;
    --train-iters* | --train-samples*)
      echo "launch.sh: leave $word out: the training has $steps updates" >&2
      exit 2
      ;;
  esac
  before="$word"
done
if [ -z "$batch" ]; then
  echo "launch.sh: give --global-batch-size, the sequences of an update" >&2
  exit 2
fi
{needs_load}for phase in "${{!ends[@]}}"; do
  done_steps=0
  marker="$load/latest_checkpointed_iteration.txt"
  if [ -n "$load" ] && [ -f "$marker" ]; then
    done_steps="$(tr -d '[:space:]' <"$marker")"
  fi
  if [ "$done_steps" -ge "${{ends[$phase]}}" ]; then
    continue
  fi
  "$@"{data}{transitions} \\
    --train-samples "$((steps * batch))" --lr-decay-samples "$((steps * batch))" \\
    --lr-warmup-samples "$(({warmup} * batch))" \\
    {numbers}
done
"""

NEEDS_LOAD = """\
if [ -z "$load" ]; then
  echo "launch.sh: give --save and --load: each phase goes on from the one before" >&2
  exit 2
fi
"""


def _files(production: Production) -> dict[str, bytes | str]:
    artefact, settings = production.artefact, production.artefact.optimizer.settings
    base = base_schedule(production)
    files = rate_files(production, "megatron", "megatron")
    usage = RATES.format(schedule=base.words(production.steps), steps=production.steps)
    usage += names(production, "megatron", "Megatron")
    lost = [*flattened(production), *fused(production, "megatron")]
    if base.deviation > 1e-6:
        lost.append(f"the base schedule is fitted: {base.words(production.steps)}")
    if base.warmup:
        lost.append("the warmup begins at 0 there, so that the first update has no effect")
    lost.append("`eps_root`, which Megatron's Adam doesn't have")
    cut = None
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
        usage += PHASES
        lost += cut.lost()
        if len(cut.stages) > 1:
            lost.append(
                "each phase begins its domains anew, at their first samples: give each phase the "
                "prefixes of other parts of the data"
            )
        shares = averaged(artefact.mixture, production.steps)
        lost += supply(production, shares, "a blend repeats it in epochs of its own")
    moving = cut is not None and len(cut.stages) > 1
    ends = [] if cut is None else [str(stage.start) for stage in cut.stages[1:]]
    files["launch.sh"] = LAUNCH.format(
        steps=production.steps,
        ends=" ".join(ends),
        data="" if cut is None else ' --data-args-path "$here/phase_$((phase + 1)).txt"',
        transitions=f" --phase-transition-iterations {','.join(ends)}" if moving else "",
        needs_load=NEEDS_LOAD if moving else "",
        warmup=base.warmup,
        numbers=" \\\n    ".join(_arguments(settings, base.peak, base.last, base.kind)),
    )
    return config_files(production, "Megatron-LM (core 0.19.2)", usage, files, lost)


def _arguments(own: Mapping[str, Any], peak: float, last: float, kind: str) -> list[str]:
    """The command-line options of the optimizer and its schedule."""
    if own["kind"] == "adamw":
        numbers = (
            f"--optimizer adam --adam-beta1 {own['b1']!r} --adam-beta2 {own['b2']!r}"
            f" --adam-eps {own['eps']!r}"
        )
    else:
        numbers = f"--optimizer sgd --sgd-momentum {own['momentum']!r}"
    return [
        numbers,
        f"--weight-decay {own['weight_decay']!r} --clip-grad {own['clip_norm'] or 0.0!r}",
        f"--lr {peak!r} --min-lr {peak * last!r} --lr-decay-style {kind}",
    ]


MEGATRON = Exporter(
    "megatron",
    "data blends by phase with a launcher, and overrides by parameter",
    able(rates="fitted", mixture="exact", moving_mixture="quantised"),
    _files,
    "core 0.19.2",
    numbers={
        "phase_*.txt": "share of the sequences of the phase, then the prefix of the domain",
        "--lr": "rate at the peak of the base schedule, absolute, per update",
        "--weight-decay": "multiplied by the rate of the group and by its wd_mult, at each update",
    },
)
