"""From 2-D keypoints to the parameters of a hand model, many hands at a time.

Each hand minimises the robust reprojection error, weighted by confidence, plus a Gaussian prior on
joint angles (the sampler's mean and covariance) and on shape, by Levenberg-Marquardt. Angles are
clamped to ``anatomy.JOINT_LIMITS`` in every step, so limits always hold. A picture of a flat thing
has a mirrored twin in depth: several starting rotations, found by matching a bank of posed hands
seen from all sides, keep the fit from it.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hand_lib.fitting_filters import FilterLimits, judge_fits
from hand_lib.fitting_skeleton import LIMITS, ORDER, Skeleton
from hand_lib.hand_model import mirror_pose
from hand_lib.rotations import axis_angle_to_matrix

MIN_JOINTS = 6
"""A hand with fewer visible joints is not fitted."""

_VIEWS, _POSES = 120, 20
_CHUNK = 64  # hands at a time on a CPU, so that the work stays in its cache


@dataclass
class HandFit:
    """What fits found; row i belongs to hand i. Metres, radians, camera axes."""

    pose: np.ndarray  # (B, 16, 3) axis-angle, to be handed to the same model
    betas: np.ndarray  # (B, 10)
    translation: np.ndarray  # (B, 3)
    joints: np.ndarray  # (B, 21, 3)
    joints_2d: np.ndarray  # (B, 21, 2) px, the fit's own
    reprojection_px: np.ndarray  # (B,) mean distance over the visible joints
    residual_px: np.ndarray  # (B, 21) distance of each joint, NaN where not seen
    energy: np.ndarray  # (B,) the minimum reached
    pose_energy: np.ndarray  # (B,) share of the pose prior in it
    intrinsics: np.ndarray  # (B, 3, 3) px, as used
    accepted: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # (B,) bool
    reason: list = field(default_factory=list)  # B strings, empty where accepted


def fit_hands(
    model,
    keypoints_2d,
    confidence=None,
    intrinsics=None,
    *,
    image_size=None,
    track=False,
    boxes=None,
    starts: int = 3,
    noise: float = 0.012,
    smoothness: float = 0.5,
    limits: FilterLimits | None = None,
) -> HandFit:
    """Fit the hand model to batches of 2-D hands.

    model: a ``HandModel``, built-in or MANO, right or left; the keypoints show that side.
    keypoints_2d: (B, 21, 2) px, FreiHAND order.   confidence: (B, 21), 0 leaves out; None: 1.
    intrinsics: (3, 3) or (B, 3, 3) px; None guesses a field of view of 60 degrees (``image_size``
    (width, height) tells of what, else the reach of the keypoints), so that depth is a guess.
    track: the rows are frames of one hand in order: shape is shared and motion smoothed.
    boxes: (B, 4) px x0 y0 x1 y1 of the detections, for the filter.   starts: starting rotations.
    noise: expected keypoint noise as a share of the hand's size in the picture.
    smoothness: weight of the pull towards the neighbouring frames of a track.
    returns a ``HandFit``; rows that cannot be fitted are NaN and say why in ``reason``.
    """
    points, weights = _check_keypoints(keypoints_2d, confidence)
    batch = len(points)
    cameras = _cameras(intrinsics, points, weights, image_size, batch)
    usable = (weights > 0).sum(1) >= MIN_JOINTS
    size = hand_size(points, weights)
    usable &= size > 2
    fit = _empty(batch, cameras)
    rows = np.flatnonzero(usable)
    if len(rows):
        skeleton = Skeleton(model)
        step = len(rows) if track or skeleton.device.type != "cpu" else _CHUNK
        for part in (rows[i : i + step] for i in range(0, len(rows), step)):
            problem = _Problem(
                skeleton, points[part], weights[part], cameras[part], size[part], noise
            )
            state = problem.solve(starts)
            if track and len(rows) > 1:
                state = problem.solve_track(state, smoothness)
            problem.write(fit, part, state)
    judge_fits(fit, points, weights, boxes, track, limits or FilterLimits())
    return fit


def hand_size(points, weights) -> np.ndarray:
    """Side of the square round the visible keypoints.   (B, 21, 2), (B, 21) -> (B,) px."""
    seen = (weights > 0)[..., None]
    low = np.where(seen, points, np.inf).min(1)
    high = np.where(seen, points, -np.inf).max(1)
    side = (high - low).max(1)
    return np.where(np.isfinite(side), side, 0.0)


def _check_keypoints(keypoints, confidence):
    keypoints = np.asarray(keypoints, float)
    if keypoints.ndim == 2:
        keypoints = keypoints[None]
    if keypoints.ndim != 3 or keypoints.shape[1:] != (21, 2):
        raise ValueError(f"expected keypoints_2d (B, 21, 2), found {keypoints.shape}")
    if confidence is None:
        confidence = np.ones(keypoints.shape[:2])
    confidence = np.asarray(confidence, float).reshape(-1, 21)
    if confidence.shape != keypoints.shape[:2]:
        raise ValueError(
            f"expected confidence ({len(keypoints)}, 21), found {np.shape(confidence)}"
        )
    if (confidence < 0).any() or not np.isfinite(confidence).all():
        raise ValueError("confidence must be finite and not negative")
    finite = np.isfinite(keypoints).all(2)
    return np.where(finite[..., None], keypoints, 0.0), np.where(finite, confidence, 0.0)


def _cameras(intrinsics, points, weights, image_size, batch):
    if intrinsics is not None:
        intrinsics = np.asarray(intrinsics, float)
        if intrinsics.shape not in ((3, 3), (batch, 3, 3)):
            raise ValueError(f"expected intrinsics (3, 3) or (B, 3, 3), found {intrinsics.shape}")
        return np.broadcast_to(intrinsics, (batch, 3, 3)).copy()
    if image_size is None:
        seen = points[weights > 0]
        image_size = seen.max(0) + 1 if len(seen) else (1.0, 1.0)
    width, height = np.maximum(image_size, 1)
    focal = max(width, height) / 2 / np.tan(np.deg2rad(30))
    camera = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    return np.broadcast_to(camera, (batch, 3, 3)).copy()


def _empty(batch, cameras):
    def nan(*shape):
        return np.full((batch, *shape), np.nan)

    return HandFit(
        pose=nan(16, 3), betas=nan(10), translation=nan(3), joints=nan(21, 3),
        joints_2d=nan(21, 2), reprojection_px=nan(), residual_px=nan(21), energy=nan(),
        pose_energy=nan(), intrinsics=cameras,
    )  # fmt: skip


@lru_cache(maxsize=4)
def _sphere(count):
    """Rotations (count, 3, 3) whose viewing directions cover the sphere evenly (golden spiral)."""
    k = np.arange(count) + 0.5
    z, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - z * z)
    forward = np.stack([ring * np.cos(turn), ring * np.sin(turn), z], 1)
    helper = np.where(np.abs(z)[:, None] < 0.9, [[0.0, 0, 1]], [[1.0, 0, 0]])
    right = np.cross(helper, forward)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], 1)


class _Problem:
    """Hands in normalised camera coordinates, right-handed, their cost and its minimum."""

    def __init__(self, skeleton, points, weights, cameras, size, noise):
        self.model, self.skeleton = skeleton.model, skeleton
        model = skeleton.model
        self.points, self.cameras = points, cameras
        self.mirror = -1.0 if model.side == "left" else 1.0
        inverse = np.linalg.inv(cameras)
        rays = np.concatenate([points, np.ones_like(points[..., :1])], 2) @ inverse.swapaxes(1, 2)
        rays = rays[..., :2] * (self.mirror, 1.0)
        focal = np.sqrt(np.abs(np.linalg.det(cameras[:, :2, :2])))
        put = self.put
        self.seen = weights > 0
        weights = weights / np.maximum(weights.max(1, keepdims=True), 1e-9)
        self.rays, self.weights = put(rays[:, ORDER]), put(weights[:, ORDER])
        self.focal = put(focal)
        self.sigma = put(np.maximum(noise * size, 0.5) / focal)  # (B,) in normalised units
        self.pull, self.pull_weight, self.fixed_betas = None, 0.0, None

    def put(self, value):
        return torch.as_tensor(value, dtype=self.skeleton.dtype, device=self.skeleton.device)

    def solve(self, starts):
        """Short fits from each start, then a long one from the best of each hand."""
        states = [self.start(i) for i in self.first_guesses(starts)]
        batch = len(self.rays)
        many = [torch.cat(parts) for parts in zip(*states, strict=True)]
        index = torch.arange(batch, device=self.rays.device).repeat(len(states))
        many, cost = self.minimise(many, 7, index)
        best = cost.view(len(states), batch).argmin(0)
        rows = best * batch + torch.arange(batch, device=best.device)
        state, self.cost = self.minimise([part[rows] for part in many], 14)
        return state

    def first_guesses(self, starts):
        """Pose and view of the bank whose picture fits best, and best ones seen from elsewhere."""
        skeleton = self.skeleton
        draws = skeleton.draws[:_POSES]
        eye = torch.eye(3, dtype=draws.dtype, device=draws.device).expand(_POSES, 3, 3)
        zero = draws.new_zeros(_POSES, 3)
        bank, _ = skeleton.place(eye, zero, draws, draws.new_zeros(_POSES, 10), slopes=False)
        views = self.put(_sphere(_VIEWS))
        seen = torch.einsum("vab,pjb->vpja", views, bank).reshape(-1, 21, 3)
        flat = torch.complex(seen[..., 0], seen[..., 1])  # (N, 21)
        weight = self.weights / self.weights.sum(1, keepdim=True)
        rays = torch.complex(self.rays[..., 0], self.rays[..., 1])
        middle = (weight * rays).sum(1, keepdim=True)
        rays = rays - middle
        cross = (weight * rays) @ flat.conj().T  # (B, N), the bank's own middle drops out
        mean = weight.to(flat.dtype) @ flat.T
        power = weight @ _square(flat).T - _square(mean)
        score = _square(cross) / power  # explained square; the rest is error
        found = []
        for _ in range(starts):
            best = score.argmax(1)
            found.append((best, cross, power, mean, middle, draws, views))
            near = (views[best // _POSES, 2] @ views[:, 2].T) > 0.7  # (B, views)
            score = score.masked_fill(near.repeat_interleave(_POSES, 1), -1.0)
        return found

    def start(self, guess):
        best, cross, power, mean, middle, draws, views = guess
        pick = torch.arange(len(best), device=best.device)
        factor = cross[pick, best] / power[pick, best]  # scale and turn in the picture
        cos, sin = (factor / factor.abs()).real, (factor / factor.abs()).imag
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1).view(-1, 3, 3)
        depth = 1 / factor.abs().clamp_min(1e-6)
        centre = middle[:, 0] - factor * mean[pick, best]
        wrist = torch.stack([centre.real, centre.imag, one], 1) * depth[:, None]
        # the optical axis of each hand: the view is seen along its own ray
        ray = torch.nn.functional.normalize(torch.stack([centre.real, centre.imag, one], 1), dim=1)
        tilt = torch.stack([-ray[:, 1], ray[:, 0], zero], 1)
        rotation = axis_angle_to_matrix(tilt) @ turn @ views[best // _POSES]
        return [rotation, wrist, draws[best % _POSES], draws.new_zeros(len(best), 10)]

    def energy(self, state, index, slopes):
        """Cost (B,), and with ``slopes`` the normal equations: gradient (B, 43), matrix."""
        skeleton = self.skeleton
        rotation, wrist, angles, betas = state
        joints, moves = skeleton.place(rotation, wrist, angles, betas, slopes)
        x, y, z = joints.unbind(-1)
        z = z.clamp_min(1e-3)
        rays, weights = self.rays[index], self.weights[index]
        sigma = self.sigma[index][:, None]
        ex, ey = (x / z - rays[..., 0]) / sigma, (y / z - rays[..., 1]) / sigma
        square = (ex * ex + ey * ey) / 9.0
        data = 9.0 * weights * torch.log1p(square)  # Cauchy, quadratic below three sigma
        away = angles - skeleton.prior_mean
        bent = away @ skeleton.prior_precision
        pose = (away * bent).sum(1)
        behind = 1e4 * (joints[..., 2] < 0.02).sum(1)
        cost = data.sum(1) + pose + (betas * betas).sum(1) + behind
        parts = [pose]
        if self.pull is not None:
            pull, weight = [p[index] for p in self.pull], self.pull_weight
            cost = cost + weight * ((angles - pull[0]) ** 2).sum(1) / 0.05**2
            cost = cost + weight * ((wrist - pull[1]) ** 2).sum(1) / 0.005**2
        if not slopes:
            return cost, parts
        weight = (weights / (1 + square))[:, None]  # the robust weight of each joint
        scale = 1 / (z * sigma)
        jx = (moves[0] - (x / z)[:, None] * moves[2]) * scale[:, None]  # (B, 43, 21)
        jy = (moves[1] - (y / z)[:, None] * moves[2]) * scale[:, None]
        jacobian = torch.cat([jx, jy], 2)
        weighted = torch.cat([jx * weight, jy * weight], 2)
        matrix = weighted @ jacobian.mT
        gradient = (weighted @ torch.cat([ex, ey], 1)[..., None])[..., 0]
        matrix[:, 6:33, 6:33] += skeleton.prior_precision
        gradient[:, 6:33] += bent
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        diagonal[:, 33:] += 1
        gradient[:, 33:] += betas
        if self.pull is not None:
            diagonal[:, 6:33] += self.pull_weight / 0.05**2
            gradient[:, 6:33] += self.pull_weight * (angles - pull[0]) / 0.05**2
            diagonal[:, 3:6] += self.pull_weight / 0.005**2
            gradient[:, 3:6] += self.pull_weight * (wrist - pull[1]) / 0.005**2
        return cost, gradient, matrix

    def minimise(self, state, rounds, index=None):
        """Levenberg-Marquardt; angles at a limit that push outwards are held for the step."""
        if index is None:
            index = torch.arange(len(self.rays), device=self.rays.device)
        low, high = self.skeleton.low, self.skeleton.high
        damping = self.rays.new_full((len(index), 1), 1e-2)
        cost, gradient, matrix = self.energy(state, index, True)
        for _ in range(rounds):
            held = torch.zeros_like(gradient, dtype=torch.bool)
            angles = state[2]
            held[:, 6:33] = ((angles <= low) & (gradient[:, 6:33] > 0)) | (
                (angles >= high) & (gradient[:, 6:33] < 0)
            )
            if self.fixed_betas is not None:
                held[:, 33:] = True
            free = (~held).to(gradient.dtype)
            system = matrix * free[:, :, None] * free[:, None]
            diagonal = system.diagonal(dim1=1, dim2=2)
            diagonal += damping * diagonal + 1e-6 + held
            factor, _ = torch.linalg.cholesky_ex(system)
            move = torch.cholesky_solve((-gradient * free)[..., None], factor)[..., 0]
            move = move.nan_to_num(0, 0, 0).clamp(-1, 1)
            trial = [
                axis_angle_to_matrix(move[:, :3]) @ state[0],
                state[1] + move[:, 3:6],
                (angles + move[:, 6:33]).clamp(low, high),
                (state[3] + move[:, 33:]).clamp(-4, 4),
            ]
            new_cost, new_gradient, new_matrix = self.energy(trial, index, True)
            better = new_cost < cost
            damping = torch.where(better[:, None], damping * 0.2, damping * 8).clamp(1e-6, 1e4)

            def choose(new, old, better=better):
                return torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)

            state = [choose(a, b) for a, b in zip(trial, state, strict=True)]
            cost, gradient = choose(new_cost, cost), choose(new_gradient, gradient)
            matrix = choose(new_matrix, matrix)
        return state, cost

    def solve_track(self, state, smoothness):
        """One shape for all frames, then rounds that pull each frame towards its neighbours."""
        rotation, wrist, angles, betas = state
        trust = 1 / (self.cost + 1)
        shared = ((trust[:, None] * betas).sum(0) / trust.sum()).expand_as(betas)
        state, self.fixed_betas = [rotation, wrist, angles, shared.clone()], shared
        self.pull_weight = smoothness
        for _ in range(3):
            self.pull = [_neighbours(state[2]), _neighbours(state[1])]
            state, self.cost = self.minimise(state, 4)
        return state

    def write(self, fit, rows, state):
        """Fill the rows of a ``HandFit`` from a state, through the model itself."""
        rotation, wrist, angles, betas = state
        skeleton, model = self.skeleton, self.model
        pose = skeleton.pose(rotation, angles)
        translation = wrist - skeleton.wrist - betas @ skeleton.wrist_shapes
        if self.mirror < 0:
            pose = mirror_pose(pose)
            translation = translation * translation.new_tensor([-1.0, 1.0, 1.0])
        if not model.flat_mean:
            fingers = pose[:, 1:] - model.pose_mean.to(pose).view(15, 3)
            pose = torch.cat([pose[:, :1], fingers], 1)
        kind = model.template.dtype
        with torch.no_grad():
            hand = model(pose.to(kind), betas.to(kind), translation.to(kind))
        joints = hand.joints.double().cpu().numpy()
        pixels = joints @ self.cameras.swapaxes(1, 2)
        pixels = pixels[..., :2] / np.maximum(pixels[..., 2:], 1e-6)
        distance = np.where(self.seen, np.linalg.norm(pixels - self.points, axis=2), np.nan)
        index = torch.arange(len(rows), device=self.rays.device)
        cost, (pose_part,) = self.energy(state, index, False)
        found = {
            "pose": pose, "betas": betas, "translation": translation, "joints": joints,
            "joints_2d": pixels, "residual_px": distance, "energy": cost,
            "reprojection_px": np.nanmean(distance, 1), "pose_energy": pose_part,
        }  # fmt: skip
        for name, value in found.items():
            value = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
            getattr(fit, name)[rows] = value


def _square(numbers: Tensor) -> Tensor:
    return numbers.real * numbers.real + numbers.imag * numbers.imag


def _neighbours(values: Tensor) -> Tensor:
    """Mean of the frames before and after; the ends have one."""
    before = torch.cat([values[1:2], values[:-1]])
    after = torch.cat([values[1:], values[-2:-1]])
    return (before + after) / 2


__all__ = ["LIMITS", "MIN_JOINTS", "HandFit", "fit_hands", "hand_size"]
