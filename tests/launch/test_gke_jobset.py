"""launch/gke_jobset.yaml: what Kubernetes is told."""

import subprocess

import pytest
import yaml

from tests.launch.scripts import LAUNCH, Programs


@pytest.fixture(scope="module")
def jobset():
  return yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())


@pytest.fixture(scope="module")
def job(jobset):
  (hosts,) = jobset["spec"]["replicatedJobs"]
  assert hosts["replicas"] == 1
  return hosts["template"]["spec"]


@pytest.fixture(scope="module")
def pod(job):
  return job["template"]["spec"]


def test_what_failed_fails_and_what_was_stopped_begins_again(jobset, job):
  policy = jobset["spec"]["failurePolicy"]
  assert policy["maxRestarts"] > 0
  (rule,) = policy["rules"]
  assert rule["action"] == "FailJobSet"
  assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
  # Any other failure of a host is one of the job, and restarts the set.
  (rule,) = job["podFailurePolicy"]["rules"]
  assert rule["action"] == "FailJob"
  assert rule["onExitCodes"]["operator"] == "In"
  assert rule["onExitCodes"]["values"] == [1, 2]
  assert job["backoffLimit"] == 0


def test_the_hosts_have_all_chips_of_the_slice(job, pod):
  x, y, z = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
  (container,) = pod["containers"]
  chips = container["resources"]["limits"]["google.com/tpu"]
  assert container["resources"]["requests"]["google.com/tpu"] == chips
  assert job["parallelism"] == job["completions"]
  assert job["parallelism"] * chips == int(x) * int(y) * int(z)


def test_a_host_may_save_before_it_is_killed_and_is_not_restarted_alone(pod):
  assert pod["terminationGracePeriodSeconds"] >= 60
  assert pod["restartPolicy"] == "Never"


def test_the_policy_is_about_the_container_that_runs_in_the_bucket(job, pod):
  (container,) = pod["containers"]
  (rule,) = job["podFailurePolicy"]["rules"]
  assert rule["onExitCodes"]["containerName"] == container["name"]
  (mount,) = container["volumeMounts"]
  (volume,) = pod["volumes"]
  assert mount == {"name": volume["name"], "mountPath": container["workingDir"]}
  assert job["template"]["metadata"]["annotations"] == {
    "gke-gcsfuse/volumes": "true"
  }


def test_the_command_installs_and_then_is_augdistill(pod, tmp_path):
  (container,) = pod["containers"]
  programs = Programs(tmp_path)
  programs.add("pip")
  programs.add("augdistill", "exit 75")
  (programs.cwd / "augdistill-1.whl").touch()
  words = [*container["command"], *container["args"], 'it\'s my "data".tsv']
  done = subprocess.run(words, env=programs.env, cwd=programs.cwd)
  assert done.returncode == 75
  pip, run = programs.calls()
  assert pip[-2:] == ["./augdistill-1.whl", "jax[tpu]"]
  assert run == ["augdistill", *words[4:], "--distributed"]
  # A registry that cannot be reached is no failure of the run.
  programs.add("pip", "exit 1")
  done = subprocess.run(words, env=programs.env, cwd=programs.cwd)
  assert done.returncode == 75
