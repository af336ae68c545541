"""T5 1.1 encoder and EncT5 in float64 NumPy, without dropout.

Sources:
  Raffel et al. 2020, arXiv:1910.10683, section 2.1: RMS norm before each
    sub-layer, no bias terms, no 1/sqrt(d) in attention, one relative position
    bias per head and bucket shared by all layers of a stack; buckets as in
    `_relative_position_bucket` of Mesh TensorFlow, to which the paper refers.
  Shazeer 2020, arXiv:2002.05202, equation 6: the gated GELU of T5 1.1.
  Liu et al. 2021, arXiv:2110.08426: EncT5 = that encoder, one decoder layer
    whose queries are learned latents (AugPro leaves out its self-attention),
    and a linear head.

Parameters, a nested dict with T5X's names:

  token_embedder/embedding                                 [V, D]
  encoder/relpos_bias/rel_embedding                        [H, 32]
  encoder/layers_i/attention/{query,key,value}/kernel      [D, H, K]
  encoder/layers_i/attention/out/kernel                    [H, K, D]
  encoder/layers_i/mlp/{wi_0,wi_1}/kernel                  [D, F]
  encoder/layers_i/mlp/wo/kernel                           [F, D]
  encoder/layers_i/pre_{attention,mlp}_layer_norm/scale    [D]
  encoder/encoder_norm/scale                               [D]
  decoder/latent                                           [Q, D], ours
  decoder/layers_0/encoder_decoder_attention/...           as attention
  decoder/layers_0/mlp/...                                 as above
  decoder/layers_0/pre_{cross_attention,mlp}_layer_norm/scale  [D]
  decoder/decoder_norm/scale                               [D]
  head/{kernel,bias}                                       [D, C], [C], ours

Axes: B batch, L positions, D embedding, H heads, K width of a head, F width of
the MLP, Q latent queries, V vocabulary, C classes.
"""

import numpy as np

MASK_BIAS = -1e10


def relative_position_bucket(
  relative_position, bidirectional=True, num_buckets=32, max_distance=128
):
  """Bucket of each relative position, as in T5.

  Bidirectional: the upper half of the buckets is for memory after the query.
  Within a half of N buckets, with E = N // 2, a distance n < E has its own
  bucket, and a larger one falls into

    E + floor((N - E) log(n / E) / log(max_distance / E)),  at most N - 1.

  The floor is the number of k >= 1 with (n / E)^(N - E) >= (max_distance / E)^k
  which is decided here in integers. So a distance that lies exactly on an edge
  (16, 32, 64 for 32 buckets both ways) cannot be rounded to the wrong side.

  Args:
    relative_position: integers, memory position - query position.
    bidirectional: False maps every positive relative position to bucket 0.
    num_buckets: number of buckets, both directions together.
    max_distance: distance from which on there is one bucket.

  Returns:
    int64 array of the same shape.
  """
  relative_position = np.asarray(relative_position)
  half = num_buckets // 2 if bidirectional else num_buckets
  exact = half // 2
  log_buckets = half - exact
  buckets = np.zeros(relative_position.shape, np.int64)
  for index in np.ndindex(relative_position.shape):
    position = int(relative_position[index])
    offset = 0
    if bidirectional:
      distance = abs(position)
      if position > 0:
        offset = half
    else:
      distance = max(-position, 0)
    if distance < exact:
      bucket = distance
    else:
      bucket = exact
      for k in range(1, log_buckets):
        reached = distance**log_buckets * exact**k
        if reached >= max_distance**k * exact**log_buckets:
          bucket = exact + k
    buckets[index] = offset + bucket
  return buckets


def rms_norm(x, scale, eps=1e-6):
  """x / sqrt(mean of x^2 over the last axis + eps) * scale; nothing added."""
  x = np.asarray(x, np.float64)
  mean_square = np.mean(x**2, axis=-1, keepdims=True)
  return x / np.sqrt(mean_square + eps) * np.asarray(scale, np.float64)


def softmax(logits):
  """Softmax over the last axis."""
  shifted = logits - np.max(logits, axis=-1, keepdims=True)
  exp = np.exp(shifted)
  return exp / np.sum(exp, axis=-1, keepdims=True)


def attention(q_in, kv_in, wq, wk, wv, wo, bias):
  """Multi-head attention without 1/sqrt(K).

    P_bh = softmax((q_in_b wq_h) (kv_in_b wk_h)^T + bias_bh)
    out_b = sum_h P_bh (kv_in_b wv_h) wo_h

  Args:
    q_in: [B, Lq, D].
    kv_in: [B, Lk, D].
    wq, wk, wv: [D, H, K].
    wo: [H, K, D].
    bias: broadcastable to [B, H, Lq, Lk].

  Returns:
    out [B, Lq, D] and the probabilities P [B, H, Lq, Lk].
  """
  q_in, kv_in, wq, wk, wv, wo = (
    np.asarray(a, np.float64) for a in (q_in, kv_in, wq, wk, wv, wo)
  )
  batch, q_len, emb_dim = q_in.shape
  k_len = kv_in.shape[1]
  num_heads = wq.shape[1]
  bias = np.broadcast_to(
    np.asarray(bias, np.float64), (batch, num_heads, q_len, k_len)
  )
  out = np.zeros((batch, q_len, emb_dim))
  probs = np.zeros((batch, num_heads, q_len, k_len))
  for b in range(batch):
    for h in range(num_heads):
      query = q_in[b] @ wq[:, h]  # [Lq, K]
      key = kv_in[b] @ wk[:, h]  # [Lk, K]
      value = kv_in[b] @ wv[:, h]  # [Lk, K]
      probs[b, h] = softmax(query @ key.T + bias[b, h])  # [Lq, Lk]
      out[b] += probs[b, h] @ value @ wo[h]  # [Lq, D]
  return out, probs


