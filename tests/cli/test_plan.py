"""What a run will take is told, with or without data and teacher."""

import importlib.util
import json
import re
import types

import jax
import pytest

from augdistill.cli import planning
from augdistill.training import abstract
from augdistill.training.chips import CHIPS
from tests.cli.tiny import ok, run

# Without a compiler, but for the one test of it.
TINY = (
  *("plan", "--kind=v3", "--model=micro", "--length=16", "--batch_size=8"),
  *("--vocab_size=40", "--num_steps=3600", "--devices=2"),
)
FAST = (*TINY, "--no_compile")
MIX = ("--teacher_model=micro", "--method=kd+augpro_mix")


def planned(tmp_path, *flags):
  """The plan as JSON, and the words that were printed."""
  path = tmp_path / "plan.json"
  done = ok(*flags, f"--output={path}")
  return json.loads(path.read_text()), done.out


def row(printed, name):
  """The cells of the row that begins with a name."""
  (line,) = re.findall(rf"^│ {re.escape(name)} .*$", printed, re.MULTILINE)
  return [cell.strip() for cell in line.strip("│").split("│")][1:]


def test_what_is_printed_is_what_is_written(tmp_path):
  plan, printed = planned(tmp_path, *FAST, *MIX, "--price_per_hour=8")
  for name in ("student", "teacher"):
    assert row(printed, name)[0] == f"{plan[name]['parameters']:,}"
  for part, flops in plan["flops_per_step"].items():
    label = part.replace(":", ", ")
    assert row(printed, label)[0] == f"{flops / 1e12:.3g}"
  memory, time = plan["memory"], plan["time"]
  for name, size in memory["bytes_per_device"].items():
    assert row(printed, name)[0] == f"{size / 1e9:.3g}"
  assert f"{time['seconds_per_step']:.3g} s a step" in printed
  assert f"{time['minutes_per_1000_steps']:.3g} minutes per" in printed
  assert time["hours"] == pytest.approx(time["seconds_per_step"])
  assert time["price"] == pytest.approx(8 * time["hours"])
  assert f"{time['price']:,.2f} for the run, at 8.00 an hour" in printed


def test_a_compiled_step_has_activations(tmp_path):
  plan, printed = planned(tmp_path, *TINY, "--method=ft")
  memory = plan["memory"]
  assert memory["total"] == sum(memory["bytes_per_device"].values())
  size = memory["bytes_per_device"]["activations and gradients"]
  assert row(printed, "activations and gradients")[0] == f"{size / 1e9:.3g}"
  assert size > memory["bytes_per_device"]["student's parameters"]
  assert memory["fits"] is True
  assert "(an estimate: as compiled for CPUs)" in printed


def test_tpus_are_compiled_for_by_their_own_compiler(tmp_path, monkeypatch):
  asked, find_spec = [], importlib.util.find_spec

  def described(name, platform, **host):
    asked.append((name, platform, host))
    return types.SimpleNamespace(devices=jax.devices()[:2])

  monkeypatch.setattr(planning.topologies, "get_topology_desc", described)
  monkeypatch.setattr(
    importlib.util,
    "find_spec",
    lambda name: name if name == "libtpu" else find_spec(name),
  )
  for name in planning._ALOOF:
    monkeypatch.setenv(name, "as it was")
  peak = abstract.Peak(10**9)
  monkeypatch.setattr(abstract, "peak_of", lambda traced, devices: peak)
  plan, printed = planned(tmp_path, *TINY, "--method=ft")
  bounds = {"chips_per_host_bounds": [1, 1, 1]}
  assert asked == [("v3:1x1", "tpu", bounds)]
  assert plan["memory"]["compiled_for"] == "v3"
  assert plan["memory"]["total"] == 10**9
  assert "fits the 17.2 GB of a device (as compiled for it)" in printed


def test_the_parts_of_a_step_are_told_apart(tmp_path):
  plan, _ = planned(tmp_path, *FAST, *MIX)
  assert plan["flops_per_step"].keys() - {""} == {
    *("clean:student", "clean:teacher", "optimizer:update"),
    *("augpro_mix:view", "augpro_mix:student", "augpro_mix:teacher"),
  }
  assert plan["devices"] == {
    "kind": "v3",
    "count": 2,
    "mesh": {"data": 2, "model": 1},
  }
  assert plan["memory"]["fits"] is None
  assert plan["memory"]["compiled_for"] is None
  assert plan["time"]["price"] is None


