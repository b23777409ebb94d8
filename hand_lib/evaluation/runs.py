"""Run folders on a test set: predictions, scores, which is better, and what makes a hand hard.

>>> test = open_test_set("synthetic-test", count=200)
>>> first, second = (evaluate_run(folder, test) for folder in ("runs/small", "runs/reference"))
>>> print(compare_runs(first, second))
"""

import csv
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap
from tqdm import tqdm

from hand_lib import metrics
from hand_lib.data.crops import HandCrops
from hand_lib.data.open import find_mano, open_data
from hand_lib.data.synthetic.hands import synthetic_test
from hand_lib.evaluation.freihand import ScoreReport, report
from hand_lib.files import read_json
from hand_lib.hand.joints import fingertips_of
from hand_lib.inference.predictor import Predictor, predict_averaged
from hand_lib.render.camera import crop_to_pixels, solve_translation

PUBLISHED = Path(__file__).with_name("published.csv")
"""Results on FreiHAND's evaluation set as others reported them (PA, mm), with their sources."""

TRUTH = ("vertices", "joints", "root", "joints_2d", "valid_2d", "intrinsics", "has_vertices",
         "has_joints", "has_camera", "index")  # fmt: skip
"""Entries of a batch that an ``Evaluation`` keeps."""


@dataclass(frozen=True)
class TestSet:
    """Labelled hands that are scored in a fixed order."""

    __test__ = False  # not a test of pytest's

    name: str
    dataset: object  # a data set of HandSample
    indices: np.ndarray  # (N,) which of them
    words: str  # what it is, for a reader

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, image_size: int, size: int = 64):
        """Crops with labels as ``HandCrops`` makes them, in order, ``size`` at a time."""
        crops = HandCrops(self.dataset, image_size)
        for start in range(0, len(self), size):
            yield crops.fetch_batch(self.indices[start : start + size])


def open_test_set(name="synthetic-test", count: int = 0, split: str = "evaluation") -> TestSet:
    """A test set by name.

    name: ``synthetic-test``, the fixed synthetic benchmark, or the place of a data set, as
    ``open_data`` takes it.   count: the first so many hands; 0: all.   split: of that place.
    """
    if name == "synthetic-test":
        dataset = synthetic_test()
        words = "synthetic-test, hands drawn with a seed kept for testing"
    else:
        try:
            dataset = open_data(name, split, model=find_mano())
        except FileNotFoundError as error:
            raise FileNotFoundError(f"neither 'synthetic-test' nor a data set: {error}") from None
        words = f"{dataset.split} pictures of {Path(name).name}"
    total = len(dataset)
    if not 0 <= count <= total:
        raise ValueError(f"count should be from 0 (all) to {total}, found {count}")
    count = count or total
    words = f"{words}: {'all' if count == total else 'the first'} {count} of {total}"
    return TestSet(Path(name).name, dataset, np.arange(count), words)


@dataclass(frozen=True)
class Evaluation:
    """What one run predicts on a test set, with the truth and the scores."""

    name: str
    test: TestSet
    image_size: int
    vertices: np.ndarray  # (N, V, 3) metres, wrist at the origin
    joints: np.ndarray  # (N, 21, 3)
    joints_2d: np.ndarray  # (N, 21, 2) pixels of the crop
    translation: np.ndarray  # (N, 3) metres, predicted place of the wrist
    truth: dict  # vertices, joints, root, joints_2d (pixels of the crop), intrinsics, has_camera
    faces: np.ndarray  # (F, 3)
    milliseconds: float  # per picture, network alone
    device: str
    scores: ScoreReport

    @property
    def pa_mm(self) -> np.ndarray:
        """(N,) mean vertex error of each hand after alignment by rotation, mm."""
        return 1000 * self.scores.vertex_errors["rotation"].mean(1)

    @property
    def joint_error_px(self) -> np.ndarray:
        """(N, 21) distance in the crop, NaN where the truth is unknown."""
        truth = self.truth
        return metrics.errors_2d_px(self.joints_2d, truth["joints_2d"], truth["valid_2d"])

    def pictures(self, rows) -> np.ndarray:
        """Crops (R, S, S, 3) uint8 of some rows of this evaluation."""
        crops = HandCrops(self.test.dataset, self.image_size)
        images = crops.fetch_batch(self.test.indices[np.asarray(rows)])["image"]
        return images.transpose(0, 2, 3, 1)

    def in_camera(self) -> tuple[np.ndarray, np.ndarray]:
        """Predicted joints and vertices in the camera's frame, as ``pred.json`` wants them."""
        place = self.translation[:, None]
        return self.joints + place, self.vertices + place


