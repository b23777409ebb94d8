"""Run folders on a test set: predictions, scores, and which is better.

    python -m hand_lib.evaluation.runs runs/yth --data data/freihand --out out/pred.zip

writes what FreiHAND's competition takes, of a test set with or without truth, and scores it where
the truth is there.

>>> test = open_test_set("synthetic-test", count=200)
>>> first, second = (evaluate_run(folder, test) for folder in ("runs/small", "runs/reference"))
>>> print(compare_runs(first, second))
"""

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hand_lib import metrics
from hand_lib.data.crops import HandCrops
from hand_lib.data.open import find_mano, open_data
from hand_lib.data.synthetic.hands import synthetic_test
from hand_lib.evaluation.freihand import ScoreReport, report
from hand_lib.evaluation.predictions import write_predictions
from hand_lib.files import find_run, read_json
from hand_lib.hand.joints import fingertips_of
from hand_lib.inference.predictor import Predictor, predict_averaged
from hand_lib.mesh.topology import procrustes
from hand_lib.render.camera import crop_to_pixels, solve_translation

PUBLISHED = Path(__file__).with_name("published.csv")
"""Results on FreiHAND's evaluation set as others reported them (PA, mm), with their sources."""

_BATCH = 64


@dataclass(frozen=True)
class TestSet:
    """Labelled hands that are scored in a fixed order."""

    __test__ = False  # not a test of pytest's

    name: str
    dataset: object  # a data set of HandSample
    count: int  # so many are scored, the first ones
    words: str  # what it is, for a reader

    def __len__(self) -> int:
        return self.count


def open_test_set(name="synthetic-test", count: int = 0, split: str = "evaluation") -> TestSet:
    """A test set by name.

    name: ``synthetic-test``, the fixed synthetic benchmark, or the place of a data set, as
    ``open_data`` takes it.   count: at most so many, the first; 0: all.   split: of that place.
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
    if count < 0:
        raise ValueError(f"count should be 0 (all) or more, found {count}")
    count = min(count or total, total)
    words += f": {'the first' if count < total else 'all'} {count} of {total}"
    return TestSet(Path(name).name, dataset, count, words)


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
    scores: ScoreReport | None  # None where the truth is not known

    @property
    def pa_mm(self) -> np.ndarray:
        """(N,) mean vertex error of each hand after alignment by rotation, mm."""
        return 1000 * self.scores.vertex_errors["rotation"].mean(1)

    @property
    def joint_error_px(self) -> np.ndarray:
        """(N, 21) distance in the crop, NaN where the truth is unknown."""
        errors = metrics.point_errors(self.joints_2d, self.truth["joints_2d"])
        return np.where(self.truth["valid_2d"], errors, np.nan)

    def pictures(self, rows) -> np.ndarray:
        """Crops (R, S, S, 3) uint8 of some rows of this evaluation."""
        crops = HandCrops(self.test.dataset, self.image_size)
        return crops.fetch_batch(np.asarray(rows))["image"].transpose(0, 2, 3, 1)

    def in_camera(self) -> tuple[np.ndarray, np.ndarray]:
        """Predicted joints and vertices in the camera's frame, as ``pred.json`` wants them."""
        place = self.translation[:, None]
        return self.joints + place, self.vertices + place


def evaluate_predictor(predictor, test: TestSet, progress=False, views=(), blind=False):
    """Predict every hand of a test set, in its order, and score it: an ``Evaluation``.

    views: pairs (degrees, scale) whose predictions are averaged, see ``predict_averaged``; none:
    one pass.   blind: where some truth is unknown, ``scores`` are None; otherwise that is an error.
    Un-aligned scores are in the camera's frame where the test set knows it, the wrist placed by the
    2-D joints and the given intrinsics; elsewhere the wrists are brought together.
    """
    size, predict, kept, labels, seconds = predictor.image_size, predictor.predict_crops, [], [], []
    data = HandCrops(test.dataset, size)
    with tqdm(total=len(test), unit="hand", desc="predicting", disable=not progress) as bar:
        for rows in np.split(np.arange(len(test)), range(_BATCH, len(test), _BATCH)):
            labels.append(data.fetch_batch(rows))
            start = time.perf_counter()
            crops = labels[-1].pop("image").transpose(0, 2, 3, 1)
            kept.append(predict_averaged(predict, crops, views) if views else predict(crops))
            seconds.append((time.perf_counter() - start) / len(rows))
            bar.update(len(rows))
    out, truth = (
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        for parts in (kept, labels)
    )
    known = bool((truth["has_vertices"] & truth["has_joints"]).all())
    if not known and not blind:
        raise ValueError(
            f"{test.name}: some hands have no true vertices or joints to score against; "
            "python -m hand_lib.evaluation.runs writes their pred.json"
        )
    for some in (out, truth):
        some["joints_2d"] = crop_to_pixels(some["joints_2d"].astype(float), size)
    place, scores = solve_translation(out["joints"], out["joints_2d"], truth["intrinsics"]), None
    if known:
        there = place[:, None], truth["root"][:, None].astype(float)
        there = there if truth["has_camera"].all() else (0.0, 0.0)
        arrays = (part[key] + at for part, at in zip((out, truth), there, strict=True)
                  for key in ("joints", "vertices"))  # fmt: skip
        tips = f"truth {fingertips_of(test.dataset)}, prediction as the run was trained"
        scores = report(*arrays, fingertips=tips)
    return Evaluation(
        predictor.name, test, size, out["vertices"], out["joints"], out["joints_2d"], place, truth,
        predictor.network.faces.cpu().numpy(), 1000 * float(np.median(seconds)),
        str(predictor.device), scores,
    )  # fmt: skip


