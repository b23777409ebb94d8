"""Batches as tensors: deterministic order, mixed data sets, resumable in the middle of an epoch.

The order follows from (seed, epoch) alone: not from the workers, and not from where one starts.
"""

import itertools
import shutil
import warnings

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

PREFETCH = 2
"""Batches that each loading process is ahead."""
SHARED_MB = 256
"""Less shared memory than this is said: what goes through it elsewhere may wait there for ever."""


class HandLoader:
    """Iterates over batches (dicts of tensors) of one or several data sets of crops.

    datasets: one or a list of what gives batches through ``fetch_batch(indices, epochs)``:
    ``HandCrops``, synthetic hands.   batch_size: items a batch, of all processes together.
    seed, epoch: decide the order.   workers: loading processes, 0 for none.   drop_last: leave out
    an unfilled last batch.   process, processes: take this process's part of every batch, of so
    many that train together.

    Iterating gives an epoch, which shows every item of every data set once; ``stream(step)`` all
    that follow a step. ``index`` in a batch counts through all data sets, one after another;
    ``skipped`` holds those that broken samples were replaced in.
    """

    def __init__(
        self, datasets, batch_size: int, seed: int = 0, epoch: int = 0, workers: int = 0,
        drop_last: bool = False, pin_memory: bool = False, process: int = 0, processes: int = 1,
    ):  # fmt: skip
        self.datasets = list(datasets) if isinstance(datasets, list | tuple) else [datasets]
        for data in self.datasets:
            if not getattr(data, "in_batches", hasattr(data, "fetch_batch")):
                raise TypeError(
                    f"{type(data).__name__} gives samples, not batches of arrays; wrap it: "
                    "HandCrops(dataset, image_size)"
                )
        self.sizes = np.array([len(data) for data in self.datasets])
        if not self.sizes.all():
            raise ValueError(f"every data set needs at least one item, found lengths {self.sizes}")
        if batch_size < 1 or batch_size % processes or workers < 0:
            raise ValueError(
                f"expected workers >= 0 and a batch_size >= 1 that {processes} processes can "
                f"share, found {workers} and {batch_size}"
            )
        images, rest = int(self.sizes.sum()), 0 if drop_last or processes > 1 else batch_size - 1
        self.steps_per_epoch = (images + rest) // batch_size
        if self.steps_per_epoch == 0:
            raise ValueError(f"{images} images are fewer than batch_size {batch_size}")
        self.batch_size, self.workers, self.pin_memory = batch_size, workers, pin_memory
        self.seed, self.epoch, self.process, self.processes = seed, epoch, process, processes
        self.skipped: set[int] = set()

    def __len__(self) -> int:
        return self.steps_per_epoch

    def batches(self, epoch: int) -> list[np.ndarray]:
        """This process's part of every batch of an epoch, (b, 3): data set, epoch, index in it."""
        rows = []
        for number, size in enumerate(self.sizes):
            order = np.random.default_rng([self.seed, number, epoch]).permutation(size)
            rows.append(np.stack([np.full(size, number), np.full(size, epoch), order], axis=1))
        rows = np.concatenate(rows)
        if len(self.sizes) > 1:
            rows = np.random.default_rng([self.seed, epoch]).permutation(rows)
        part = self.batch_size // self.processes
        starts = self.batch_size * np.arange(self.steps_per_epoch) + part * self.process
        return [rows[start : start + part] for start in starts]

    def __iter__(self):
        return self._load(self.batches(self.epoch))

    def stream(self, step: int = 0):
        """Endless batches of one epoch after the other, from any step on; close it at the end."""
        epoch, start = divmod(step, self.steps_per_epoch)
        batches = itertools.chain.from_iterable(map(self.batches, itertools.count(epoch)))
        return self._load(itertools.islice(batches, start, None))

    def _load(self, batches):
        """The batches with these rows; one set of loading processes for all of them.

        They come as arrays through pipes, a tenth slower than as tensors in shared memory: a
        container often has 64 MB of it, and a process that finds it full waits for ever.
        """
        fetch = _Fetch(self.datasets)
        loaded = iter(map(fetch.__getitems__, batches))
        if self.workers:
            if (size := shared_memory_mb()) < SHARED_MB:
                said = f"{size:.0f} MB of shared memory: batches go through pipes"
                warnings.warn(said, stacklevel=3)
            loaded = iter(DataLoader(
                fetch,
                batch_sampler=batches,
                num_workers=self.workers,
                prefetch_factor=PREFETCH,
                collate_fn=_Batch,
                pin_memory=self.pin_memory,
                worker_init_fn=_quiet_worker,
                generator=torch.Generator().manual_seed(self.seed),
            ))  # fmt: skip
        try:
            for batch in loaded:
                batch = {name: torch.as_tensor(values) for name, values in batch.items()}
                wanted, index = batch.pop("wanted"), batch["index"]
                self.skipped.update(wanted[wanted != index].tolist())
                if self.pin_memory and not self.workers:  # else a thread has done so
                    batch = {name: values.pin_memory() for name, values in batch.items()}
                yield batch
        finally:  # an error or an early end must not leave workers behind
            getattr(loaded, "_shutdown_workers", lambda: None)()


def shared_memory_mb(place: str = "/dev/shm") -> float:
    """How much memory processes may share in all; infinite where nothing limits it."""
    try:
        return shutil.disk_usage(place).total / 2**20
    except OSError:  # not Linux
        return float("inf")


class _Fetch(Dataset):
    """Turns rows of a plan into a batch of arrays, in this process or in a worker."""

    def __init__(self, datasets):
        self.datasets = datasets
        self.offsets = np.cumsum([0, *(len(data) for data in datasets)])

    def __getitems__(self, rows) -> dict:
        parts = []
        for number in np.unique(rows[:, 0]):
            _, epochs, indices = rows[rows[:, 0] == number].T
            part = self.datasets[number].fetch_batch(indices, epochs)
            index = np.asarray(part["index"], np.int64) + self.offsets[number]
            parts.append(part | {"index": index})
        merged = parts[0]
        if len(parts) > 1:  # in the order of the rows again
            back = np.argsort(np.argsort(rows[:, 0], kind="stable"))
            common = set.intersection(*map(set, parts))
            merged = {name: np.concatenate([part[name] for part in parts])[back] for name in common}
        return merged | {"wanted": rows[:, 2] + self.offsets[rows[:, 0]]}


class _Batch(dict):
    """Arrays by name; a thread of ``DataLoader`` turns them into tensors that a GPU reads."""

    def pin_memory(self) -> dict[str, torch.Tensor]:
        return {name: torch.as_tensor(values).pin_memory() for name, values in self.items()}


def _quiet_worker(_number) -> None:
    cv2.setNumThreads(0)
