"""What does not fit is said before anything runs, and with its place."""

import pytest

from augdistill.errors import UsageError
from augdistill.losses.named import TERMS
from augdistill.models.projected import with_projections
from augdistill.training.methods import build_method
from augdistill.training.rehearsal import rehearse, spares_teacher
from augdistill.types import TaskKind
from tests import encoders, toy


def parts_of(text):
  """Two layers of 8 in two heads learn from four of 12 in three.

  Toy networks stand in, which are traced fast, where no layer is read.
  """
  method = build_method(text, TaskKind.CLASSES)
  deep = any(name in text for name in ("tmix", "pooled", *TERMS))
  student = encoders.STUDENT if deep else toy.STUDENT
  if method.needs_projections:
    student = with_projections(student, 12)
  return method, student, encoders.TEACHER if deep else toy.TEACHER


def rehearsed(text):
  method, student, teacher = parts_of(text)
  rehearse(
    method, student, teacher if method.needs_teacher else None, toy.VOCAB
  )


@pytest.mark.parametrize(
  "text",
  [
    "ft+mixup+eda*2",
    "kd+mmel_soft(view=rewrites)*2+batch_mixup",
    "kd(clean=false)+mmel_hard(view=freelb)",
    "kd+tmix(student_layer=2, teacher_layer=4)+hidden_mse(on=tmix)",
  ],
)
def test_what_fits_passes(text):
  rehearsed(text)


@pytest.mark.parametrize(
  ("text", "said"),
  [
    (
      "kd+hidden_mse(project=false)",
      "term 'hidden_mse' on view 'clean': hidden_mse compares states of one "
      "width, got 8 of the student and 12 of the teacher; set project=true to "
      "learn a projection",
    ),
    ("kd+pkd", "term 'pkd' on view 'clean': .*; set project=true"),
    (
      "kd+mixup+attention_kl(on=mixup)",
      "term 'attention_kl' on view 'mixup': .* got 2 heads of the student and "
      "3 of the teacher; set heads=mean",
    ),
    ("kd+relation_kl(relation_heads=5)", "must divide the width of both"),
    (
      "kd+hidden_mse(layers=l2_5)",
      "on view 'clean': the layer map 'l2_5' pairs layer 2 of the student with "
      "layer 5 of the teacher; the layers are 2 of the student and 4 of the",
    ),
    (
      "kd+tmix(teacher_layer=5)",
      "view 'tmix': teacher_layer must be at most 4, .*, got 5",
    ),
    (
      "kd+pooled_mixup+relation_kl(on=all)",
      "term 'relation_kl' on view 'pooled_mixup': .* enters at the head",
    ),
    (
      "kd+mmel_hard(view=tmix)*2",
      "view 'mmel_hard': the original stands only beside a view that enters at "
      "tokens or at embeddings",
    ),
    (
      "kd+projected(view=token_mix)",
      "view 'projected': only a view that enters at embeddings, such as mixup "
      "or fgsm, can be projected to tokens",
    ),
    ("kd+projected(view=tmix)", "view 'projected': only a view that enters at"),
    ("kd+projected(view=batch_mixup)", "'projected': only a view that enters"),
    (
      "kd+batch_mixup(teacher_weight=1)",
      "term 'kl' on view 'batch_mixup': the teacher is compared with",
    ),
    (
      "kd+batch_mixup(label_weight=1)",
      "term 'label' on view 'batch_mixup': the label is compared with",
    ),
    (
      "kd+batch_mixup(consistency_weight=1)",
      "term 'consistency' on view 'batch_mixup': .* points of a whole batch",
    ),
    ("kd+mmel_soft(view=batch_mixup)", "'mmel_soft': .* points of a whole bat"),
    (
      "kd+mixup(dot_product_weight=1)",
      "term 'dot_product' on view 'mixup': .* needs a view with label vectors",
    ),
    ("kd+knn(k=24)", "view 'knn': k must be less .*, got k=24 and 24 rows"),
    ("ft+tinybert(k=99)", "view 'tinybert': k must be less than the number of"),
    ("kd+eda(k=30)", "view 'eda': k must be less .*, got k=30 and 24 rows"),
  ],
)
def test_what_does_not_fit_is_said_with_its_view(text, said):
  with pytest.raises(UsageError, match=said):
    rehearsed(text)


@pytest.mark.parametrize(
  ("text", "spared"),
  [
    ("kd", True),
    ("kd+ad2+token_mix", True),
    ("kd(clean=false)+token_mix", False),
    ("kd+hidden_mse", False),
  ],
)
def test_known_answers_spare_the_teacher_unless_its_layers_are_read(
  text, spared
):
  assert spares_teacher(*parts_of(text), toy.VOCAB) == spared
