"""Where to compute."""

import pytest
import torch

from tinyaction.device import choose_device


@pytest.mark.parametrize(
    ("cuda", "mps", "name"), [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_is_the_best_device_there_is(monkeypatch, cuda, mps, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)  # the trial on the device
    assert choose_device("auto").type == name


@pytest.mark.parametrize("name", ["gpu", "cuda:97", ""])
def test_a_device_that_is_not_there(name):
    with pytest.raises(ValueError, match=rf"device '{name}' is not usable here \(.*\); try auto or cpu") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)
