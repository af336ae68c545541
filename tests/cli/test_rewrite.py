"""Rewrites: made by a pretrained model, read from files, learnt from."""

import argparse
import json

import numpy as np
import pytest

from augdistill.cli import config, fit, given_rewrites, parts, rewriting
from augdistill.cli.pretrained import Pretrained
from augdistill.cli.rewrite_options import RewriteOptions
from augdistill.data.rewrites import bare, read_rewrites, rewrite_lines
from augdistill.errors import UsageError
from tests.cli.tiny import (
  TINY,
  examples,
  ok,
  params,
  read_jsonl,
  results,
  run,
  same_bits,
  snapshot,
  write_tsv,
)

TEXTS = [(text,) for text, _ in examples(60)]


@pytest.fixture(scope="module")
def generator(pretrained):
  return Pretrained.load(str(pretrained))


@pytest.fixture(scope="module")
def rewritten(files, pretrained):
  """What `rewrite` made of the training file."""
  output = files / "rewrites.jsonl"
  data = f"--data={files / 'train.tsv'}", f"--generator={pretrained}"
  done = ok("rewrite", *data, f"--output={output}")
  return output, done.out


# --- the command -------------------------------------------------------------


def test_every_text_has_its_rewrites_in_the_order_of_the_file(rewritten):
  path, out = rewritten
  rows, texts = read_jsonl(path), list(dict.fromkeys(TEXTS))
  assert [(row["sentence"],) for row in rows] == texts
  for row in rows:
    assert list(row) == ["sentence", "rewrites"]
    assert len(row["rewrites"]) == 4
    # They differ in the token that is filled in first.
    assert len(set(row["rewrites"])) > 1
  count = sum(len(row["rewrites"]) for row in rows)
  assert f"{path}: {count:,} rewrites of {len(texts):,} texts in" in out
  assert "a second" in out
  assert "of tokens changed" in out


def test_the_share_that_is_hidden_is_the_rate_of_the_texts_tokens(generator):
  texts, vocab = list(dict.fromkeys(TEXTS)), generator.vocab
  for rate in (0.2, 0.4):
    options = RewriteOptions(rate=rate, copies=2)
    done = rewriting.rewrite_texts(generator, texts, options)
    # A text is cut to 16 tokens, its end among them.
    sizes = [min(len(vocab.encode([text])[0]), 15) for (text,) in texts]
    hidden = sum(max(int(rate * n + 0.5), 1) for n in sizes) / sum(sizes)
    assert 0.5 * hidden < done.changed <= hidden + 1e-9


def test_the_same_flags_write_the_same_file_and_others_another(
  tmp_path, files, pretrained, rewritten
):
  flags = f"--data={files / 'train.tsv'}", f"--generator={pretrained}"
  names, texts = ("again", "seed", "beam", "copies", "rate"), []
  others = "", "--seed=1", "--search=beam", "--copies=2", "--rate=0.2"
  for name, other in zip(names, others, strict=True):
    output = tmp_path / f"{name}.jsonl"
    ok("rewrite", *flags, *other.split(), f"--output={output}")
    texts.append(output.read_text())
  assert texts[0] == rewritten[0].read_text()
  assert len(set(texts)) == 5
  assert all(
    len(row["rewrites"]) == 2 for row in map(json.loads, texts[3].splitlines())
  )


def test_what_a_text_becomes_does_not_depend_on_the_others(generator):
  options = RewriteOptions()
  whole = rewriting.rewrite_texts(generator, TEXTS, options).texts
  some = rewriting.rewrite_texts(generator, TEXTS[7:3:-1], options).texts
  assert all(some[text] == whole[text] for text in some)
  assert len(some) == 4


def test_a_task_has_its_training_texts_rewritten(
  tmp_path, monkeypatch, pretrained
):
  seen = []

  def rewrite_texts(generator, texts, options):
    seen.extend(texts)
    return rewriting.Rewritten({("a",): [("b",)]}, 1.0, 0.5, 0.0)

  monkeypatch.setattr(rewriting, "rewrite_texts", rewrite_texts)
  output = tmp_path / "r.jsonl"
  flags = "--task=helpdesk", f"--generator={pretrained}"
  ok("rewrite", *flags, f"--output={output}")
  assert len(seen) == 6000
  assert read_jsonl(output) == [{"sentence": "a", "rewrites": ["b"]}]


# --- pairs -------------------------------------------------------------------

PAIRS = [
  ("my card is not working", "the card is new"),
  ("please help with my visa", "the card is new"),
  ("the atm is not working today", "help"),
]


