"""What the benchmarks share: one stopwatch, one table, one chart, and which rows compare fairly.

The other files here measure. Each row is a dict of what, ours_ms, theirs_ms (None where nobody else
was run) and ratio: how many times as fast ours is always means theirs_ms / ours_ms here.
"""

import contextlib
import os
import statistics
import textwrap
import time

UNLIKE = {
    "step / forward + backward": "the other side is the same network without loss and update",
    "uint8 against its floats": "the other side normalises too, ours leaves that to the network",
    "decode at reduced size": "64 px against the other side's 224 px",
}
"""Words in a row's name -> why its two sides do not do the same work; such rows are not counted."""

DRAW = 1.1
"""Ratios up to this, and down to one over it, are within the noise of a shared machine."""

_HEADINGS = {"what": "", "ours_ms": "ours, ms", "theirs_ms": "theirs, ms"}
_NAME_WIDTH = 58


def milliseconds(works, repeats: int = 5, clock=time.perf_counter, finish=None) -> list[float]:
    """Median time of each piece of work; they take turns, so that all meet the same machine.

    works: functions without arguments; each runs once more before, which is not counted.
    finish: called within each measurement, to wait for a GPU.
    """
    times = [[] for _ in works]
    for turn in range(repeats + 1):
        for work, mine in zip(works, times, strict=True):
            start = clock()
            work()
            if finish:
                finish()
            if turn:
                mine.append(1000 * (clock() - start))
    return [statistics.median(mine) for mine in times]


def row(what: str, ours_ms: float, theirs_ms: float | None = None, **more) -> dict:
    """One row of a table.   more: further columns by name."""
    ratio = None if theirs_ms is None else theirs_ms / ours_ms
    return {"what": what, "ours_ms": ours_ms, "theirs_ms": theirs_ms, "ratio": ratio, **more}


def use_threads(threads: int) -> None:
    """Hold torch, Numba and OpenCV to so many threads, in this process and from now on."""
    import cv2
    import numba
    import torch

    cores = os.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise ValueError(f"threads should be from 1 to {cores}, the cores found; got {threads}")
    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    cv2.setNumThreads(threads)


@contextlib.contextmanager
def few_threads(threads: int = 1):
    """Hold torch and OpenCV to so many threads inside the block."""
    import cv2
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def machine() -> str:
    """One line: processor, cores, threads in use, how busy the machine is, torch and GPU."""
    import torch

    from hand_lib.training.runtime import device_name

    gpu = device_name(torch.device("cuda")) if torch.cuda.is_available() else "none"
    processor = device_name(torch.device("cpu")).removeprefix("cpu: ").rsplit(",", 1)[0]
    words = [processor, f"{os.cpu_count()} cores", f"threads in use: {torch.get_num_threads()}"]
    if hasattr(os, "getloadavg"):
        words.append(f"load {os.getloadavg()[0]:.1f}")
    return ", ".join([*words, f"torch {torch.__version__}", f"GPU: {gpu}"])


def speed_up(row: dict) -> float | None:
    """How many times as fast ours is: theirs / ours, None where nobody else was run."""
    theirs = row.get("theirs_ms")
    return None if theirs is None or "ours_ms" not in row else theirs / row["ours_ms"]


def why_unlike(row: dict) -> str | None:
    """Why a row's two sides do not do the same work, None if they do."""
    return next((why for words, why in UNLIKE.items() if words in row["what"]), None)


def compared(rows) -> list[dict]:
    """The rows that were measured on both sides and compare like with like."""
    return [row for row in rows if speed_up(row) is not None and why_unlike(row) is None]


