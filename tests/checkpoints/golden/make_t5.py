"""Makes tiny random T5s with transformers and torch, and what they say.

  python tests/checkpoints/golden/make_t5.py

transformers 5.23.0, torch 2.13.0. Each folder: model.safetensors of a model
whose every weight was drawn anew (std 0.3, seed 0), and expected.npz: tokens,
mask, and the encoder's last hidden state.
"""

import pathlib

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent
KINDS = {
  "t5_1_1": ("T5", "gated-gelu"),
  "t5_1_0": ("T5", "relu"),
  "umt5": ("UMT5", "gated-gelu"),
}


def main():
  for name, (kind, feed_forward) in KINDS.items():
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
      vocab_size=16,
      d_model=8,
      d_kv=3,
      d_ff=12,
      num_layers=2,
      num_heads=2,
      decoder_start_token_id=0,
      relative_attention_num_buckets=8,
      relative_attention_max_distance=12,
      feed_forward_proj=feed_forward,
    )
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    for parameter in model.parameters():
      torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(HERE / name)
    for file in (HERE / name).iterdir():
      if file.name != "model.safetensors":
        file.unlink()
    mask = np.arange(20) < np.array([[20], [7], [1]])
    tokens = np.random.default_rng(0).integers(1, 16, mask.shape) * mask
    with torch.no_grad():
      encoded = model.get_encoder()(
        torch.tensor(tokens), attention_mask=torch.tensor(mask)
      ).last_hidden_state.numpy()
    np.savez_compressed(
      HERE / name / "expected.npz", tokens=tokens, mask=mask, encoded=encoded
    )


if __name__ == "__main__":
  main()
