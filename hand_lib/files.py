"""Files: where a path is, written whole or not at all, JSON, big lists of numbers read once.

``resolve`` is the one rule for relative paths. Nothing here knows what a file is about.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import simdjson
from tqdm import tqdm

from hand_lib import ROOT

_CACHE_ABOVE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 24
_SHOWN_ABOVE_BYTES = 100 << 20


class SampleError(ValueError):
    """One sample cannot be used; the message names data set, split, index and file."""


def resolve(place, base=None, new: bool = False) -> Path:
    """Where a path is that somebody gave: the one rule for relative paths.

    place: absolute, or relative to the current folder, as one types it at a command; where nothing
    is there, the workbook's folder is tried.   base: ``ROOT`` for the parameters of a notebook:
    this folder is tried first, then the current one.   new: it is going to be written, so it need
    not be there and counts from the first of the two.
    raises FileNotFoundError that names both places.
    """
    path = Path(place).expanduser()
    places = dict.fromkeys((Path(base or "") / path, path, ROOT / path))
    found = next((place.absolute() for place in places if place.exists()), None)
    if found is None and not new:
        looked = " or ".join(dict.fromkeys(str(place.absolute()) for place in places))
        raise FileNotFoundError(f"{place}: there is no {looked}")
    return found if found is not None else next(iter(places)).absolute()


def find_run(name) -> Path:
    """The folder of a run by its name in ``runs/`` or by its path, whether it is there yet or not.

    >>> find_run("small") == find_run("runs/small") == ROOT / "runs" / "small"
    True
    """
    path = Path(str(name)).expanduser()
    if path.is_absolute() or (path / "config.json").is_file():
        return path.absolute()
    if path.parts[:1] == ("runs",):
        return ROOT / path
    return resolve(path, new=True) if len(path.parts) > 1 else ROOT / "runs" / path


def natural_key(name) -> tuple:
    """Key to sort names by as people do, numbers by their value.   name: a text or a path.

    >>> sorted(["frame10.png", "frame9.png", "Frame1.png"], key=natural_key)
    ['Frame1.png', 'frame9.png', 'frame10.png']
    """
    parts = re.split(r"(\d+)", str(name))
    parts[::2] = [text.lower() for text in parts[::2]]
    parts[1::2] = [int(digits) for digits in parts[1::2]]
    return parts, str(name)


@contextlib.contextmanager
def written_atomically(path):
    """Yield a path to write to, which takes the place of ``path`` when the block ends well.

    If the block fails, the disk being full for instance, what was there before stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            try:
                os.fsync(file.fileno())
            except OSError as error:  # some shared file systems cannot
                if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
                    raise
        with contextlib.suppress(PermissionError):  # nor change who may read
            os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{path} could not be written ({reason})") from error
    finally:
        if temporary.exists():  # its space is free at once, even if a writer still holds it open
            os.truncate(temporary, 0)
            temporary.unlink()


def write_text(path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, content: dict) -> None:
    """Write a JSON file atomically; numbers that are not finite become null."""
    write_text(path, json.dumps(_finite(content), indent=2) + "\n")


def _finite(value):
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return value


def read_json(path, optional: bool = False):
    """A JSON file's content; a byte-order mark is fine.   optional: None where there is no file.

    raises ValueError that names the file when it is cut off or no JSON.
    """
    path = Path(path)
    if optional and not path.exists():
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are of this kind
        raise ValueError(f"{path} is not whole JSON ({error}); copy or write it again") from None


