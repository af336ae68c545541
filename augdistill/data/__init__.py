"""Texts and labels become batches of arrays, a function of (seed, step).

The only door to tensorflow, seqio, tfds, sentencepiece and tokenizers; each is
imported where it is used, so that importing this package costs nothing.

  files       a table of texts and labels, checked row by row
  labels      what the labels mean: a Task, and the label arrays
  vocabulary  what every vocabulary offers; which kind a file is
  sentence_pieces  SentencePiece models, read or trained on texts
  subwords    WordPiece, BPE and what else tokenizers reads
  tasks       files as seqio Tasks, whose tokens are read back
  rows        any seqio Task as a table
  glue        GLUE as seqio Tasks, over TFDS
  dataset     a split, tokenised once, memory-mapped; subsets of it
  draws       random orders
  plan        which rows a step trains on
  batches     those rows as arrays
  load        all of this, from one configuration
  rewrites    other texts of the same rows, joined by their wording
  texts       texts without a data set, for a trained model
"""
