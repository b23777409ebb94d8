"""Loaders: the same order always, resumable, whatever the processes."""

import numpy as np
import pytest
import torch
from data_fixtures import make_hand

from hand_lib.data.crops import HandCrops
from hand_lib.data.loader import HandLoader, _Batch, shared_memory_mb
from hand_lib.data.sample import Subset


class Numbers:
    """Crops that say who they are."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def fetch_batch(self, indices, epochs):
        indices, epochs = np.asarray(indices), np.asarray(epochs)
        return {"image": np.zeros((len(indices), 3, 2, 2), np.uint8), "index": indices.copy(),
                "visit": epochs}  # fmt: skip


def order_of(loader):
    return [index for batch in loader for index in batch["index"].tolist()]


def test_an_epoch_shows_every_item_once_in_its_own_order():
    loader = HandLoader(Numbers(23), 5, seed=3)
    first = order_of(loader)
    assert sorted(first) == list(range(23)) and first != list(range(23))
    assert first == order_of(HandLoader(Numbers(23), 5, seed=3))
    assert first != order_of(HandLoader(Numbers(23), 5, seed=4))
    assert order_of(HandLoader(Numbers(23), 5, seed=3, epoch=1)) != first
    assert len(loader) == 5 and len(HandLoader(Numbers(23), 5, drop_last=True)) == 4


def test_workers_load_the_same_batches_and_say_when_shared_memory_is_small(monkeypatch):
    assert shared_memory_mb("/no/such/place") == float("inf") and shared_memory_mb("/") > 0
    monkeypatch.setattr("hand_lib.data.loader.shared_memory_mb", lambda: 64.0)
    crops = HandCrops([make_hand(n) for n in range(20)], 32, "default", seed=1)
    alone = list(HandLoader(crops, 6, seed=2, epoch=1))
    with pytest.warns(UserWarning, match="^64 MB of shared memory: batches go through pipes$"):
        helped = list(HandLoader(crops, 6, seed=2, epoch=1, workers=2))
    assert len(alone) == len(helped) == 4
    for one, other in zip(alone, helped, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert alone[0]["image"].dtype == torch.uint8 and alone[0]["image"].shape == (6, 3, 32, 32)
    assert alone[0]["index"].dtype == torch.int64 and alone[0]["has_vertices"].dtype == torch.bool


def test_the_loaders_thread_makes_tensors_for_a_gpu(monkeypatch):
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    assert torch.equal(pin_memory(_Batch(image=np.zeros(3)))["image"], torch.ones(3))


def test_mixed_data_sets_show_each_item_once():
    together = order_of(HandLoader([Numbers(10), Numbers(40)], 8))
    assert sorted(together) == list(range(50)) and max(together[:25]) >= 10 > min(together[:25])


def test_loaders_refuse_what_cannot_work():
    with pytest.raises(ValueError, match="at least one item"):
        HandLoader([Numbers(3), Numbers(0)], 2)
    with pytest.raises(ValueError, match="a batch_size >= 1"):
        HandLoader(Numbers(3), 0)
    for samples in ([make_hand(0)], Subset([make_hand(0)], [0])):
        with pytest.raises(TypeError, match="wrap it: HandCrops"):
            HandLoader([samples], 1)


def test_a_stream_goes_on_from_any_step_across_epochs():
    stream = HandLoader(Numbers(23), 5, seed=3, drop_last=True).stream(2)
    found = [next(stream)["index"].tolist() for _ in range(6)]
    stream.close()
    epochs = [HandLoader(Numbers(23), 5, seed=3, epoch=n, drop_last=True) for n in (0, 1)]
    assert sum(found, []) == [*order_of(epochs[0]), *order_of(epochs[1])][10:40]


def test_two_processes_share_the_batches_of_one_from_any_step_on():
    loaders = [HandLoader(Numbers(23), 6, seed=3, drop_last=True)]
    loaders += [HandLoader(Numbers(23), 6, seed=3, process=p, processes=2) for p in (0, 1)]
    for step in (0, 2, 7):
        streams = [loader.stream(step) for loader in loaders]
        for _ in range(5):
            whole, first, second = (next(stream)["index"].tolist() for stream in streams)
            assert whole == first + second
