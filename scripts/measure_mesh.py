"""What a mesh of devices makes of a hypergradient: agreement, memory, collectives, plans.

    python scripts/measure_mesh.py agreement      # models on four meshes; an axis of members
    python scripts/measure_mesh.py memory         # the 71.3M row of the benchmarks over fsdp=8
    python scripts/measure_mesh.py collectives    # of an inner step, forward and backward
    python scripts/measure_mesh.py planned        # `metatune plan` against meshes of 64 devices
    python scripts/measure_mesh.py large          # plans of 1.2B and 6.7B, 64 x H100

Devices are virtual, on the CPU: numbers are of the programs, none is of their speed. The tables of
docs/scale.md are what this prints.
"""

import argparse
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mesh_members
import numpy as np

from metatune.bench.sizes import SIZES, Shape
from metatune.bench.variants import VARIANTS
from metatune.bench.workload import initial, llama, training
from metatune.data import stratified_batches
from metatune.hypergrad import MixFlow, Problem, State, hypergradient
from metatune.inner import prepare
from metatune.inner.metrics import held_out_batches
from metatune.models import LanguageModel, Layout, mesh_of
from metatune.plan.mesh import accelerator, on_mesh
from metatune.plan.mesh.programs import compiled
from metatune.plan.reverse_mode import traced, work_of
from metatune.recipe import schema

DEVICES = 8
MESHES = ((8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1))
"""Data, fsdp, tensor."""
LAYOUTS = {"fsdp 8": (1, 8, 1), "data 2, fsdp 4": (2, 4, 1), "fsdp 4, tensor 2": (1, 4, 2)}
WITHOUT_TENSOR = {name: mesh for name, mesh in LAYOUTS.items() if mesh[2] == 1}
ROW = "71.3M"
WAY = "mixflow+remat+chunks+saved"
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 264}
EXPERTS = {**SMALL, "num_experts_per_tok": 2}
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "Llama": {"model_type": "llama", "intermediate_size": 32, **SMALL},
    "GPT-2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 264},
    "Gemma 3": {
        "model_type": "gemma3_text",
        "intermediate_size": 32,
        "num_key_value_heads": 4,
        "head_dim": 4,
        "query_pre_attn_scalar": 4,
        "sliding_window": 8,
        **SMALL,
    },
    "Qwen3-MoE": {
        "model_type": "qwen3_moe",
        "intermediate_size": 32,
        "num_key_value_heads": 4,
        "head_dim": 4,
        **EXPERTS,
        "moe_intermediate_size": 16,
        "num_experts": 4,
        "norm_topk_prob": True,
    },
    "gpt-oss": {
        "model_type": "gpt_oss",
        "intermediate_size": 16,
        "num_key_value_heads": 4,
        "head_dim": 4,
        "sliding_window": 8,
        **EXPERTS,
        "num_local_experts": 4,
    },
}
LORA = schema.LoraSpec(rank=4, alpha=8.0, targets=("q_proj", "down_proj"))
STEPS, BATCH = 6, 8
EPS_ROOT = 1e-5
"""Of Adam, in float32: with the default a rounding of the first gradient, where it is near zero,
comes back ten thousand times as large in the mixture's hypergradient, on one device too."""


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    table = {
        "agreement": (agreement, DEVICES),
        "memory": (memory, DEVICES),
        "collectives": (collectives, DEVICES),
        "planned": (planned, 64),
        "large": (large, 1),
    }
    parser.add_argument("what", choices=table)
    measure, devices = table[parser.parse_args().what]
    # Threads for all collectives of all devices at once: where there are fewer, as on two cores,
    # XLA's collectives on a CPU wait for each other for ever.
    os.environ["NPROC"] = str(8 * devices)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    for line in measure():
        print(line, flush=True)


def agreement() -> Iterator[str]:
    """Differences of hypergradients between meshes and one device, over their norm."""
    jax.config.update("jax_disable_most_optimizations", True)  # small programs, and many
    yield "| | " + " | ".join(f"{data} x {fsdp}" for data, fsdp, _ in MESHES) + " |"
    yield "|---|" + "---|" * len(MESHES)
    for name, config in FAMILIES.items():
        yield _row(name, partial(_found, config))
    larger = partial(_found, FAMILIES["Gemma 3"], eps_root=10 * EPS_ROOT)
    yield _row("Gemma 3, eps_root 1e-4", larger)
    yield _row("Llama, LoRA", partial(_found, FAMILIES["Llama"], lora=LORA))
    with jax.enable_x64(True):
        double = partial(_found, FAMILIES["Llama"], dtype="float64", eps_root=1e-8)
        yield _row("Llama, float64, eps_root 1e-8", double)
        exact = double((1, 1, 1))
    yield ""
    for mesh in ((1, 1, 1), *MESHES):
        single = _found(FAMILIES["Llama"], mesh, eps_root=1e-8)
        apart = {key: _apart(single[key], exact[key]) for key in exact}
        said = ", ".join(f"{key} {value:.1e}" for key, value in apart.items())
        yield f"float32 on {mesh} against float64, eps_root 1e-8: {said}"
    yield ""
    yield "Over an axis of their own, on data x fsdp x members, in float64:"
    one = _recipe(FAMILIES["Llama"], (1, 1, 1), "float64", None, EPS_ROOT)
    yield from mesh_members.agreement(one)