def evaluate_predictor(
    predictor, test: TestSet, name=None, batch_size=64, progress=False, views=()
) -> Evaluation:
    """Predict every hand of a test set and score it.

    views: pairs (degrees, scale) whose predictions are averaged, see ``predict_averaged``; none:
    one pass.   returns an ``Evaluation``.   Un-aligned scores are in the
    camera's frame where the test set knows it, the wrist placed by the 2-D joints and the given
    intrinsics; elsewhere the wrists are brought together first.
    """
    size, kept, seconds = predictor.image_size, [], []
    bar = tqdm(total=len(test), unit="hand", desc="predicting", disable=not progress)
    for batch in test.batches(size, batch_size):
        start = time.perf_counter()
        crops = batch["image"].transpose(0, 2, 3, 1)
        predict = predictor.predict_crops
        out = predict_averaged(predict, crops, views) if views else predict(crops)
        seconds.append((time.perf_counter() - start) / len(batch["image"]))
        kept.append((out, {key: batch[key] for key in TRUTH}))
        bar.update(len(batch["image"]))
    bar.close()
    out = {key: np.concatenate([pair[0][key] for pair in kept]) for key in kept[0][0]}
    truth = {key: np.concatenate([pair[1][key] for pair in kept]) for key in TRUTH}
    if not (truth["has_vertices"] & truth["has_joints"]).all():
        raise ValueError(
            f"{test.name}: some hands have no true vertices or joints to score against"
        )
    truth["joints_2d"] = crop_to_pixels(truth["joints_2d"].astype(float), size)
    joints_2d = crop_to_pixels(out["joints_2d"].astype(float), size)
    place = solve_translation(out["joints"], joints_2d, truth["intrinsics"])
    in_camera = bool(truth["has_camera"].all())
    here = place[:, None] if in_camera else 0.0
    there = truth["root"][:, None].astype(float) if in_camera else 0.0
    scores = report(
        out["joints"] + here, out["vertices"] + here,
        truth["joints"] + there, truth["vertices"] + there, units="m",
        fingertips=f"truth {fingertips_of(test.dataset)}, prediction as the run was trained",
    )  # fmt: skip
    return Evaluation(
        name=name or predictor.name, test=test, image_size=size, vertices=out["vertices"],
        joints=out["joints"], joints_2d=joints_2d, translation=place, truth=truth,
        faces=predictor.network.faces.cpu().numpy(), milliseconds=1000 * float(np.median(seconds)),
        device=str(predictor.device), scores=scores,
    )  # fmt: skip


def evaluate_run(run_folder, test: TestSet, batch_size=64, progress=False, views=()) -> Evaluation:
    """Load a run folder and evaluate it; see ``evaluate_predictor``."""
    predictor = Predictor.load(run_folder)
    return evaluate_predictor(predictor, test, None, batch_size, progress, views)


def find_runs(runs_folder, given=()) -> list[Path]:
    """Run folders to evaluate: those given, or what a person trained last and the reference model.

    runs_folder: where ``reference`` and other runs are.   returns what there is of the two, the
    reference last, or an empty list. A finished run counts as trained where its own validation
    beats the best single mesh for all pictures; one that does not is taken where nothing else is.
    """
    if given:
        return [Path(folder) for folder in given]
    runs_folder = Path(runs_folder)
    shipped = [runs_folder / "reference"]
    shipped = [folder for folder in shipped if (folder / "model.safetensors").exists()]
    finished = []
    for path in runs_folder.glob("*/metrics.json"):
        if path.parent.name == "reference" or not (path.parent / "model.safetensors").exists():
            continue
        told = read_json(path)
        if told.get("status") == "finished":
            own, base = (
                (told.get(part) or {}).get("vertices_mm", np.inf)
                for part in ("validation", "template_only")
            )
            finished.append((bool(own < base), path.stat().st_mtime, path.parent))
    newest = max(finished, default=None)
    if newest and (newest[0] or not shipped):
        return [newest[2], *shipped]
    return shipped