def test_separate_texts_of_a_pair_are_rewritten_each_for_itself(generator):
  options = RewriteOptions(pairs="separate")
  found = rewriting.rewrite_texts(generator, PAIRS, options).texts
  assert list(found) == PAIRS
  alone = rewriting.rewrite_texts(
    generator, [(part,) for pair in PAIRS for part in pair], options
  ).texts
  for pair, its in found.items():
    assert len(its) == 4
    for part in range(2):
      want = [text for (text,) in alone[(pair[part],)]]
      assert [new[part] for new in its] == want
  # The same second text has the same rewrites beside either first one.
  assert [n[1] for n in found[PAIRS[0]]] == [n[1] for n in found[PAIRS[1]]]


def test_texts_of_a_pair_together_are_rewritten_as_one(generator):
  found = rewriting.rewrite_texts(
    generator, PAIRS, RewriteOptions(pairs="together")
  ).texts
  assert list(found) == PAIRS
  for its in found.values():
    assert all(len(new) == 2 and all(new) for new in its)
  assert [n[1] for n in found[PAIRS[0]]] != [n[1] for n in found[PAIRS[1]]]


def test_a_part_of_a_pair_that_has_fewer_rewrites_stays(generator):
  new = {("a",): [("b",), ("c",)], ("x",): []}
  assert rewriting._side_by_side(("a", "x"), new) == [("b", "x"), ("c", "x")]
  assert rewriting._side_by_side(("x", "x"), new) == []


# --- learnt from -------------------------------------------------------------


def batches_of(path):
  """What `fit` would train on in a run, from its own configuration."""
  args = argparse.Namespace(
    gin_file=[str(path / "config.gin")], gin_search_paths="", gin_bindings=[]
  )
  made = parts.prepare(config.resolve("runs/finetune.gin", args)[0])
  return fit.training(made).batch_at, made


@pytest.mark.parametrize(
  "command", [pytest.param("finetune", marks=pytest.mark.slow), "distill"]
)
def test_a_method_learns_from_the_rewrites_of_a_file(
  tmp_path, data, teacher, rewritten, command
):
  path, output = rewritten[0], tmp_path / "run"
  flags = {
    "finetune": ("--method=ft+rewrites",),
    "distill": (f"--teacher={teacher}", "--method=kd+rewrites*2"),
  }[command]
  done = ok(
    *(command, *data, *TINY, *flags, f"--rewrites={path}"),
    f"--output_dir={output}",
  )
  assert f"{path}: 216 rewrites of 54 of 54 rows" in done.out
  rows = read_jsonl(output / "metrics.jsonl")
  found = [row["rewrites/rewritten"] for row in rows if "loss" in row]
  assert found == [1.0] * 4
  provenance = json.loads((output / "provenance.json").read_text())
  assert "rewrites" in provenance["data_fingerprints"]


def test_batches_carry_the_files_rewrites_of_their_rows(tmp_path, data, files):
  some = {text: [("new " + text[0],)] for text in TEXTS[::2]}
  path = tmp_path / "r.jsonl"
  path.write_text("".join(rewrite_lines(some.items())))
  output = tmp_path / "run"
  flags = "--method=ft+rewrites", f"--rewrites={path}"
  done = ok("finetune", *data, *TINY, *flags, f"--output_dir={output}")
  batch_at, made = batches_of(output)
  vocab, seen = made.data.vocab, 0
  for step in range(4):
    batch = batch_at(step)
    for row, number in enumerate(batch.example_id):
      text = TEXTS[number]
      there = text in some
      assert batch.rewrites.weight[0, row] == there
      tokens = batch.rewrites.tokens[0, row]
      (want,) = vocab.encode(some[text][0] if there else text)
      assert vocab.decode(tokens) == vocab.decode(want[:15])  # and its end
      seen += there
  assert 0 < seen < 32
  having = int((made.rewrites.counts > 0).sum())
  assert f"{having} rewrites of {having} of 54 rows" in done.out


def test_rewrites_that_nothing_reads_are_noted(tmp_path, data, rewritten):
  flags = f"--rewrites={rewritten[0]}", f"--output_dir={tmp_path / 'run'}"
  done = ok("finetune", *data, *TINY, *flags)
  assert "no view of ft is called rewrites: nothing reads them" in done.out


def test_a_run_goes_on_with_the_rewrites_that_it_began_with(
  tmp_path, data, rewritten
):
  path, output = tmp_path / "r.jsonl", tmp_path / "run"
  path.write_text(rewritten[0].read_text())
  flags = (
    *("finetune", *data, *TINY, "--method=ft+rewrites"),
    *(f"--rewrites={path}", f"--output_dir={output}"),
  )
  ok(*flags)
  (output / "results.json").unlink()
  path.write_text(rewritten[0].read_text().replace("card", "visa"))
  before = snapshot(output)
  done = run(*flags)
  assert done.code == 2
  assert "its rewrites rows have changed" in done.err
  assert snapshot(output) == before


