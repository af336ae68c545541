"""T5's weights do here what they do where they come from."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.checkpoints.begin import Source, begin, fit
from augdistill.checkpoints.foreign import Stored
from augdistill.checkpoints.state_dict import state_dict_arrays
from augdistill.checkpoints.t5_names import (
  enct5_shape,
  from_t5x,
  from_transformers,
)
from augdistill.checkpoints.t5x_checkpoint import t5x_arrays
from augdistill.errors import UsageError
from augdistill.models.enct5 import Encoder, EncT5Config, enct5
from augdistill.types import Inputs

GOLDEN = pathlib.Path(__file__).parent / "golden"
# Longer than relative positions are told apart.
LENGTH = 20


def begun(arrays, **more):
  shape = enct5_shape(arrays, "there") | more
  config = EncT5Config(num_outputs=3, **shape)
  params = enct5(config).init(jax.random.key(1))
  source = Source("there", EncT5Config, arrays, shape)
  return config, fit(params, source), begin(params, source)


def encoded(config, params, tokens, mask):
  x = jnp.asarray(params["token_embedder"]["embedding"])[tokens][None]
  out, *_ = Encoder(config).apply(
    {"params": params["encoder"]},
    x,
    jnp.asarray(mask)[None],
    0,
    deterministic=True,
  )
  return np.asarray(out[0])


def texts(vocab_size, rows=3):
  rng = np.random.default_rng(0)
  mask = np.arange(LENGTH) < np.array([[LENGTH], [7], [1]])[:rows]
  tokens = rng.integers(3, vocab_size, (rows, LENGTH))
  return np.where(mask, tokens, 0), mask


@pytest.mark.parametrize("kind", ["t5_1_1", "t5_1_0", "umt5"])
def test_what_transformers_said_once_is_said_here(kind):
  folder = GOLDEN / kind
  arrays = from_transformers(state_dict_arrays(str(folder)))
  config, fitted, params = begun(arrays, relative_max_distance=12)
  wanted = np.load(folder / "expected.npz")
  mask = wanted["mask"]
  got = encoded(config, params, wanted["tokens"], mask)
  np.testing.assert_allclose(
    got[mask], wanted["encoded"][mask], atol=1e-5, rtol=1e-4
  )
  assert set(fitted.new) == {"decoder/latent", "head/kernel", "head/bias"}


SHAPES = {
  "t5_1_1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
  "t5_1_0": {"feed_forward_proj": "relu"},
  "silu": {"feed_forward_proj": "gated-silu"},
  "umt5": {"feed_forward_proj": "gated-gelu"},
}


@pytest.fixture(scope="module", params=SHAPES)
def of_transformers(request, tmp_path_factory):
  """A tiny random model of transformers and its directory."""
  transformers = pytest.importorskip("transformers")
  torch = pytest.importorskip("torch")
  torch.manual_seed(0)
  kind = "UMT5" if request.param == "umt5" else "T5"
  config = getattr(transformers, f"{kind}Config")(
    vocab_size=32,
    d_model=16,
    d_kv=6,
    d_ff=24,
    num_layers=2,
    num_heads=2,
    decoder_start_token_id=0,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=12,
    **SHAPES[request.param],
  )
  model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
  for parameter in model.parameters():  # None at what it begins with.
    torch.nn.init.normal_(parameter, std=0.3)
  path = tmp_path_factory.mktemp("transformers") / request.param
  model.eval().save_pretrained(path)
  return model, path


def test_the_encoder_of_transformers_says_the_same_here(of_transformers):
  torch = pytest.importorskip("torch")
  model, path = of_transformers
  arrays = from_transformers(state_dict_arrays(str(path)))
  more = {"relative_max_distance": 12}
  if path.name == "silu":
    more["feed_forward"] = "gated-silu"
  config, _, params = begun(arrays, **more)
  assert config.num_layers == 2 and config.relative_buckets == 8
  assert config.relative_bias == (
    "per_layer" if path.name == "umt5" else "shared"
  )
  tokens, mask = texts(32)
  with torch.no_grad():
    wanted = model.get_encoder()(
      torch.tensor(tokens), attention_mask=torch.tensor(mask)
    ).last_hidden_state.numpy()
  got = encoded(config, params, tokens, mask)
  np.testing.assert_allclose(got[mask], wanted[mask], atol=1e-5, rtol=1e-4)


def test_the_decoders_first_layer_says_the_same_without_its_self_attention(
  of_transformers,
):
  torch = pytest.importorskip("torch")
  model, path = of_transformers
  arrays = from_transformers(state_dict_arrays(str(path)))
  more = {"relative_max_distance": 12}
  if path.name == "silu":
    more["feed_forward"] = "gated-silu"
  config, _, params = begun(arrays, **more)
  tokens, mask = texts(32)
  latent = np.asarray(params["decoder"]["latent"])
  with torch.no_grad():
    states = model.get_encoder()(
      torch.tensor(tokens), attention_mask=torch.tensor(mask)
    ).last_hidden_state
    decoder = model.get_decoder()
    x = torch.tensor(latent)[None].expand(3, 1, 16)
    block = decoder.block[0].layer
    attention = block[1].EncDecAttention
    bias = torch.where(torch.tensor(mask), 0.0, -1e10)[:, None, None, :]
    x = x + cross(torch, attention, block[1].layer_norm(x), states, bias)
    x = block[2](x)
    wanted = decoder.final_layer_norm(x)[:, 0].numpy()
  network = enct5(config)
  got = network.forward(
    params,
    Inputs(mask=jnp.asarray(mask)[None], tokens=jnp.asarray(tokens)[None]),
  ).pooled[0]
  np.testing.assert_allclose(got, wanted, atol=1e-5, rtol=1e-4)


def cross(torch, attention, x, states, bias):
  """Attention of transformers' weights, without its bias of positions."""

  def heads(y):
    return y.reshape(*y.shape[:2], 2, 6).transpose(1, 2)

  q, k = heads(attention.q(x)), heads(attention.k(states))
  v = heads(attention.v(states))
  p = torch.softmax(q @ k.transpose(2, 3) + bias, -1)
  return attention.o((p @ v).transpose(1, 2).reshape(*x.shape[:2], 12))