def _row(name: str, found: Callable[[tuple[int, int, int]], Mapping[str, np.ndarray]]) -> str:
    one, cells = found((1, 1, 1)), []
    whole = np.sqrt(sum(np.sum(leaf**2) for leaf in one.values()))
    for mesh in MESHES:
        other = found(mesh)
        apart = np.sqrt(sum(np.sum((other[key] - one[key]) ** 2) for key in one))
        cells.append(f"{apart / whole:.1e}")
    return f"| {name} | {' | '.join(cells)} |"


def _apart(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def _found(
    config: Mapping[str, Any],
    mesh: tuple[int, int, int],
    *,
    dtype: str = "float32",
    lora: schema.LoraSpec | None = None,
    eps_root: float = EPS_ROOT,
) -> dict[str, np.ndarray]:
    """The hypergradient of rates and mixture on a mesh, in float64."""
    prepared = prepare(_recipe(config, mesh, dtype, lora, eps_root))
    eta, state = prepared.initial_eta(), prepared.initialise(jax.random.key(0))
    if dtype == "float64":
        eta, state = mesh_members.in_float64(prepared)
    corpus, outer = prepared.corpus, prepared.recipe.outer
    shares = prepared.trajectory(prepared.initial_eta()).mixture
    result = hypergradient(
        prepared.reweighted,
        eta,
        state,
        stratified_batches(corpus, seed=(1,), batch_size=BATCH, shares=shares),
        held_out_batches(outer, corpus, "validation", seed=(2,), sequences=BATCH),
        steps=STEPS,
        estimator=MixFlow(2),
    )
    return {key: np.asarray(leaf, np.float64) for key, leaf in result.gradient.items()}


def _recipe(
    config: Mapping[str, Any],
    mesh: tuple[int, int, int],
    dtype: Any,
    lora: schema.LoraSpec | None,
    eps_root: float,
    batch: int = BATCH,
) -> schema.Recipe:
    shipped = ("code_stdlib", "drama_shakespeare")
    return schema.Recipe(
        model=schema.ModelSpec(config=config, dtype=dtype, remat=False),
        data=schema.DataSpec(
            domains={name: schema.SourceSpec(shipped=name) for name in shipped},
            target={shipped[0]: 1.0},
            sequence_length=16,
            batch_size=batch,
        ),
        inner=schema.InnerSpec(
            optimizer=schema.AdamWSpec(learning_rate=1e-2, eps_root=eps_root),
            steps=STEPS,
            lora=lora,
        ),
        tune=schema.TuneSpec(
            learning_rates=schema.LearningRatesSpec(per="layer", windows=3),
            mixture=schema.MixtureSpec(windows=2, floor=0.05),
        ),
        outer=schema.OuterSpec(
            steps=1,
            objective=schema.ObjectiveSpec(sequences=batch, micro_batch=batch),
            validation=schema.ValidationSpec(sequences=batch),
            test=schema.FinalTestSpec(sequences=batch),
        ),
        devices=schema.DevicesSpec(*mesh),
    )


class Bytes(NamedTuple):
    """Of each device.

    Attributes:
        arguments: state, η and tokens.
        carry: states and gradients of all steps that wait for the backward sweep.
        resting: what else there is even for sequences of next to nothing: gradients, adjoints, and
            parameters that are put together.
        activations: what longer sequences add.
    """

    arguments: int
    carry: int
    resting: int
    activations: int


def memory() -> Iterator[str]:
    """Bytes of each device for one hypergradient as one program, by XLA's analysis."""
    shape = SIZES[ROW]
    one = _bytes(shape, None)
    yield f"{ROW}: Llama, batch {shape.batch} x {shape.sequence}, T = {shape.steps}, {WAY}"
    yield "| | arguments | carry | else | activations | arguments + carry | activations |"
    yield "|---|---|---|---|---|---|---|"
    for name, mesh in {"one device": None, **WITHOUT_TENSOR}.items():
        found = one if mesh is None else _bytes(shape, mesh)
        sizes = " | ".join(f"{value / 2**20:,.0f} MiB" for value in found)
        kept = (found.arguments + found.carry) / (one.arguments + one.carry)
        yield f"| {name} | {sizes} | {kept:.3f} | {found.activations / one.activations:.3f} |"


def _bytes(shape: Shape, mesh: tuple[int, int, int] | None) -> Bytes:
    whole = _compiled(shape, mesh).memory_analysis()
    # As many sequences, or else they couldn't be cut into as many parts.
    tiny = shape._replace(sequence=8)
    rest, longer = (
        _compiled(tiny._replace(steps=steps), mesh).memory_analysis().temp_size_in_bytes
        for steps in (shape.steps, shape.steps + 1)
    )
    carry = shape.steps * (longer - rest)
    activations = whole.temp_size_in_bytes - rest
    return Bytes(whole.argument_size_in_bytes, carry, rest - carry, activations)


def _compiled(shape: Shape, mesh: tuple[int, int, int] | None) -> Any:
    """One hypergradient of the benchmarks, compiled for a mesh."""
    eta, state, tokens, outer = jax.eval_shape(partial(initial, shape), jax.random.key(0))
    problem, layout = _problem(shape, mesh)
    if layout is not None:
        state = _with_places(state, layout.shardings(state, state.params))
        copied = jax.tree.map(lambda _: layout.copied, (eta, tokens, outer))
        eta, tokens, outer = _with_places((eta, tokens, outer), copied)

    def estimate(eta: Any, state: State, tokens: jax.Array, outer: jax.Array) -> Any:
        return hypergradient(
            problem,
            eta,
            state,
            lambda step: tokens[step],
            [outer],
            steps=shape.steps,
            estimator=VARIANTS[WAY].estimator(shape.steps),
        )[:2]

    return jax.jit(estimate).lower(eta, state, tokens, outer).compile()


def _problem(shape: Shape, mesh: tuple[int, int, int] | None) -> tuple[Problem, Layout | None]:
    """The problem of the benchmarks, on a mesh."""
    variant = VARIANTS[WAY]
    model: LanguageModel = llama(shape, remat=variant.remat, chunks=variant.chunks)
    if mesh is None:
        return training(model), None
    layout = Layout(mesh_of(*mesh), model.config.transposed)
    found = training(replace(model, layout=layout))

    def loss(params: Any, hyper: Any, tokens: jax.Array) -> jax.Array:
        return found.loss(layout.kept(params, params), hyper, layout.cut(tokens))

    def objective(params: Any, tokens: jax.Array) -> Any:
        return found.objective(layout.kept(params, params), layout.cut(tokens))

    def update(grads: Any, opt_state: Any, params: Any, hyper: Any) -> tuple[Any, Any]:
        params, opt_state = found.update(grads, opt_state, params, hyper)
        return layout.kept(params, params), layout.kept(opt_state, params)

    return replace(found, loss=loss, objective=objective, update=update), layout


def _with_places(tree: Any, places: Any) -> Any:
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        tree,
        places,
    )


COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|"
    r"collective-permute)(-start)?\("
)
ARRAY = re.compile(r"f32\[([\d,]*)\]")


def collectives() -> Iterator[str]:
    """What the tangent of a gradient, and a gradient, move between devices for each block."""
    shape = Shape(512, 128, 384, 6, 8, 64, 2)
    block = 4 * shape.width**2 + 3 * shape.width * shape.hidden
    yield f"Llama of {shape.layers} blocks; elements over those of a block's matrices, {block:,}"
    yield "| | | in a block's passes | beside the blocks | largest array |"
    yield "|---|---|---|---|---|"
    for name, mesh in LAYOUTS.items():
        problem, layout = _problem(shape, mesh)
        if layout is None:
            raise ValueError(f"{name} is one device")
        eta, state, tokens, _ = jax.eval_shape(partial(initial, shape), jax.random.key(0))
        params = _with_places(state.params, layout.shardings(state.params, state.params))
        hyper = jax.eval_shape(problem.hyper_at, eta, jnp.int32(0))
        batch = jax.ShapeDtypeStruct(tokens.shape[1:], tokens.dtype)
        gradient = jax.grad(problem.loss)

        def tangent(params: Any, hyper: Any, batch: Any, along: Any, of: Any = gradient) -> Any:
            return jax.jvp(lambda params: of(params, hyper, batch), (params,), (along,))[1]

        programs = {
            "gradient": jax.jit(gradient).lower(params, hyper, batch),
            "its tangent": jax.jit(tangent).lower(params, hyper, batch, params),
        }
        for what, lowered in programs.items():
            text = lowered.compile().as_text() or ""
            inside, beside = _moved(text, within=True), _moved(text, within=False)
            cells = [_told(counts, block) for counts in (inside, beside)]
            largest = max(size for sizes in (*inside.values(), *beside.values()) for size in sizes)
            yield f"| {name} | {what} | {' | '.join(cells)} | {largest / block:.2f} |"