@pytest.mark.parametrize(
  "method, whether",
  [
    ("kd", False),
    ("kd+rewrites", True),
    ("ft+token_mix+rewrites(weight=2)*3", True),
    ("kd+mmel_soft(view=rewrites)*4", True),
    ("kd+alternate(rewrites, none)", True),
    ("kd+mmel_soft(view=augpro_mix(lam=0.5))*4", False),
  ],
)
def test_a_method_reads_rewrites_wherever_it_names_them(method, whether):
  assert given_rewrites.reads_rewrites(method) is whether


# --- made by the run itself --------------------------------------------------


@pytest.fixture(scope="module")
def own(files, data, teacher, pretrained, caches):
  """A run that made its rewrites, and the cache's file of them."""
  before = set((caches / "augdistill").glob("rewrites-*.jsonl"))
  flags = (
    *("distill", *data, *TINY, f"--teacher={teacher}"),
    *(f"--generator={pretrained}/", "--method=kd+rewrites*3"),
    "--gin.RewriteOptions.copies=3",
  )
  done = ok(*flags, f"--output_dir={files / 'rewriting'}")
  (made,) = set((caches / "augdistill").glob("rewrites-*.jsonl")) - before
  return files / "rewriting", flags, done, made


def test_a_run_makes_its_rewrites_and_says_so(own, pretrained):
  path, _, done, made = own
  rows = len(read_jsonl(made))
  assert f"{3 * rows:,} rewrites of {rows:,} texts in" in done.out
  assert f"the generator {pretrained}: 162 rewrites of 54 of 54" in done.out
  assert results(path)["method"] == "kd+rewrites*3"
  assert "RewriteOptions.copies = 3" in (path / "config.gin").read_text()


def test_the_second_run_reads_the_cache_and_is_the_same(
  tmp_path, monkeypatch, own
):
  path, flags, _, made = own
  before = made.stat().st_mtime_ns

  def never(*arguments):
    raise AssertionError("generated again")

  monkeypatch.setattr(rewriting, "rewrite_texts", never)
  other = tmp_path / "other"
  done = ok(*flags, f"--output_dir={other}")
  assert "texts in" not in done.out
  assert same_bits(params(other), params(path))
  assert made.stat().st_mtime_ns == before


def test_the_cache_is_of_texts_generator_and_options(
  tmp_path, monkeypatch, generator, pretrained
):
  made = []

  def rewrite_texts(generator, texts, options):
    made.append(1)
    new = {text: [text] for text in texts}
    return rewriting.Rewritten(new, 1.0, 0.0, 1.0)

  monkeypatch.setattr(rewriting, "rewrite_texts", rewrite_texts)

  def path(generator=generator, texts=TEXTS, **options):
    return rewriting.cached_rewrites(
      generator, texts, RewriteOptions(**options), tmp_path
    )

  assert path() == path() == path(texts=[*TEXTS[::-1], TEXTS[0]])
  assert len(made) == 1
  again = Pretrained.load(str(pretrained))
  assert path(again) == path()
  other = Pretrained.load(str(pretrained))
  other.params["bias"] = other.params["bias"].at[3].add(1e-3)
  paths = {
    path(),
    path(other),
    path(texts=TEXTS[:9]),
    *(
      path(**{name: value})
      for name, value in {
        "copies": 3,
        "rate": 0.3,
        "search": "beam",
        "pairs": "together",
        "own_positions": True,
        "seed": 1,
      }.items()
    ),
  }
  assert len(paths) == len(made) == 9
  assert read_rewrites(path(), pair=False)[bare(TEXTS[0])] == [TEXTS[0]]


def test_a_cache_that_cannot_be_written_is_explained(
  tmp_path, monkeypatch, generator
):
  monkeypatch.setattr(
    rewriting,
    "rewrite_texts",
    lambda *_: rewriting.Rewritten({("a",): [("b",)]}, 1.0, 0.0, 0.0),
  )
  (tmp_path / "file").write_text("")
  with pytest.raises(Exception, match="cannot write to the data cache"):
    rewriting.cached_rewrites(
      generator, TEXTS, RewriteOptions(), tmp_path / "file"
    )


# --- what is wrong -----------------------------------------------------------

