"""Batches for the loop: from any step on, each process its part, prepared beside the loop."""

import queue
import threading

from hand_lib.data.loader import HandLoader


class SharedLoader(HandLoader):
    """The part that one process takes of every batch of a ``HandLoader``.

    batch_size: images of all processes together.   process: number of this one.   An epoch has
    ``images // batch_size`` batches; what is left over waits for another shuffling.
    """

    def __init__(self, datasets, batch_size, process=0, processes=1, **options):
        if batch_size % processes:
            raise ValueError(f"batch_size {batch_size} cannot be shared by {processes} processes")
        super().__init__(datasets, batch_size // processes, drop_last=True, **options)
        self.process, self.processes = process, processes
        self.images = int(self.counts.sum())
        self.steps_per_epoch = self.images // batch_size
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"the training set has {self.images} images, fewer than batch_size {batch_size}"
            )

    def plan(self):
        """(N, 3) of this epoch in order, this process's rows: data set, round, index in it."""
        rows = super().plan()[: self.steps_per_epoch * self.batch_size * self.processes]
        shares = rows.reshape(self.steps_per_epoch, self.processes, self.batch_size, 3)
        return shares[:, self.process].reshape(-1, 3)


def batch_stream(loader: SharedLoader, start_step: int):
    """Endless batches (dicts of CPU tensors) from ``start_step`` on; close it at the end."""
    return beside(_epochs(loader, start_step))


def _epochs(loader, start_step):
    epoch, start_batch = divmod(start_step, loader.steps_per_epoch)
    while True:
        loader.set_epoch(epoch, start_batch)
        yield from loader
        epoch, start_batch = epoch + 1, 0


def beside(iterator, depth: int = 2):
    """Run an iterator in a thread, at most ``depth`` items ahead; its errors are raised here."""
    ready, closed = queue.Queue(maxsize=depth), threading.Event()

    def put(item) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work():
        try:
            for item in iterator:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:  # handed on to the loop, which raises it
            put((None, error))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        closed.set()
        thread.join()
