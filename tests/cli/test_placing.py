"""Where a run's parameters go is found out once."""

from augdistill.cli import placing
from augdistill.models.networks import network
from augdistill.models.sizes import enct5_config


def test_a_model_is_traced_once_however_it_is_asked(monkeypatch):
  traced = []

  def shardings(model, devices, over_data):
    del model, devices
    traced.append(over_data)
    return {}

  monkeypatch.setattr(placing.mesh, "param_shardings", shardings)
  model = network(enct5_config("micro", vocab_size=11, num_outputs=3))
  devices = placing.mesh.make_mesh()
  for _ in range(2):
    placing.param_shardings(model, devices)
    placing.param_shardings(model, devices, False)
    placing.param_shardings(model, devices, over_data=True)
  assert traced == [False, True]