def test_a_plan_follows_its_configuration(tmp_path):
  flags = (
    *(
      "--gin.enct5_config.dtype='bfloat16'",
      "--gin.make_optimizer.name='adamw'",
    ),
    *("--gin.enct5_config.dropout_rate=0.25", "--gin.MAX_LENGTH=32"),
    *("--gin.RunConfig.num_microbatches=2", "--num_outputs=5"),
    *("--gin.RunConfig.mesh='x2'", "--utilisation=0.2"),
  )
  without_length = [flag for flag in FAST if "length" not in flag]
  plan, printed = planned(tmp_path, *without_length, *MIX, *flags)
  for name in ("student", "teacher"):
    assert plan[name]["dtype"] == "bfloat16"
    assert plan[name]["dropout_rate"] == 0.25
    assert plan[name]["num_outputs"] == 5
  assert (plan["length"], plan["num_microbatches"]) == (32, 2)
  assert plan["devices"]["mesh"] == {"data": 1, "model": 2}
  # Two moments of each parameter, in float32, and two small counters.
  memory = plan["memory"]["bytes_per_device"]
  twice = 2 * memory["student's parameters"]
  assert memory["optimizer's state"] == pytest.approx(twice, abs=100)
  assert plan["time"]["utilisation"] == 0.2
  assert "20%" in printed and "2 microbatches" in printed


def test_a_method_without_a_teacher_has_none(tmp_path):
  plan, _ = planned(tmp_path, *FAST, "--method=ft")
  assert plan["teacher"] is None
  assert plan["memory"]["bytes_per_device"]["teacher's parameters"] == 0
  assert plan["flops_per_step"].keys() - {""} == {
    *("clean:student", "optimizer:update"),
  }


def test_methods_that_take_turns_cost_their_mean(tmp_path):
  cost = {
    method: planned(
      tmp_path, *FAST, "--teacher_model=micro", f"--method={method}"
    )[0]["flops_per_step"]
    for method in ("kd", "kd+mixup", "kd+alternate(mixup, none)")
  }
  turns = cost["kd+alternate(mixup, none)"]
  assert turns["clean:student"] == cost["kd"]["clean:student"]
  assert turns["mixup:student"] == cost["kd+mixup"]["mixup:student"] / 2


def test_a_plan_that_does_not_fit_says_so(tmp_path, monkeypatch):
  full = CHIPS["v3"]._replace(memory=1000)
  monkeypatch.setitem(planning.CHIPS, "v3", full)
  plan, printed = planned(tmp_path, *FAST, *MIX)
  assert plan["memory"]["fits"] is False
  assert "does not fit" in printed and "--batch_size" in printed


@pytest.mark.slow
def test_data_and_teacher_give_vocabulary_and_outputs(tmp_path, data, teacher):
  flags = [flag for flag in FAST if "vocab_size" not in flag]
  given = f"--teacher={teacher}", "--method=kd+augpro_mix"
  alone, _ = planned(tmp_path, *flags, *given)
  with_data, _ = planned(tmp_path, *flags, *given, *data)
  assert alone == with_data
  assert alone["student"]["num_outputs"] == 3
  done = run(*FAST, *given, *data)
  assert done.code == 2 and "leave them out" in done.err


WRONG = {
  "--kind=v7": "--kind must be one of v3, v4, v5e",
  "--devices=0": "--devices must be at least 1",
  "--devices=3": "must be a multiple of 1 microbatches x 3 devices, got 8",
  "--devices=99": "--devices must be at most 8",
  "--utilisation=1.5": "--utilisation must be in (0, 1], got 1.5",
  "--utilisation=0": "--utilisation must be in (0, 1], got 0",
  "--price_per_hour=-1": "--price_per_hour must be at least 0",
  "--vocab_size=0": "--vocab_size must be at least 1",
  "--model=mikro": "no model is called 'mikro'",
  "--teacher_model=lrage": "no model is called 'lrage'",
  "--method=kd+augpro_mx": "Did you mean 'augpro_mix'",
  "--teacher=nowhere": "give --teacher DIR or --teacher_model NAME",
  "--gin.RunConfig.mesh='x3'": "must divide the 2 devices, got x3",
  "--gin.RunConfig.num_microbatches=3": "3 microbatches x 2 devices, got 8",
}


@pytest.mark.parametrize("flag", WRONG)
def test_what_is_wrong_is_one_line(flag):
  done = run(*FAST, *MIX, flag)
  assert done.code == 2
  assert WRONG[flag] in done.err
  assert len(done.err.splitlines()) == 1
  assert not done.out


def test_a_method_that_needs_a_teacher_asks_for_one():
  done = run(*FAST, "--method=kd")
  assert done.code == 2
  assert "--teacher_model" in done.err
