"""Run folders on a test set: predictions, scores, and what makes a hand hard.

>>> test = open_test_set("synthetic-test", count=200)
>>> first, second = (evaluate_run(folder, test) for folder in ("runs/small", "runs/reference"))
>>> print(compare_runs(first, second))
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hand_lib import metrics
from hand_lib.evaluation import freihand as scoring
from hand_lib.evaluation import statistics
from hand_lib.hand.joints import fingertips_of
from hand_lib.inference.tta import predict_averaged
from hand_lib.render.camera import crop_to_pixels, solve_translation
from hand_lib.render.raster import rasterise

HIDDEN_BEHIND = 0.004
"""A vertex is hidden when the surface in front of it is nearer to the camera by more (metres)."""


@dataclass(frozen=True)
class TestSet:
    """Labelled hands that are scored in a fixed order."""

    __test__ = False  # not a test of pytest's

    name: str
    dataset: object  # a sequence of HandSample
    indices: np.ndarray  # (N,) which of them
    words: str  # what it is, for a reader

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, image_size: int, size: int = 64):
        """Crops with labels as ``data.HandCrops`` makes them, in order, ``size`` at a time."""
        from hand_lib.data.crops import HandCrops

        crops = HandCrops(self.dataset, image_size)
        for start in range(0, len(self), size):
            yield crops.fetch_batch(self.indices[start : start + size])


def open_test_set(name: str = "synthetic-test", count: int = 0, split: str = "evaluation"):
    """A test set by name.

    name: ``synthetic-test``, the fixed synthetic benchmark, or the place of a data set: a folder in
    FreiHAND's layout, a METRO .yaml, a YouTube 3D Hands .json. The benchmark is compared with its
    pin, and a warning says when it is another.   count: the first so many hands;
    0: all.   split: of the folder.
    """
    if name == "synthetic-test":
        from hand_lib.data.synthetic.check import open_checked_benchmark

        dataset, state = open_checked_benchmark()
        words = f"synthetic-test, hands drawn with a seed kept for testing ({state})"
    elif Path(name).is_dir():
        from hand_lib.data.readers import FreiHand

        dataset = FreiHand(name, split)
        words = f"{split} pictures of {Path(name).name}"
    elif Path(name).suffix in (".yaml", ".yml", ".json") and Path(name).exists():
        from hand_lib.training.setup import open_dataset

        dataset = open_dataset(Path(name).resolve())
        words = f"pictures of {Path(name).name}"
    else:
        raise FileNotFoundError(
            f"{name} is neither 'synthetic-test' nor a folder in FreiHAND's layout, a METRO .yaml "
            "or a YouTube 3D Hands .json"
        )
    total = len(dataset)
    if count < 0 or count > total:
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
    scores: scoring.ScoreReport

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
        from hand_lib.data.crops import HandCrops

        crops = HandCrops(self.test.dataset, self.image_size)
        images = crops.fetch_batch(self.test.indices[np.asarray(rows)])["image"]
        return images.transpose(0, 2, 3, 1)

    def in_camera(self) -> tuple[np.ndarray, np.ndarray]:
        """Predicted joints and vertices in the camera's frame, as ``pred.json`` wants them."""
        place = self.translation[:, None]
        return self.joints + place, self.vertices + place


