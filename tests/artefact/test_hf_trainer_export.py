"""The export to transformers' Trainer in earnest: a process without metatune trains with it."""

import json
import subprocess
import sys
import sysconfig

import numpy as np
import pytest

from metatune.artefact import LossWeights, Mixture
from metatune.artefact.exporters import export

STEPS, STOP, BATCH, ACCUMULATED = 12, 5, 4, 2
DOMAINS = ("code", "drama", "é")

TRAIN = f"""
import json, sys
sys.path[:0] = [sys.argv[1], {sysconfig.get_paths()["purelib"]!r}]

class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "metatune":
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import torch
from metatune_mixture import Mixed
from metatune_schedules import Schedule, optimizer
from metatune_trainer import TunedTrainer
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments

torch.set_num_threads(1)
DOMAINS = {DOMAINS!r}
config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)
random = torch.Generator().manual_seed(1)

def sequence(number):
    # The first token is the domain's number; some tokens aren't predicted.
    tokens = [number] + torch.randint(3, 16, (7,), generator=random).tolist()
    length = 5 + number
    return {{"input_ids": tokens, "labels": tokens[:length] + [-100] * (8 - length)}}

sources = {{name: [sequence(i) for _ in range(30)] for i, name in enumerate(DOMAINS)}}

def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(config)

def mixed():
    return Mixed(sources, {STEPS}, {BATCH * ACCUMULATED}, seed=3)

def train(resume):
    net, rates, batches = model(), [], []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
            by_id = {{id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}}
            rates.append({{name: by_id[id(p)] for name, p in net.named_parameters()}})

    class Watched(TunedTrainer):
        def compute_loss(self, model, inputs, *rest, **more):
            batches.append([inputs["input_ids"][:, 0].tolist(), inputs["loss_weight"].tolist()])
            return super().compute_loss(model, inputs, *rest, **more)

    arguments = TrainingArguments(
        output_dir=sys.argv[2], max_steps={STEPS}, per_device_train_batch_size={BATCH},
        gradient_accumulation_steps={ACCUMULATED}, max_grad_norm=1.0, save_steps={STOP},
        remove_unused_columns=False, report_to=[], use_cpu=True, disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = Watched(model=net, args=arguments, train_dataset=mixed(), callbacks=[Watch()])
    trainer.train(resume_from_checkpoint=f"{{sys.argv[2]}}/checkpoint-{STOP}" if resume else None)
    return rates, batches, {{name: p.tolist() for name, p in net.named_parameters()}}

def by_hand():
    net = model()
    tuned = optimizer(net, {STEPS})
    schedule, stream = Schedule(tuned, {STEPS}), iter(mixed())
    for _ in range({STEPS}):
        rows = [next(stream) for _ in range({BATCH * ACCUMULATED})]
        total, tokens = 0.0, 0
        for row in rows:
            logits = net(input_ids=torch.tensor([row["input_ids"]])).logits[0]
            for at, label in enumerate(row["labels"][1:]):
                if label != -100:
                    total = total - row["loss_weight"] * logits[at].log_softmax(-1)[label]
                    tokens += 1
        (total / tokens).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        tuned.step()
        schedule.step()
        tuned.zero_grad()
    return {{name: p.tolist() for name, p in net.named_parameters()}}

rates, batches, straight = train(False)
late_rates, late_batches, resumed = train(True)
print(json.dumps(dict(rates=rates, batches=batches, straight=straight, by_hand=by_hand(),
                      late_rates=late_rates, late_batches=late_batches, resumed=resumed)))
"""


LAYER = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "input_layernorm",
    "post_attention_layernorm",
)
NAMES = [
    "model.embed_tokens.weight",
    *(f"model.layers.0.{module}.weight" for module in LAYER),
    "model.norm.weight",
]


@pytest.mark.needs("accelerate", "torch")
def test_a_run_of_the_trainer_follows_every_schedule(make, tmp_path):
    shares = np.array([[0.2, 0.5, 0.3], [0.8, 0.0, 0.2]])
    weights = np.array([[0.5, 1.0, 1.5], [1.75, 0.25, 1.0]])
    artefact = make(
        NAMES,
        STEPS,
        mixture=Mixture((0.0, 0.5), "linear", DOMAINS, shares),
        loss_weights=LossWeights((0.0, 0.25), "constant", DOMAINS, weights),
    )
    export(artefact, "hf-trainer", tmp_path / "tuned")
    done = subprocess.run(
        [sys.executable, "-I", "-c", TRAIN, str(tmp_path / "tuned"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    assert len(found["rates"]) == STEPS
    for step, rates in enumerate(found["rates"]):
        assert rates.keys() == set(NAMES)
        for name, rate in rates.items():
            assert rate == pytest.approx(artefact.learning_rate(name, step, STEPS), rel=1e-7)

    # Accelerate reads a batch ahead, but trains on no more than these.
    assert len(found["batches"]) == STEPS * ACCUMULATED
    expected, variance, drawn = np.zeros(3), np.zeros(3), np.zeros(3)
    for place, (domains, weights_seen) in enumerate(found["batches"]):
        step = place // ACCUMULATED
        share = np.array(list(artefact.mixture_at(step, STEPS).values()))
        expected += BATCH * share
        variance += BATCH * share * (1 - share)
        drawn += np.bincount(domains, minlength=3)
        tuned = list(artefact.loss_weights_at(step, STEPS).values())
        np.testing.assert_allclose(weights_seen, [tuned[domain] for domain in domains], rtol=1e-6)
    assert np.all(np.abs(drawn - expected) <= 3 * np.sqrt(variance))

    assert found["late_rates"] == found["rates"][STOP:]
    assert found["late_batches"] == found["batches"][STOP * ACCUMULATED :]
    for name in NAMES:
        np.testing.assert_array_equal(found["resumed"][name], found["straight"][name])
        # float32 sums in another order, and Adam divides by the root of small squares.
        np.testing.assert_allclose(
            found["straight"][name], found["by_hand"][name], rtol=1e-4, atol=1e-5
        )