def _moved(text: str, within: bool) -> dict[str, list[int]]:
    """Elements of the arrays of each kind of collective, in loops (of blocks) or elsewhere."""
    found: dict[str, list[int]] = {}
    entry = False
    for line in text.splitlines():
        if line and not line[0].isspace():
            entry = line.startswith("ENTRY")
        if entry != within and (match := COLLECTIVE.search(line)):
            arrays = [_size(dims) for dims in ARRAY.findall(match["shapes"])]
            found.setdefault(match["kind"], []).extend(arrays)
    return found


def _size(dims: str) -> int:
    return int(np.prod([int(size) for size in dims.split(",") if size]))


def _told(moved: Mapping[str, list[int]], block: int) -> str:
    counts = Counter({kind: len(sizes) for kind, sizes in moved.items()})
    parts = (
        f"{kind}: {count} arrays, {sum(moved[kind]) / block:.2f}"
        for kind, count in sorted(counts.items())
    )
    return "; ".join(parts) or "none"


SMALL_LLAMA = {**FAMILIES["Llama"], "hidden_size": 64}
OF_64 = ((64, 1, 1), (8, 8, 1), (1, 64, 1), (4, 4, 4))
PROGRAMS = ("forward", "pullback", "objective")


def planned() -> Iterator[str]:
    """Bytes of each of 64 devices, as planned for an abstract mesh and as compiled for them."""
    yield "| mesh | " + " | ".join(f"{name}: planned, compiled" for name in PROGRAMS) + " |"
    yield "|---|" + "---|" * len(PROGRAMS)
    for mesh in OF_64:
        recipe = _recipe(SMALL_LLAMA, mesh, "float32", None, EPS_ROOT, batch=64)
        spec = schema.MixFlowSpec(segment=2)
        there = compiled(
            traced(work_of(prepare(recipe, elsewhere=True), spec)), 64, lambda *_: None
        )
        cells = []
        here = traced(work_of(prepare(recipe), spec))
        for name in PROGRAMS:
            analysis = here[name]().lower().compile().memory_analysis()
            found = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
            cells.append(f"{there[name].arguments + there[name].temporary:,}, {found:,}")
        yield f"| {' x '.join(map(str, mesh))} | {' | '.join(cells)} |"
    yield ""
    yield from mesh_members.planned(_recipe(SMALL_LLAMA, (1, 1, 1), "float32", None, EPS_ROOT))


LARGE: Mapping[str, Mapping[str, Any]] = {
    "1.2B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "6.7B": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
    },
}
"""Of Llama 3.2 1B and Llama 2 7B."""
GB = 10**9


def large() -> Iterator[str]:
    """Plans of models that this machine couldn't hold."""
    device = accelerator("h100")
    parts = ("state", "activations", "logits", "device", "host")
    yield f"| | mesh | {' | '.join(parts)} | TFLOP | sent | hypergradient | compilation |"
    yield "|---|---|" + "---|" * (len(parts) + 4)
    for name, config in LARGE.items():
        for fsdp in (64, 8):
            began = time.perf_counter()
            training = prepare(_large(config, fsdp), elsewhere=True)
            found = on_mesh(training, device, folder=Path())
            if found.memory is None or found.pace is None:
                raise ValueError(f"{name} has no plan: {found.problem}")
            values = {**found.memory._asdict(), "device": found.memory.device}
            sizes = " | ".join(f"{values[part] / GB:.1f} GB" for part in parts)
            sent = sum(each.bytes for each in found.moved.values()) / GB
            yield (
                f"| {name} | fsdp={fsdp} | {sizes} | {found.flops / 1e12:,.0f} | {sent:,.0f} GB | "
                f"≥ {found.pace.hypergradient:.1f} s | {time.perf_counter() - began:.0f} s |"
            )


def _large(config: Mapping[str, Any], fsdp: int) -> schema.Recipe:
    """T = 4, batch 64 x 2048, saved gradients in bfloat16, states on the host."""
    recipe = _recipe(FAMILIES["Llama"], (1, fsdp, 1), "float32", None, EPS_ROOT, batch=64)
    kept = schema.CheckpointsSpec(keep="all", store="host")
    way = schema.MixFlowSpec(segment=1, gradient_dtype="bfloat16", checkpoints=kept)
    return replace(
        recipe,
        model=schema.ModelSpec(
            config={"model_type": "llama", "max_position_embeddings": 8192, **config}, remat=True
        ),
        data=replace(recipe.data, sequence_length=2048),
        inner=replace(recipe.inner, steps=4),
        tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="layer", windows=2)),
        outer=replace(recipe.outer, estimator=way),
    )


if __name__ == "__main__":
    main()