def read_bytes(path: Path, name: str) -> bytes:
    """The file's bytes; a missing or unreadable file is a ``SampleError`` that says which."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise SampleError(f"{name}: cannot read {path} ({error.strerror})") from None


def check_folder(root, dataset: str, where: str) -> Path:
    """The folder as a path, or a FileNotFoundError that says what is there and where to get it."""
    root = Path(root).expanduser()
    if root.is_file():
        raise FileNotFoundError(
            f"{dataset}: {root} is a file; unpack it if it is an archive, and pass the folder"
        )
    if not root.is_dir():
        raise FileNotFoundError(f"{dataset}: no folder {root}. {where}")
    return root


def load_json_array(path: Path, shape, name: str, dtype=np.float32) -> np.ndarray:
    """A JSON list of equally shaped numeric lists as one array (N, *shape).

    path: the JSON file.   shape: of one entry, () for plain numbers; an entry may be wrapped in one
    extra list, as FreiHAND's ``mano`` is.   name: what errors call the file.   A large file is
    parsed once in pieces, never as Python objects, and kept (``cached_arrays``).
    returns a read-only memory map or an array.
    """
    wanted = path, shape, name, dtype
    if path.stat().st_size < _CACHE_ABOVE_BYTES:
        return _parse_json_array(*wanted)
    return cached_arrays(path, [np.dtype(dtype).name], lambda: [_parse_json_array(*wanted)])[0]


def cached_arrays(path, names, make) -> list[np.ndarray]:
    """Arrays that a file is made into once and that are kept as ``.npy`` from then on.

    path: the file, known again by its size and time stamp.   names: of the arrays.   make: called
    when they are not there yet, gives them.   They are kept in a ``.cache`` folder beside the file
    or, where that cannot be written, in the workbook's own.
    returns memory maps; the arrays themselves where neither works.
    """
    path = Path(path)
    status, digest = path.stat(), hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    key = f"{path.stem}-{status.st_size:x}-{status.st_mtime_ns:x}"
    starts = path.parent / ".cache" / key, ROOT / "data" / ".cache" / f"{digest}-{key}"
    places = [[Path(f"{start}-{name}.npy") for name in names] for start in starts]
    found = next((place for place in places if all(file.is_file() for file in place)), None)
    arrays = make() if found is None else []
    for place in places if found is None else []:
        with contextlib.suppress(OSError):
            place[0].parent.mkdir(parents=True, exist_ok=True)
            for file, array in zip(place, arrays, strict=True):
                with written_atomically(file) as temporary, open(temporary, "wb") as opened:
                    np.save(opened, array)
            found = place
            break
    return [np.load(file, mmap_mode="r") for file in found] if found else arrays


def flat_numbers(data: bytes) -> np.ndarray:
    """All numbers of nested JSON lists in a row: (M,) float64. raises ValueError at anything else.

    >>> flat_numbers(b"[[1, 2.5], [-3e2]]").tolist()
    [1.0, 2.5, -300.0]
    """
    try:
        return np.frombuffer(simdjson.Parser().parse(data).as_buffer(of_type="d"))
    except (TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(f"not lists of numbers alone ({error})") from None


def _parse_json_array(path: Path, shape, name: str, dtype) -> np.ndarray:
    """Numbers in pieces of 16 MB; slowly where they, or the brackets, are not as they should be."""
    pieces, opened, closed, rest = [], 0, 0, b""
    size = path.stat().st_size
    bar = tqdm(
        total=size, desc=f"reading {path.name} once", unit="B", unit_scale=True,
        disable=size < _SHOWN_ABOVE_BYTES,
    )  # fmt: skip
    try:
        with open(path, "rb") as file, bar:
            while chunk := file.read(_CHUNK_BYTES):
                bar.update(len(chunk))
                opened, closed = opened + chunk.count(b"["), closed + chunk.count(b"]")
                text, _, rest = (rest + chunk.translate(None, b"[]")).rpartition(b",")
                pieces.append(flat_numbers(b"[" + text + b"]").astype(dtype))
        pieces.append(flat_numbers(b"[" + rest + b"]").astype(dtype))
        flat = np.concatenate(pieces)
        count, remainder = divmod(len(flat), math.prod(shape))
        plain = 1 + count * sum(math.prod(shape[:depth]) for depth in range(len(shape)))
        if rest.strip() and not remainder and closed == opened in (plain, plain + count):
            return flat.reshape(count, *shape)
    except ValueError:
        pass  # the slow way says what is wrong
    return _parse_json_slowly(path, shape, name, dtype)


def _parse_json_slowly(path: Path, shape, name: str, dtype) -> np.ndarray:
    """The same by the json module: says what is wrong, and with which entry."""
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{name}: {path} should hold a list with one entry per sample")
    array = np.empty((len(entries), *shape), dtype)
    for index, entry in enumerate(entries):
        try:
            value = np.asarray(entry, dtype=dtype)
            found = value.shape
        except (TypeError, ValueError):
            found = "uneven or not numeric"
        if found not in (tuple(shape), (1, *shape)):
            raise ValueError(
                f"{name}[{index}]: expected numbers of shape {tuple(shape)}, found {found} ({path})"
            )
        array[index] = value.reshape(shape)
    return array