def evaluate_run(run_folder, test: TestSet, progress=False, views=()) -> Evaluation:
    """Load a run folder and evaluate it; see ``evaluate_predictor``."""
    return evaluate_predictor(Predictor.load(run_folder), test, progress, views)


def find_runs(runs_folder) -> list[Path]:
    """Run folders to evaluate: what a person trained last and the reference model.

    runs_folder: where ``reference`` and other runs are.   returns what there is of the two, the
    reference last, or an empty list. A finished run counts as trained where its own validation
    beats the best single mesh for all pictures; one that does not is taken where nothing else is.
    """
    shipped, finished = [], []
    for weights in Path(runs_folder).glob("*/model.safetensors"):
        folder, path = weights.parent, weights.with_name("metrics.json")
        told = read_json(path, optional=True) or {}
        if folder.name == "reference":
            shipped.append(folder)
        elif told.get("status") == "finished":
            parts = (told.get(part) or {} for part in ("validation", "template_only"))
            own, base = (part.get("vertices_mm", np.inf) for part in parts)
            finished.append((own < base, path.stat().st_mtime, folder))
    newest = max(finished, default=None)
    return [newest[2], *shipped] if newest and (newest[0] or not shipped) else shipped


def compare_runs(first: Evaluation, second: Evaluation) -> str:
    """Which of two runs is better on the same hands by PA-MPVPE, as a sentence with its evidence.

    Pairing removes what makes a hand hard for both: the interval is of the gain of each hand,
    ``first.pa_mm - second.pa_mm``. One that holds zero decides nothing.
    """
    if (first.test.name, len(first.pa_mm)) != (second.test.name, len(second.pa_mm)):
        raise ValueError(
            f"{first.name} was scored on {first.test.words}, {second.name} on {second.test.words}; "
            "a comparison needs the same hands"
        )
    gains, one, other = first.pa_mm - second.pa_mm, second.name, first.name
    gain, low, high = metrics.bootstrap_interval(gains)
    said = f"{one} is {'better' if gain > 0 else 'worse'} than {other} by {abs(gain):.2f}"
    if low <= 0 <= high:
        said = f"{one} and {other} cannot be told apart: {one} gains {gain:.2f}"
    return (
        f"{said} +- {(high - low) / 2:.2f} mm (PA-MPVPE, {len(gains)} hands, 95 % interval "
        f"{low:+.2f} to {high:+.2f} mm; smaller error on {100 * (gains > 0).mean():.0f} % of them)"
    )


def error_parts(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Mean vertex error of each hand in mm, (N,), as more and more of the pose is put right.

    The wrists are brought together; then the hand gets its true size (root mean square distance
    from the wrist); then it is turned about the wrist as fits best; then place, turn and size all
    fit best (PA). Each is named by what was put right.
    """
    true = evaluation.truth["vertices"] - evaluation.truth["joints"][:, :1]
    hand = (evaluation.vertices - evaluation.joints[:, :1]).astype(float)
    hand[~np.isfinite(hand).all((1, 2))] = 0  # as the scorer takes hands that are missing
    size, true_size = ((points**2).sum((1, 2)) for points in (hand, true))
    sized = hand * np.sqrt(true_size / np.where(size > 0, size, 1))[:, None, None]
    # points and their mirror images in the wrist: the centre that Procrustes takes is the wrist
    both = (np.concatenate([points, -points], 1) for points in (sized, true))
    turned = sized @ procrustes(*both)[1].swapaxes(1, 2)
    off, apart = 1000 * (hand - true), metrics.point_errors
    return {
        "wrists brought together": 1000 * evaluation.scores.vertex_errors["root"].mean(1),
        "of it along the picture": np.linalg.norm(off[..., :2], axis=2).mean(1),
        "of it along the viewing direction": np.abs(off[..., 2]).mean(1),
        "and the true size given": 1000 * apart(sized, true).mean(1),
        "and turned about the wrist as fits best": 1000 * apart(turned, true).mean(1),
        "and placed as fits best (PA)": evaluation.pa_mm,
    }


def published_rows() -> list[dict]:
    """``published.csv`` as dicts, errors by the keys of ``ScoreReport``, None where not reported.

    Every row was reported by others, aligned, mirroring allowed where FreiHAND's scorer made the
    number; none was measured here, and each names where its numbers were read.

    >>> published_rows()[3]["method"]
    'YouTubeHand (paper)'
    """
    rows = []
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            errors = {k: float(v) if v else None for k, v in row.items() if k.startswith("pa_")}
            rows.append(row | errors | {"source": f"FreiHAND evaluation set; PA; {row['source']}"})
    return rows


def main(arguments=None) -> int:
    """Predict the evaluation pictures of a data set with a run, write pred.json, score it.

    Without intrinsics, which METRO's files have only if we wrote them, the place is a guess.
    """
    parser = argparse.ArgumentParser(
        prog="python -m hand_lib.evaluation.runs", description=main.__doc__
    )
    parser.add_argument("run", help="name or folder of a run")
    parser.add_argument("--data", required=True, help="FreiHAND's folder or METRO's test.yaml")
    parser.add_argument("--set", default="evaluation", choices=("evaluation", "training"))
    parser.add_argument("--count", type=int, default=0, help="the first so many; 0: all")
    parser.add_argument("--out", default="out/pred.zip", help="pred.json, or a .zip of it")
    given = parser.parse_args(arguments)
    try:
        test, predictor = open_test_set(given.data, given.count, given.set), find_run(given.run)
        found = evaluate_predictor(Predictor.load(predictor), test, progress=True, blind=True)
        path = write_predictions(given.out, *found.in_camera())
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    sys.stdout.write(f"{path}: {test.words}\n" + (f"{found.scores}\n" if found.scores else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