WRONG = {
  "no_generator": (
    "rewrite --data=train.tsv --output=r.jsonl",
    ["--generator"],
  ),
  "nowhere": (
    "rewrite --data=train.tsv --generator=nowhere --output=r.jsonl",
    ["nowhere"],
  ),
  "no_language_model": (
    "rewrite --data=train.tsv --generator={teacher} --output=r.jsonl",
    ["must hold a run of augdistill pretrain, but holds one of finetune"],
  ),
  "no_data": (
    "rewrite --generator={pretrained} --output=r.jsonl",
    ["--data", "--task"],
  ),
  "two_data": (
    "rewrite --data=a --task=b --generator={pretrained} --output=r.jsonl",
    ["not allowed with"],
  ),
  "missing": (
    "rewrite --data=no.tsv --generator={pretrained} --output=r.jsonl",
    ["no.tsv does not exist"],
  ),
  "output": (
    "rewrite --data=train.tsv --generator={pretrained} --output=r.txt",
    ["--output", ".jsonl, got r.txt"],
  ),
  "copies": (
    "rewrite --data=train.tsv --generator={pretrained} --output=r.jsonl "
    "--copies=0",
    ["copies must be at least 1, got 0"],
  ),
  "rate": (
    "rewrite --data=train.tsv --generator={pretrained} --output=r.jsonl "
    "--rate=1.5",
    ["rate must be in (0, 1], got 1.5"],
  ),
  "search": (
    "rewrite --data=train.tsv --generator={pretrained} --output=r.jsonl "
    "--search=greed",
    ["greed", "greedy", "beam"],
  ),
  "seed": (
    "rewrite --data=train.tsv --generator={pretrained} --output=r.jsonl "
    "--seed=-1",
    ["seed must be in [0, 2^32), got -1"],
  ),
  "options_of_a_run": (
    "finetune --train=train.tsv --gin.RewriteOptions.search='bem'",
    ["search must be greedy or beam, got 'bem'", "mean 'beam'"],
  ),
  "both": (
    "finetune --train=train.tsv --rewrites=r --generator={pretrained}",
    ["but not both"],
  ),
  "none": (
    "finetune --train=train.tsv --method=ft+rewrites",
    ["'ft+rewrites' has a view of rewrites", "--rewrites FILE"],
  ),
  "other_texts": (
    "finetune --train=train.tsv --method=ft+rewrites --rewrites=other.tsv",
    ["other.tsv", "its 1 texts 0 are among the 54 training rows"],
  ),
  "missing_file": (
    "finetune --train=train.tsv --method=ft+rewrites --rewrites=no.tsv",
    ["no.tsv does not exist"],
  ),
  "wrong_file": (
    "finetune --train=train.tsv --method=ft+rewrites --rewrites=train.tsv",
    ["train.tsv", "sentence, rewrite, got sentence, label"],
  ),
  "generator_of_a_run": (
    "distill --train=train.tsv --teacher={teacher} --method=kd+rewrites "
    "--generator={teacher}",
    ["must hold a run of augdistill pretrain"],
  ),
  "before_a_teacher_is_trained": (
    "distill --train=train.tsv --teacher_model=micro --method=kd+rewrites "
    "--rewrites=other.tsv",
    ["other.tsv", "0 are among the 54"],
  ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_bad_command_is_refused_in_one_line(
  tmp_path, monkeypatch, teacher, pretrained, case
):
  monkeypatch.chdir(tmp_path)
  write_tsv(tmp_path / "train.tsv", examples(60))
  write_tsv(tmp_path / "other.tsv", [("x", "y")], ("sentence", "rewrite"))
  before = snapshot(tmp_path)
  line, said = WRONG[case]
  words = line.format(teacher=teacher, pretrained=pretrained).split()
  if words[0] != "rewrite":
    words += [*TINY, "--output_dir=run"]
  done = run(*words)
  assert done.code == 2, done.err
  assert done.err.startswith("augdistill: error: ")
  assert done.err.count("\n") == 1
  assert all(word in done.err for word in said), done.err
  assert snapshot(tmp_path) == before


def test_an_output_that_cannot_be_written_costs_no_rewriting(
  tmp_path, monkeypatch, files, pretrained
):
  rewritten = []
  monkeypatch.setattr(rewriting, "rewrite_texts", rewritten.append)
  (tmp_path / "file").write_text("kept")
  done = run(
    *("rewrite", f"--data={files / 'train.tsv'}", f"--generator={pretrained}"),
    f"--output={tmp_path / 'file' / 'r.jsonl'}",
  )
  assert done.code == 1
  assert done.err.count("\n") == 1
  assert f"({tmp_path / 'file'})" in done.err
  assert not rewritten
  assert (tmp_path / "file").read_text() == "kept"


def test_own_positions_are_for_greedy_search():
  with pytest.raises(UsageError, match="own_positions is for the search"):
    RewriteOptions(search="beam", own_positions=True)


def test_a_rewrite_is_text_that_only_ordinary_pieces_were_put_into(
  generator, rewritten
):
  vocab = generator.vocab
  for row in read_jsonl(rewritten[0])[:10]:
    for text in row["rewrites"]:
      tokens = np.array(vocab.encode([text])[0])
      assert vocab.lexicon.producible[tokens].all()
