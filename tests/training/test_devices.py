"""Does everything stay on the device it is given? Asked of a GPU that is only imagined.

torch's fake tensors have a shape, a type and a device and no values. An operation between one on
"cuda" and one left behind on the CPU raises, as on a real GPU, without there being one.
"""

import pytest
import torch
from network_fixtures import random_batch, small_network
from torch._subclasses.fake_tensor import FakeTensorMode

from hand_lib.network.losses import total_loss
from hand_lib.training.config import make_config


def moved(module, to="cuda"):
    """The module with empty tensors of that device in the place of its own."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                empty = torch.empty(weight.shape, dtype=weight.dtype, device=to)
                part._parameters[name] = torch.nn.Parameter(empty, weight.requires_grad)
        for name, array in part._buffers.items():
            if array is not None:
                part._buffers[name] = torch.empty(array.shape, dtype=array.dtype, device=to)
    return module


@pytest.mark.parametrize("decoder", ["coarse_to_fine", "youtubehand"])
@pytest.mark.parametrize("train", [True, False])
def test_the_network_and_its_loss_stay_on_a_gpu(decoder, train):
    network = small_network(decoder, view_size=64).train(train)
    size = 64 if train else 96
    batch = random_batch(network, size=size)
    config = make_config("full" if decoder == "coarse_to_fine" else "youtubehand")
    with FakeTensorMode():
        moved(network)
        batch = {
            name: torch.empty(value.shape, dtype=value.dtype, device="cuda")
            for name, value in batch.items()
        }
        batch["correspondence"] = torch.empty(4, 4, 16, 16, device="cuda")
        prediction = network(batch["image"])
        found = [prediction.vertices, prediction.joints, prediction.camera, prediction.joints_2d]
        loss, terms = total_loss(prediction, batch, network, config)
    assert {value.device.type for value in [*found, loss, *terms.values()]} == {"cuda"}
    assert prediction.vertices.dtype == torch.float32


def test_what_was_left_behind_is_found_out():
    network = small_network().train()
    with FakeTensorMode():
        moved(network)
        network.regressor = network.regressor.cpu()
        with pytest.raises(RuntimeError, match="cpu.*cuda|cuda.*cpu"):
            network(torch.empty(2, 3, 64, 64, device="cuda"))