def gelu(x):
  """GELU in its tanh approximation, Hendrycks and Gimpel 2016."""
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gated_mlp(x, wi_0, wi_1, wo):
  """(gelu(x wi_0) * (x wi_1)) wo; wi_0 and wi_1 [D, F], wo [F, D]."""
  x, wi_0, wi_1, wo = (np.asarray(a, np.float64) for a in (x, wi_0, wi_1, wo))
  return (gelu(x @ wi_0) * (x @ wi_1)) @ wo


def _attention_of(q_in, kv_in, params, bias):
  return attention(
    q_in,
    kv_in,
    params["query"]["kernel"],
    params["key"]["kernel"],
    params["value"]["kernel"],
    params["out"]["kernel"],
    bias,
  )


def _mlp_of(x, params):
  return gated_mlp(
    x,
    params["wi_0"]["kernel"],
    params["wi_1"]["kernel"],
    params["wo"]["kernel"],
  )


def _key_bias(mask):
  """[B, 1, 1, L]: 0 at a real key, -1e10 at a padding key."""
  return np.where(np.asarray(mask, bool), 0.0, MASK_BIAS)[:, None, None, :]


def encoder(embeddings, mask, params, num_layers):
  """The T5 1.1 encoder stack.

    x_0 = embeddings, not scaled
    y_i = x_i + attention(norm(x_i));  x_{i+1} = y_i + mlp(norm(y_i))
    encoded = encoder_norm(x_num_layers)

  Every layer adds the same bias rel_embedding[h, bucket(k - q)].

  Args:
    embeddings: [B, L, D].
    mask: bool [B, L], True at real tokens. Only keys are masked: a padding
      position still asks, and what it gets is defined but means nothing.
    params: the whole model's dict; 'encoder' is used, with kernels of query,
      key and value [D, H, K] and of out [H, K, D].
    num_layers: number of layers to run, from layers_0 on.

  Returns:
    A dict: 'hidden', list of [B, L, D], the embeddings and then what each layer
    puts out, before the final norm; 'encoded' [B, L, D], after it; 'attention',
    list of [B, H, L, L], one per layer.
  """
  params = params["encoder"]
  x = np.asarray(embeddings, np.float64)
  length = x.shape[1]
  table = np.asarray(params["relpos_bias"]["rel_embedding"], np.float64)
  positions = np.arange(length)
  buckets = relative_position_bucket(
    positions[None, :] - positions[:, None], num_buckets=table.shape[1]
  )  # [query, key]
  bias = table[:, buckets][None] + _key_bias(mask)  # [B, H, L, L]

  hidden = [x]
  probs = []
  for i in range(num_layers):
    layer = params[f"layers_{i}"]
    normed = rms_norm(x, layer["pre_attention_layer_norm"]["scale"])
    out, layer_probs = _attention_of(normed, normed, layer["attention"], bias)
    x = x + out
    normed = rms_norm(x, layer["pre_mlp_layer_norm"]["scale"])
    x = x + _mlp_of(normed, layer["mlp"])
    hidden.append(x)
    probs.append(layer_probs)
  encoded = rms_norm(x, params["encoder_norm"]["scale"])
  return {"hidden": hidden, "encoded": encoded, "attention": probs}


def enct5(tokens_or_embeddings, mask, params, num_layers):
  """EncT5 with one decoder layer that has no self-attention.

    x = latent + cross_attention(norm(latent), encoded)   no position bias
    x = x + mlp(norm(x))
    pooled = decoder_norm(x)[:, 0];  logits = pooled head + bias

  Args:
    tokens_or_embeddings: integers [B, L], looked up in
      params['token_embedder']['embedding'], or floats [B, L, D].
    mask: bool [B, L], True at real tokens.
    params: nested dict in the layout at the top of this module.
    num_layers: number of encoder layers.

  Returns:
    The dict of `encoder` and: 'pooled' [B, D]; 'logits' [B, C];
    'cross_attention' [B, H, Q, L].
  """
  inputs = np.asarray(tokens_or_embeddings)
  if np.issubdtype(inputs.dtype, np.integer):
    inputs = np.asarray(params["token_embedder"]["embedding"])[inputs]
  outputs = encoder(inputs, mask, params, num_layers)

  decoder = params["decoder"]
  layer = decoder["layers_0"]
  latent = np.asarray(decoder["latent"], np.float64)
  batch = outputs["encoded"].shape[0]
  x = np.stack([latent] * batch)  # [B, Q, D]
  out, cross_probs = _attention_of(
    rms_norm(x, layer["pre_cross_attention_layer_norm"]["scale"]),
    outputs["encoded"],
    layer["encoder_decoder_attention"],
    _key_bias(mask),
  )
  x = x + out
  normed = rms_norm(x, layer["pre_mlp_layer_norm"]["scale"])
  x = x + _mlp_of(normed, layer["mlp"])
  pooled = rms_norm(x, decoder["decoder_norm"]["scale"])[:, 0]  # [B, D]
  head = params["head"]
  logits = pooled @ np.asarray(head["kernel"], np.float64)
  logits = logits + np.asarray(head["bias"], np.float64)
  return {
    **outputs,
    "pooled": pooled,
    "logits": logits,
    "cross_attention": cross_probs,
  }
