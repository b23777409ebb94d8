"""Batches as tensors: deterministic order, mixed data sets, resumable in the middle of an epoch.

The order follows from (seed, epoch) alone: not from the workers, and not from where one starts.
"""

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from hand_lib.files import SampleError


class HandLoader:
    """Iterates over batches (dicts of tensors) of one or several data sets of crops.

    datasets: one or a list. Each gives batches through ``fetch_batch(indices, epochs)`` (as
    ``HandCrops`` and ``SyntheticHands``), or single items as dicts.
    batch_size: items a batch.   seed, epoch: decide the order.   start_batch: batches of this epoch
    that are skipped because they have been seen.   workers: loading processes, 0 for none.
    weights: share of each data set in the mixture; None takes every item of all once.   length:
    items an epoch; None is all of them together.   shuffle=False: in their own order.   drop_last:
    leave out an unfilled last batch.

    With weights each data set is walked through in shuffled rounds that go on from epoch to epoch,
    so no item comes again before all of its data set were seen; an item's ``epoch`` is its round.
    ``skipped`` holds the numbers of the items that broken samples were replaced in. ``index`` in a
    batch counts through all data sets, one after another.
    """

    def __init__(
        self, datasets, batch_size: int, seed: int = 0, epoch: int = 0, start_batch: int = 0,
        workers: int = 0, weights=None, length: int | None = None, shuffle: bool = True,
        drop_last: bool = False, pin_memory: bool = False,
    ):  # fmt: skip
        self.datasets = list(datasets) if isinstance(datasets, list | tuple) else [datasets]
        sizes = np.array([len(dataset) for dataset in self.datasets])
        if not len(sizes) or (sizes == 0).any():
            raise ValueError(f"every data set needs at least one item, found lengths {sizes}")
        if batch_size < 1 or workers < 0:
            raise ValueError(
                f"expected batch_size >= 1 and workers >= 0, found {batch_size} and {workers}"
            )
        if length is not None and length < 1:
            raise ValueError(f"length must be at least 1, found {length}")
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self.shuffle, self.drop_last, self.pin_memory = shuffle, drop_last, pin_memory
        self.offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.counts = _counts(sizes, weights, length)
        self.skipped: set[int] = set()
        self.set_epoch(epoch, start_batch)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Go to a place in training: the next iteration begins there."""
        self.epoch = epoch
        batches = self.batches_per_epoch
        if not 0 <= start_batch <= batches:
            raise ValueError(f"start_batch must lie in [0, {batches}], found {start_batch}")
        self.start_batch = start_batch

    @property
    def batches_per_epoch(self) -> int:
        total = int(self.counts.sum())
        return total // self.batch_size if self.drop_last else -(-total // self.batch_size)

    def __len__(self) -> int:
        return self.batches_per_epoch - self.start_batch

    def plan(self) -> np.ndarray:
        """(N, 3) of this epoch in order: data set, round, index in the data set."""
        rows = []
        for number, (dataset, count) in enumerate(zip(self.datasets, self.counts, strict=True)):
            size, start = len(dataset), self.epoch * int(count)
            places = np.arange(start, start + count)
            rounds, indices = places // size, places % size
            if self.shuffle:
                for turn in np.unique(rounds):
                    order = np.random.default_rng([self.seed, number, turn]).permutation(size)
                    indices[rounds == turn] = order[indices[rounds == turn]]
            rows.append(np.stack([np.full(count, number), rounds, indices], axis=1))
        rows = np.concatenate(rows)
        if self.shuffle and len(self.datasets) > 1:
            rows = np.random.default_rng([self.seed, self.epoch]).permutation(rows)
        return rows

    def __iter__(self):
        plan = self.plan()
        starts = range(self.start_batch * self.batch_size, len(plan), self.batch_size)
        batches = [plan[at : at + self.batch_size] for at in starts][: len(self)]
        fetch = _Fetch(self.datasets, self.offsets)
        if self.workers == 0:
            loaded = (fetch.__getitems__(rows) for rows in batches)
        else:
            loaded = DataLoader(
                fetch,
                batch_sampler=batches,
                num_workers=self.workers,
                collate_fn=_same,
                worker_init_fn=_quiet_worker,
                generator=torch.Generator().manual_seed(self.seed),
                pin_memory=self.pin_memory,
            )
        loaded = iter(loaded)
        try:
            for rows in batches:
                batch = next(loaded)
                wanted = rows[:, 2] + self.offsets[rows[:, 0]]
                self.skipped.update(wanted[batch["index"].numpy() != wanted].tolist())
                yield batch
        finally:  # an error or an early end must not leave workers behind
            getattr(loaded, "_shutdown_workers", lambda: None)()


def make_loader(
    datasets, batch_size, seed=0, epoch=0, start_batch=0, workers=0, weights=None, **options
) -> HandLoader:  # fmt: skip
    """A ``HandLoader``; options are its other arguments."""
    return HandLoader(datasets, batch_size, seed, epoch, start_batch, workers, weights, **options)


def _counts(sizes, weights, length) -> np.ndarray:
    """Items that each data set gives to an epoch: largest remainders of the exact shares."""
    if weights is None and length is None:
        return sizes
    weights = sizes if weights is None else np.asarray(weights, float)
    if weights.shape != sizes.shape or (weights < 0).any() or not weights.sum() > 0:
        raise ValueError(
            f"expected {len(sizes)} weights, none negative, not all zero; found {weights}"
        )
    exact = weights / weights.sum() * (sizes.sum() if length is None else length)
    counts = np.floor(exact + 1e-9).astype(np.int64)
    missing = round(float(exact.sum())) - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts


class _Fetch(torch.utils.data.Dataset):
    """Turns rows of a plan into a batch of tensors, in this process or in a worker."""

    def __init__(self, datasets, offsets):
        self.datasets, self.offsets = datasets, offsets

    def __getitems__(self, rows) -> dict:
        rows = np.asarray(rows)
        parts, order = [], []
        for number in np.unique(rows[:, 0]):
            mine = np.flatnonzero(rows[:, 0] == number)
            batch = _fetch(self.datasets[number], rows[mine, 2], rows[mine, 1])
            batch["index"] = np.asarray(batch["index"], np.int64) + self.offsets[number]
            parts.append(batch)
            order.append(mine)
        if len(parts) == 1:
            merged = parts[0]
        else:
            back = np.argsort(np.concatenate(order))
            common = set.intersection(*(set(part) for part in parts))
            merged = {
                name: np.concatenate([np.asarray(part[name]) for part in parts])[back]
                for name in parts[0]
                if name in common
            }
        return {name: torch.as_tensor(values) for name, values in merged.items()}


def _fetch(dataset, indices, rounds) -> dict:
    """One data set's share of a batch, stacked."""
    if hasattr(dataset, "fetch_batch"):
        return dataset.fetch_batch(indices, rounds)
    items = (
        dataset.__getitems__(indices.tolist())
        if hasattr(dataset, "__getitems__")
        else [dataset[int(index)] for index in indices]
    )
    if not isinstance(items, dict):
        if not isinstance(items[0], dict):
            raise TypeError(
                f"{type(dataset).__name__} gives {type(items[0]).__name__}, not dicts of "
                "arrays; wrap it: HandCrops(dataset, image_size)"
            )
        items = {name: np.stack([item[name] for item in items]) for name in items[0]}
    batch = dict(items)
    batch.setdefault("index", indices)
    if len(batch["image"]) != len(indices):
        raise SampleError(
            f"{type(dataset).__name__} gave {len(batch['image'])} items, asked for {len(indices)}"
        )
    return batch


def _same(batch):
    return batch


def _quiet_worker(_number) -> None:
    cv2.setNumThreads(0)