def bootstrap_interval(values, level: float = 0.95, draws: int = 2000, seed: int = 0):
    """Mean of (N,) values, one a hand, with its percentile bootstrap interval (Efron, 1979).

    returns mean, low, high.

    >>> bootstrap_interval([2.0, 2.0, 2.0])
    (2.0, 2.0, 2.0)
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"expected one value per hand, (N,) with N > 0, found {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(values)))} is not finite")
    mean = float(values.mean())
    if len(values) == 1:
        return mean, mean, mean
    low, high = bootstrap(
        (values,), np.mean, n_resamples=draws, batch=100, confidence_level=level,
        method="percentile", rng=seed,
    ).confidence_interval  # fmt: skip
    return mean, float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same hands; ``str(comparison)`` is the verdict in one sentence."""

    first: str
    second: str
    gain_mm: float  # mean error of the first minus that of the second
    low_mm: float  # 95 % bootstrap interval of the gain
    high_mm: float
    better_share: float  # of hands on which the second has the smaller error
    count: int
    metric: str

    @property
    def decided(self) -> bool:
        """True when the interval of the gain leaves out zero."""
        return self.low_mm > 0 or self.high_mm < 0

    def __str__(self) -> str:
        evidence = (
            f"({self.metric}, {self.count} hands, 95 % interval {self.low_mm:+.2f} to "
            f"{self.high_mm:+.2f} mm; smaller error on {100 * self.better_share:.0f} % of them)"
        )
        margin = (self.high_mm - self.low_mm) / 2
        if not self.decided:
            return (
                f"{self.second} and {self.first} cannot be told apart: {self.second} gains "
                f"{self.gain_mm:.2f} +- {margin:.2f} mm {evidence}"
            )
        word = "better" if self.gain_mm > 0 else "worse"
        return (
            f"{self.second} is {word} than {self.first} by {abs(self.gain_mm):.2f} +- "
            f"{margin:.2f} mm {evidence}"
        )


def compare_runs(first: Evaluation, second: Evaluation) -> Comparison:
    """Paired comparison of two evaluations of the same hands by PA-MPVPE.

    Pairing removes what makes a hand hard for both.
    """
    if first.test.name != second.test.name or not np.array_equal(
        first.test.indices, second.test.indices
    ):
        raise ValueError(
            f"{first.name} was scored on {first.test.words}, {second.name} on {second.test.words}; "
            "a comparison needs the same hands"
        )
    gain = first.pa_mm - second.pa_mm
    better = float((gain > 0).mean())
    return Comparison(
        first.name, second.name, *bootstrap_interval(gain), better, len(gain), "PA-MPVPE"
    )


def measured_row(evaluation: Evaluation) -> dict:
    """The table's row of a run: the keys of ``published_rows``, measured here."""
    scores = evaluation.scores.millimetres
    return {
        "kind": "measured",
        "data": evaluation.test.words,
        "alignment": "similarity (PA), rotation only",
        "method": evaluation.name,
        "pa_mpjpe_mm": scores["pa_mpjpe_mm"],
        "pa_mpvpe_mm": scores["pa_mpvpe_mm"],
        "f_5": scores["pa_f_5"],
        "f_15": scores["pa_f_15"],
    }


def published_rows() -> list[dict]:
    """``published.csv`` as dicts with the keys of ``measured_row``, None where none was reported.

    Every row was reported by others, for aligned predictions; none was measured here, and none is
    listed whose numbers could not be read at a source.

    >>> published_rows()[3]["method"]
    'YouTubeHand (paper)'
    """
    alignment = "similarity (PA); mirroring allowed where FreiHAND's scorer made the number"
    about = {"kind": "published", "data": "FreiHAND evaluation set, 3,960 images"}
    words, rows = ("method", "backbone", "source"), []
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            numbers = {k: float(v) if v else None for k, v in row.items() if k not in words}
            numbers["year"] = int(row["year"]) if row["year"] else None
            rows.append({**about, "alignment": alignment, **row, **numbers})
    return rows
