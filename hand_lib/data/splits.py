"""A part of a data set as a data set of its own, and splits whose parts share no hand."""

from functools import partial

import numpy as np

from hand_lib.data.reading import iterate


class Part:
    """Some samples of a data set, as a data set of their own.   indices: which, in order."""

    def __init__(self, dataset, indices):
        self.whole, self.indices = dataset, np.asarray(indices, dtype=np.int64)
        self.groups = np.asarray(getattr(dataset, "groups", np.arange(len(dataset))))[self.indices]
        self.dataset = getattr(dataset, "dataset", "sample")
        self.split = getattr(dataset, "split", "")
        self.box = getattr(dataset, "box", "image")
        self.on_error = getattr(dataset, "on_error", "raise")
        for name in ("read", "frame", "picture_bytes", "name", "gather"):
            if hasattr(dataset, name):
                setattr(self, name, partial(self._forward, name))

    def _forward(self, name, index, *rest):
        return getattr(self.whole, name)(self.indices[index], *rest)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int):
        return self.whole[int(self.indices[index])]

    def __iter__(self):
        return iterate(self.whole, self.indices)


def split_unique(dataset, validation_share: float, seed: int = 0) -> tuple[Part, Part]:
    """Training and validation parts that share no unique hand.

    dataset: anything with a length; ``groups`` (N,), where it has them, number the unique hands.
    validation_share: of the unique hands, in (0, 1); at least one hand lands on either side.
    """
    if not 0 < validation_share < 1:
        raise ValueError(f"validation_share must lie in (0, 1), found {validation_share}")
    groups = np.asarray(getattr(dataset, "groups", np.arange(len(dataset))))
    unique = np.unique(groups)
    if len(unique) < 2:
        raise ValueError(f"{len(unique)} unique hands cannot be split in two")
    count = int(np.clip(round(validation_share * len(unique)), 1, len(unique) - 1))
    chosen = np.random.default_rng(seed).permutation(unique)[:count]
    held_out = np.isin(groups, chosen)
    return Part(dataset, np.flatnonzero(~held_out)), Part(dataset, np.flatnonzero(held_out))
