"""A card says what its run's files say."""

import pytest

from augdistill.reports.model_card import model_card

RESULTS = {
  "method": "kd+augpro_mix",
  "task": "intents",
  "seed": 3,
  "metrics": {
    "validation": {"accuracy": 0.81234},
    "test": {"accuracy": 0.80001, "mse": 0.5},
  },
  "teacher_metrics": {"test": {"accuracy": 0.9}},
  "agreement": 0.855,
  "num_params": {"student": 216013, "teacher": 2172173},
  "num_steps": 1200,
  "best_step": 1080,
}


def card(results=RESULTS, **changed):
  given = {
    "rows": {"training": 1000, "validation": 100, "test": 3080},
    "label_names": ("card|lost", "card stolen"),
    "max_length": 64,
    "teacher": "runs/teacher",
    "argv": ["augdistill", "distill", "--method", "kd(temperature=2)"],
    "versions": {"jax": "0.10.2", "gone": None},
  }
  return model_card(results, **(given | changed))


def test_the_card_says_what_the_model_is_and_how_it_was_made():
  text = card()
  for part in (
    "216,013 parameters, distilled from a teacher of 2,172,173 (runs/teacher)",
    "up to 64 tokens",
    "2 labels: card|lost, card stolen.",
    "| validation (100 rows)",
    "0.8000",
    "0.9000",
    "mse (lower is better)",
    "85.5 %",
    "`kd+augpro_mix`",
    "1,000 training, 100 validation, 3,080 test",
    "1,200, seed 3",
    "step 1,080",
    "augdistill distill --method 'kd(temperature=2)'",
    "versions: jax 0.10.2\n",
  ):
    assert part in text, part
  assert text.startswith("---\nlibrary_name: augdistill\n")
  assert "gone" not in text
  assert "validation rows alone" not in text


def test_without_a_teacher_or_a_test_the_card_says_less_and_warns_more():
  results = RESULTS | {
    "agreement": None,
    "metrics": {"validation": {"pearson": 0.5}},
    "teacher_metrics": {},
  }
  text = card(results, teacher=None, label_names=())
  assert "distilled from" not in text
  assert "It learnt from its teacher" not in text
  assert "its teacher says" not in text
  assert "validation rows alone" in text
  assert "gives\na number." in text


@pytest.mark.parametrize(("count", "more"), [(100, ""), (103, "and 3 more")])
def test_very_many_labels_are_cut(count, more):
  text = card(label_names=tuple(f"label_{i}" for i in range(count)))
  assert f"{count} labels: label_0," in text
  assert "label_99" in text
  assert "label_100" not in text
  assert ("more" in text) == bool(more)
  assert more in text