def test_what_is_new_and_what_is_left_over_is_told(of_transformers):
  _, path = of_transformers
  arrays = from_transformers(state_dict_arrays(str(path)))
  _, fitted, _ = begun(arrays)
  assert set(fitted.new) == {"decoder/latent", "head/kernel", "head/bias"}
  assert all(name.startswith(("decoder", "lm_head")) for name in fitted.left)
  assert "; new: decoder (16), head (51); left over: decoder (" in str(fitted)


@pytest.mark.parametrize(
  "fixture", ["t5_1_0", "t5_1_1", "t5_1_1_scan", "t5_1_1_native_1layer"]
)
def test_t5xs_own_numbers_come_out(shared_data, fixture):
  folder = pathlib.Path(shared_data) / "t5x_checkpoints" / fixture
  arrays = from_t5x(t5x_arrays(str(folder / "checkpoint_5")))
  config, fitted, params = begun(arrays)
  wanted = np.load(folder / "reference.npz")
  tokens = wanted["encoder_input_tokens"]
  mask = tokens > 0
  got = encoded(config, params, tokens, mask)
  np.testing.assert_allclose(
    got[mask], wanted["encoded"][mask], atol=1e-5, rtol=1e-4
  )
  assert set(fitted.new) == {"decoder/latent", "head/kernel", "head/bias"}


def test_weights_of_something_else_are_refused():
  array = Stored((3, 2), np.dtype("float32"), lambda: np.zeros((3, 2), "f4"))
  with pytest.raises(UsageError, match="there must hold a T5"):
    enct5_shape({"bert.embeddings.weight": array}, "there")


@pytest.mark.parametrize("shape", [(), (5,), (5, 10**12), (5, 2, 3, 4, 5)])
def test_a_stack_that_is_none_is_told(shape):
  name = "encoder/encoder/mlp/wi/kernel"
  stack = Stored(shape, np.dtype("f4"), lambda: np.zeros(shape))
  with pytest.raises(UsageError, match=f"{name} must be a stack of at most"):
    from_t5x({name: stack})


@pytest.mark.parametrize(
  "name",
  ["token_embedder/embedding", "encoder/layers_0/attention/query/kernel"],
)
@pytest.mark.parametrize("shape", [None, (), (8,), (0, 8)])
def test_weights_of_no_such_shape_are_no_t5(name, shape):
  arrays = dict.fromkeys(
    (
      *("token_embedder/embedding", "encoder/layers_0/attention/query/kernel"),
      *("encoder/layers_0/mlp/wi/kernel", "encoder/relpos_bias/rel_embedding"),
    ),
    Stored((8, 8), np.dtype("f4"), lambda: np.zeros((8, 8))),
  )
  assert enct5_shape(arrays, "DIR")["num_heads"] == 8
  arrays[name] = Stored(shape or (), np.dtype("f4"), lambda: np.zeros(shape))
  if shape is None:
    del arrays[name]
  said = "has no" if shape is None else f"{name} is float32"
  with pytest.raises(UsageError, match=f"DIR must hold a T5, .*but .*{said}"):
    enct5_shape(arrays, "DIR")
