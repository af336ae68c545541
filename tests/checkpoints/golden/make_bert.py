"""Makes tiny random models of the BERT family, and what they say.

  python tests/checkpoints/golden/make_bert.py

transformers 5.23.0, torch 2.13.0. Each folder: config.json and
model.safetensors of a classifier whose every weight was drawn anew (std 0.3,
seed 0), and expected.npz: tokens of single texts and of pairs, mask, segment
ids, and logits, hidden states and attention. Folders that end in _masked hold
masked language models, and logits of every token at every position.
"""

import pathlib

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent
SEPARATOR, MASK = 3, 4
COMMON = {"vocab_size": 16, "num_labels": 3}
BERT = {
  "hidden_size": 8,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "intermediate_size": 12,
  "max_position_embeddings": 24,
}
KINDS = {
  "bert": ("Bert", BERT),
  "roberta": ("Roberta", BERT | {"type_vocab_size": 1, "pad_token_id": 1}),
  "electra": ("Electra", BERT | {"embedding_size": 8}),
  "distilbert": (
    "DistilBert",
    {
      "dim": 8,
      "n_layers": 2,
      "n_heads": 2,
      "hidden_dim": 12,
      "max_position_embeddings": 24,
    },
  ),
}


def texts(pad):
  """Tokens, mask and segments: a single text, a pair, a short one."""
  mask = np.arange(20) < np.array([[20], [13], [4]])
  tokens = np.random.default_rng(0).integers(4, 16, mask.shape)
  tokens[:, 0] = 2
  tokens[[0, 1, 1, 2], [19, 6, 12, 3]] = SEPARATOR
  segments = np.zeros_like(tokens)
  segments[1, 7:13] = 1
  return np.where(mask, tokens, pad), mask, segments


def make(name, folder):
  """The model of this kind, saved in a folder, and its arguments."""
  kind, shape = KINDS[name]
  torch.manual_seed(0)
  config = getattr(transformers, f"{kind}Config")(
    **COMMON, **shape, attn_implementation="eager"
  )
  model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
  for parameter in model.parameters():
    torch.nn.init.normal_(parameter, std=0.3)
  model.eval().save_pretrained(folder)
  tokens, mask, segments = texts(config.pad_token_id)
  given = {
    "input_ids": torch.tensor(tokens),
    "attention_mask": torch.tensor(mask).long(),
  }
  if name in ("bert", "electra"):
    given["token_type_ids"] = torch.tensor(segments)
  with torch.no_grad():
    said = model(**given, output_hidden_states=True, output_attentions=True)
  return {
    "tokens": tokens,
    "mask": mask,
    "segments": segments,
    "logits": said.logits.numpy(),
    "hidden": np.stack([x.numpy() for x in said.hidden_states]),
    "attention": np.stack([x.numpy() for x in said.attentions]),
  }


MASKED = tuple(f"{name}_masked" for name in KINDS if name != "electra")


def make_masked(name, folder):
  """The masked language model of this kind, likewise."""
  kind, shape = KINDS[name.removesuffix("_masked")]
  torch.manual_seed(0)
  config = getattr(transformers, f"{kind}Config")(**COMMON, **shape)
  model = getattr(transformers, f"{kind}ForMaskedLM")(config)
  for parameter in model.parameters():
    torch.nn.init.normal_(parameter, std=0.3)
  model.eval().save_pretrained(folder)
  tokens, mask, segments = texts(config.pad_token_id)
  hidden = mask & (np.random.default_rng(1).random(mask.shape) < 0.4)
  given = {
    "input_ids": torch.tensor(np.where(hidden, MASK, tokens)),
    "attention_mask": torch.tensor(mask).long(),
  }
  if name == "bert_masked":
    given["token_type_ids"] = torch.tensor(segments)
  with torch.no_grad():
    logits = model(**given).logits.numpy()
  return {"tokens": tokens, "mask": mask, "hidden": hidden, "logits": logits}


def main():
  for name in (*KINDS, *MASKED):
    folder = HERE / name
    expected = (make_masked if name in MASKED else make)(name, folder)
    for file in folder.iterdir():
      if file.name not in ("model.safetensors", "config.json"):
        file.unlink()
    np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
  main()
