"""Parameters: their names, their shapes, and how they begin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.models import ParameterNames, build
from metatune.recipe.faults import RecipeError

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": True,
    "mlp_bias": True,
}


@pytest.fixture
def model():
    return build(CONFIG, vocab_size=259)


def flat(names):
    return [name for leaf in jax.tree.leaves(names) for name in leaf.names]


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0))


def test_names_have_the_structure_of_the_parameters(model):
    names, params = model.names(), shapes(model)
    assert jax.tree.structure(names) == jax.tree.structure(params)
    for leaf, array in zip(jax.tree.leaves(names), jax.tree.leaves(params), strict=True):
        assert leaf.stacked == (len(leaf.names) == 3)
        assert not leaf.stacked or array.shape[0] == 3


def test_a_stacked_leaf_names_its_layers(model):
    assert model.names()["model"]["layers"]["self_attn"]["q_proj"]["weight"] == ParameterNames(
        tuple(f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(3)), True
    )
    assert model.names()["model"]["norm"]["weight"] == ParameterNames(("model.norm.weight",), False)


@pytest.mark.filterwarnings("ignore")  # of importing transformers
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_names_and_shapes_are_those_of_transformers(tied, bias):
    import torch
    import transformers

    config = {**CONFIG, "tie_word_embeddings": tied, "attention_bias": bias, "mlp_bias": bias}
    with torch.device("meta"):
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config, vocab_size=259))
    expected = {name: tuple(value.shape) for name, value in theirs.named_parameters()}
    model = build(config, vocab_size=259)
    ours = {
        name: array.shape[leaf.stacked :]
        for leaf, array in zip(
            jax.tree.leaves(model.names()), jax.tree.leaves(shapes(model)), strict=True
        )
        for name in leaf.names
    }
    assert ours == expected
    assert len(flat(model.names())) == len(ours)


def test_fresh_parameters_are_normal_with_norms_of_one_and_biases_of_zero():
    model = build({**CONFIG, "initializer_range": 0.07}, vocab_size=259)
    params = jax.jit(model.init)(jax.random.key(3))
    leaves = zip(jax.tree.leaves(model.names()), jax.tree.leaves(params), strict=True)
    for leaf, array in leaves:
        assert array.dtype == jnp.float32
        name = leaf.names[0]
        if name.endswith("bias"):
            np.testing.assert_array_equal(array, 0)
        elif "norm" in name:
            np.testing.assert_array_equal(array, 1)
        else:
            # Five standard errors of the two estimates, over the numbers of a whole leaf.
            assert abs(array.mean()) < 5 * 0.07 / array.size**0.5, name
            assert abs(array.std() / 0.07 - 1) < 5 / (2 * array.size) ** 0.5, name


@pytest.mark.filterwarnings("ignore")  # of importing transformers
def test_fresh_parameters_of_nanochat_are_as_far_spread_as_those_of_transformers():
    """Of what writes to the residual stream, attention's are shrunk, and those of MLPs aren't."""
    import transformers

    sizes = {key: value for key, value in CONFIG.items() if not key.endswith("bias")}
    sizes["model_type"] = "nanochat"
    model = build(sizes, vocab_size=259)
    config = transformers.AutoConfig.for_model(**sizes, vocab_size=259)
    theirs = dict(transformers.AutoModelForCausalLM.from_config(config).named_parameters())
    params = jax.jit(model.init)(jax.random.key(3))
    leaves = zip(jax.tree.leaves(model.names()), jax.tree.leaves(params), strict=True)
    for leaf, array in leaves:
        wanted = np.stack([theirs[name].detach().numpy() for name in leaf.names])
        # Five standard errors of the two, and torch leaves the row of padding at zero.
        close = 5 / array.size**0.5 + (1 / 259 if "embed" in leaf.names[0] else 0)
        assert abs(array.std() / wanted.std() - 1) < close, leaf.names[0]


def test_layers_and_seeds_begin_differently(model):
    init = jax.jit(model.init)

    def queries(seed):
        return init(jax.random.key(seed))["model"]["layers"]["self_attn"]["q_proj"]["weight"]

    first = queries(0)
    np.testing.assert_array_equal(first, queries(0))
    assert (first != queries(1)).mean() > 0.99
    assert (first[0] != first[1]).mean() > 0.99


@pytest.mark.parametrize(
    ("tied", "path"), [(True, ("model", "embed_tokens")), (False, ("lm_head",))]
)
def test_logits_are_features_times_the_unembedding(tied, path):
    model = build({**CONFIG, "tie_word_embeddings": tied}, vocab_size=259)
    params = jax.jit(model.init)(jax.random.key(0))
    weight = params
    for key in path:
        weight = weight[key]
    tokens = jnp.arange(6).reshape(2, 3)
    unembedding = model.unembedding(params)
    np.testing.assert_array_equal(unembedding, weight["weight"])
    hidden = jax.jit(model.hidden)(params, tokens)
    assert hidden.shape == (2, 3, 64)
    logits = jax.jit(model.logits)(params, tokens)
    np.testing.assert_allclose(logits, hidden @ unembedding.T, atol=1e-5)


def test_equal_models_are_one_static_argument():
    compiled = []

    @jax.jit(static_argnums=0)
    def logits(model, params, tokens):
        compiled.append(model)
        return model.logits(params, tokens)

    tokens = jnp.zeros((1, 2), jnp.int32)
    params = jax.jit(build(CONFIG, vocab_size=259).init)(jax.random.key(0))
    for _ in range(2):
        logits(build(CONFIG, vocab_size=259), params, tokens)
    assert len(compiled) == 1


def test_chunks_that_hold_no_row_are_refused():
    with pytest.raises(RecipeError) as refused:
        build(CONFIG, vocab_size=259, attention_chunk=0, loss_chunk=-1)
    assert str(refused.value) == (
        "model: 2 faults\n"
        "  model.attention_chunk = 0: must be auto, null or a whole number of 1 or above\n"
        "  model.loss_chunk = -1: must be auto, null or a whole number of 1 or above"
    )


def test_an_unknown_dtype_is_refused_beside_the_faults_of_the_config():
    with pytest.raises(RecipeError) as refused:
        build({**CONFIG, "hidden_size": 0}, vocab_size=259, dtype="float16")
    assert str(refused.value) == (
        "model: 2 faults\n"
        "  model.config.hidden_size = 0: must be a whole number from 1 to 67,108,864; "
        "write a whole number from 1 to 67,108,864\n"
        "  model.dtype = 'float16': unknown choice; did you mean bfloat16? "
        "(allowed: float32, bfloat16, float64)"
    )