def table(rows) -> str:
    """Rows as text, one line each; any further columns of a row follow by their own names.

    Columns without a value in any row stay away.
    "faster" is theirs / ours. A star marks rows of unlike work, explained below the table.
    """
    rows = list(rows)
    filled = (key for row in rows for key, value in row.items() if value is not None)
    columns = list(dict.fromkeys(key for key in filled if key != "ratio"))
    heads = [_HEADINGS.get(column, column.replace("_", " ")) for column in columns]
    lines = [[_cell(row.get(column)) for column in columns] for row in rows]
    if "theirs_ms" in columns:
        place = columns.index("theirs_ms") + 1
        heads.insert(place, "faster")
        for line, row in zip(lines, rows, strict=True):
            star = "*" if why_unlike(row) else ""
            line.insert(place, _times(speed_up(row)) + star)
    names = [textwrap.wrap(line[0], _NAME_WIDTH) for line in lines]
    wide = max([len(part) for name in names for part in name], default=0)
    widths = [max(len(cell) for cell in cells) for cells in zip(heads, *lines, strict=True)]
    text = [_line([" " * wide, *heads[1:]], [wide, *widths[1:]])]
    for name, line in zip(names, lines, strict=True):
        text.append(_line([name[0], *line[1:]], [wide, *widths[1:]]))
        text += [f"  {part}" for part in name[1:]]
    whys = dict.fromkeys(why for row in rows if (why := why_unlike(row)))
    return "\n".join(text + [f"* not counted: {why}" for why in whys])


def _cell(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if 0 < abs(value) < 10 else f"{value:.0f}"
    return str(value)


def _times(ratio) -> str:
    if ratio is None:
        return "-"
    return f"{ratio:.0f} x" if ratio >= 10 else f"{ratio:.2f} x"


def _line(cells, widths) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in rest)]).rstrip()


def ratio_chart(rows, title: str = ""):
    """Bars of theirs / ours on a log axis, one for each row with both sides.  -> Matplotlib figure.

    Solid to the right of 1: ours is faster; grey to the left: slower; pale: unlike work.
    """
    import matplotlib.pyplot as plt

    rows = [row for row in rows if speed_up(row) is not None]
    if not rows:
        raise ValueError("expected at least one row with ours_ms and theirs_ms, found none")
    ratios = [speed_up(row) for row in rows]
    figure, axis = plt.subplots(figsize=(8.5, 0.34 * len(rows) + 0.9), layout="constrained")
    names = ["\n".join(textwrap.wrap(row["what"], _NAME_WIDTH)) for row in rows]
    places = range(len(rows))
    bars = axis.barh(places, [r - 1 for r in ratios], left=1, height=0.7)
    for bar, row, ratio in zip(bars, rows, ratios, strict=True):
        bar.set_facecolor("#c8875f" if ratio >= 1 else "#8a8f98")
        bar.set_alpha(0.3 if why_unlike(row) else 1.0)
        axis.annotate(
            _times(ratio), (max(ratio, 1), bar.get_y() + 0.35),
            xytext=(3, 0), textcoords="offset points", va="center", fontsize=7,
        )  # fmt: skip
    axis.set_yticks(places, names, fontsize=7)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xscale("log")
    axis.axvline(1, color="0.3", linewidth=0.8)
    axis.set_xlim(min(0.5, 0.8 * min(ratios)), max(2, 2 * max(ratios)))
    axis.set(xlabel="times as fast (theirs / ours)", title=title)
    axis.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure


def answer(rows, seconds: float | None = None) -> str:
    """How many of the comparisons ours wins, and the names of the draws and the losses."""
    fair = compared(rows)
    draws = [row for row in fair if 1 / DRAW <= speed_up(row) <= DRAW]
    losses = [row for row in fair if speed_up(row) < 1 / DRAW]
    taken = "" if seconds is None else f", measured in {seconds:.0f} s"
    wins = len(fair) - len(draws) - len(losses)
    lines = [f"faster in {wins} of {len(fair)} comparisons{taken}"]
    for word, some in (("a draw", draws), ("slower", losses)):
        lines += [f"{word}, {_times(speed_up(row))}: {row['what']}" for row in some]
    return "\n".join(lines)