def evaluate_predictor(
    predictor, test: TestSet, name=None, batch_size=64, progress=False, views=None
):
    """Predict every hand of a test set and score it.

    predictor: ``inference.Predictor``.   views: from ``tta.augmentations``, whose predictions are
    averaged; None: one pass.   returns an ``Evaluation``.   Un-aligned scores are in the
    camera's frame where the test set knows it, the wrist placed by the 2-D joints and the given
    intrinsics; elsewhere the wrists are brought together first.
    """
    size, kept, seconds = predictor.image_size, [], []
    bar = scoring.progress_bar(len(test), progress, "predicting")
    for batch in test.batches(size, batch_size):
        start = time.perf_counter()
        crops = batch["image"].transpose(0, 2, 3, 1)
        if views:
            out = predict_averaged(predictor.predict_crops, crops, views)
        else:
            out = predictor.predict_crops(crops)
        seconds.append((time.perf_counter() - start) / len(batch["image"]))
        kept.append((out, {key: batch[key] for key in _TRUTH}))
        bar.update(len(batch["image"]))
    bar.close()
    out = {key: np.concatenate([pair[0][key] for pair in kept]) for key in kept[0][0]}
    truth = {key: np.concatenate([pair[1][key] for pair in kept]) for key in _TRUTH}
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
    scores = scoring.report(
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


_TRUTH = ("vertices", "joints", "root", "joints_2d", "valid_2d", "intrinsics", "has_vertices",
          "has_joints", "has_camera", "index")  # fmt: skip


def evaluate_run(
    run_folder, test: TestSet, batch_size=64, progress=False, views=None
) -> Evaluation:
    """Load a run folder and evaluate it; see ``evaluate_predictor``."""
    from hand_lib.inference.predictor import Predictor

    predictor = Predictor.load(run_folder)
    return evaluate_predictor(predictor, test, None, batch_size, progress, views)


def compare_runs(first: Evaluation, second: Evaluation) -> statistics.Comparison:
    """Paired comparison of two evaluations of one test set by PA-MPVPE."""
    if first.test.name != second.test.name or not np.array_equal(
        first.test.indices, second.test.indices
    ):
        raise ValueError(
            f"{first.name} was scored on {first.test.words}, {second.name} on {second.test.words}; "
            "a comparison needs the same hands"
        )
    errors = (e.scores.vertex_errors["rotation"].mean(1) for e in (first, second))
    return statistics.compare(*errors, (first.name, second.name), "PA-MPVPE")


def measured_row(evaluation: Evaluation) -> dict:
    """The table's row of a run: the keys of ``field_results.published_rows``, measured here."""
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


def hidden_shares(vertices, faces, root, intrinsics, size: int) -> np.ndarray:
    """Share of each hand's vertices that the hand itself hides from the camera.

    vertices: (N, V, 3) metres, wrist at the origin.   faces: (F, 3).   root: (N, 3) metres.
    intrinsics: (N, 3, 3) pixels of a picture of side ``size``.   returns (N,) in [0, 1]. Vertices
    outside the picture do not count.
    """
    shares = np.zeros(len(vertices))
    for n in range(len(vertices)):
        points = np.asarray(vertices[n], float) + root[n]
        depth = rasterise(points, faces, intrinsics[n], size).depth
        homogeneous = points @ np.asarray(intrinsics[n], float).T
        pixel = np.round(homogeneous[:, :2] / homogeneous[:, 2:]).astype(int)
        inside = ((pixel >= 0) & (pixel < size)).all(1)
        column, row = pixel[inside].T
        hidden = points[inside, 2] > depth[row, column] + HIDDEN_BEHIND
        shares[n] = hidden.mean() if inside.any() else 0.0
    return shares


def circumstances(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """What may make a hand hard, one number per hand: viewpoint, turn, pose and occlusion."""
    truth = evaluation.truth
    roots = truth["root"] if truth["has_camera"].all() else None
    found = {
        "palm to camera, degrees": statistics.palm_angles_deg(truth["joints"], roots),
        "turn in the picture, degrees": statistics.in_plane_angles_deg(truth["joints"]),
        "distance from the mean pose, mm": 1000 * statistics.pose_distances(truth["joints"]),
    }
    if roots is not None:
        hidden = hidden_shares(
            truth["vertices"], evaluation.faces, roots, truth["intrinsics"], evaluation.image_size
        )
        found["vertices the hand itself hides, %"] = 100 * hidden
    return found


def error_parts(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Mean vertex error of each hand in mm, (N,), as more and more of the pose is put right.

    The wrists are brought together; then the hand gets its true size (root mean square distance
    from the wrist); then it is turned about the wrist as fits best; then place, turn and size all
    fit best (PA). "across" and "in depth" are the first error's parts along the picture and along
    the viewing direction.
    """
    true = evaluation.truth["vertices"] - evaluation.truth["joints"][:, :1]
    hand = (evaluation.vertices - evaluation.joints[:, :1]).astype(float)
    hand[~np.isfinite(hand).all((1, 2))] = 0  # as the scorer takes hands that are missing
    size, true_size = ((points**2).sum((1, 2)) for points in (hand, true))
    sized = hand * np.sqrt(true_size / np.where(size > 0, size, 1))[:, None, None]
    # points and their mirror images in the wrist: the centre that Procrustes takes is the wrist
    both = (np.concatenate([points, -points], 1) for points in (sized, true))
    turn = metrics.align_procrustes(*both)[1]["matrix"]
    off = 1000 * (hand - true)
    return {
        "wrists together": 1000 * evaluation.scores.vertex_errors["root"].mean(1),
        "across": np.linalg.norm(off[..., :2], axis=2).mean(1),
        "in depth": np.abs(off[..., 2]).mean(1),
        "true size": 1000 * metrics.point_errors(sized, true).mean(1),
        "turned about the wrist": 1000
        * metrics.point_errors(sized @ turn.swapaxes(1, 2), true).mean(1),
        "PA": evaluation.pa_mm,
    }


def find_runs(runs_folder, given=()) -> list[Path]:
    """Run folders to evaluate: those given, or the newest finished run and the reference model.

    runs_folder: where ``reference`` and other runs are.   returns what there is of the two, the
    reference last, or an empty list.
    """
    if given:
        return [Path(folder) for folder in given]
    runs_folder = Path(runs_folder)
    reference = runs_folder / "reference"
    shipped = [reference] if (reference / "model.safetensors").exists() else []
    finished = []
    for report in runs_folder.glob("*/metrics.json"):
        complete = json.loads(report.read_text()).get("status") == "finished"
        if (
            report.parent != reference
            and complete
            and (report.parent / "model.safetensors").exists()
        ):
            finished.append(report)
    finished.sort(key=lambda path: path.stat().st_mtime)
    return [path.parent for path in finished[-1:]] + shipped
