"""The minimisation behind ``fitting``: many hands at once, Levenberg-Marquardt with limits.

The state of B hands is a list: rotation (B, 3, 3), wrist (B, 3) metres, angles (B, 27) radians,
shape (B, 10), of right hands in normalised camera coordinates (left ones are mirrored at the door).
"""

import copy
import itertools
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hand_lib.fitting.skeleton import ORDER
from hand_lib.hand.joints import FINGERS
from hand_lib.hand.kinematics import axis_angle_to_matrix, matrix_to_axis_angle
from hand_lib.hand.model import mirror_pose

_VIEWS, _POSES = 120, 20

PAIRS = tuple(itertools.combinations(FINGERS, 2))
"""Pairs of fingers that a detector may have taken for each other."""


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


class Problem:
    """Hands in normalised camera coordinates, right-handed, their cost and its minimum."""

    def __init__(self, skeleton, points, weights, cameras, size, noise, proportions=1.0):
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
        eye = torch.eye(10, dtype=skeleton.dtype, device=skeleton.device)
        self.shape_precision = eye + proportions * skeleton.proportions
        self.watch = None  # called with the state after every round

    def put(self, value):
        return torch.as_tensor(value, dtype=self.skeleton.dtype, device=self.skeleton.device)

    def solve(self, starts, track=False):
        """Short fits from each start, then a long one from the best of each hand.

        track: the best is chosen for all frames together, so that rotations go on.
        """
        states = [self.start(i) for i in self.first_guesses(starts)]
        batch = len(self.rays)
        many = [torch.cat(parts) for parts in zip(*states, strict=True)]
        index = torch.arange(batch, device=self.rays.device).repeat(len(states))
        many, cost = self.minimise(many, 14 if track else 7, index)
        cost = cost.view(len(states), batch)
        best = _smoothest(cost, many[0].view(len(states), batch, 3, 3)) if track else cost.argmin(0)
        rows = best * batch + torch.arange(batch, device=best.device)
        self.best = best
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
        shape = betas @ self.shape_precision
        cost = data.sum(1) + pose + (betas * shape).sum(1) + behind
        parts = [pose]
        if self.pull is not None:
            pull, weight = [p[index] for p in self.pull], self.pull_weight
            turned = matrix_to_axis_angle(rotation @ pull[2].mT)
            cost = cost + weight * (turned * turned).sum(1) / 0.05**2
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
        matrix[:, 33:, 33:] += self.shape_precision
        gradient[:, 33:] += shape
        if self.pull is not None:
            diagonal[:, 6:33] += self.pull_weight / 0.05**2
            gradient[:, 6:33] += self.pull_weight * (angles - pull[0]) / 0.05**2
            diagonal[:, 3:6] += self.pull_weight / 0.005**2
            gradient[:, 3:6] += self.pull_weight * (wrist - pull[1]) / 0.005**2
            diagonal[:, :3] += self.pull_weight / 0.05**2
            gradient[:, :3] += self.pull_weight * turned / 0.05**2
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
            if self.watch is not None:
                self.watch(state, index)
        return state, cost

    def solve_track(self, state, smoothness):
        """One shape for all frames, then rounds that pull each frame towards its neighbours."""
        rotation, wrist, angles, betas = state
        trust = 1 / (self.cost + 1)
        shared = ((trust[:, None] * betas).sum(0) / trust.sum()).expand_as(betas)
        state, self.fixed_betas = [rotation, wrist, angles, shared.clone()], shared
        state, self.cost = self.minimise(state, 6)
        self.pull_weight = smoothness
        for _ in range(4 if smoothness > 0 else 0):
            self.pull = [_neighbours(state[2]), _neighbours(state[1]), _between(state[0])]
            state, self.cost = self.minimise(state, 4)
        return state

    def some(self, rows) -> "Problem":
        """The problem of some of its hands, without a track's pull."""
        other = copy.copy(self)
        other.pull = other.watch = None
        other.rays, other.weights = self.rays[rows], self.weights[rows]
        other.focal, other.sigma = self.focal[rows], self.sigma[rows]
        if self.fixed_betas is not None:
            other.fixed_betas = self.fixed_betas[rows]
        return other

    def rivals(self, state, side: bool, rounds: int = 4, tries: int = 3):
        """Energies (1 + P, B) of other explanations of the picture, from this state onwards.

        The first is the other side's hand, which weak perspective cannot tell from this one
        mirrored in depth (infinite unless ``side``); then each pair of ``PAIRS`` swapped, of which
        only the ``tries`` that fit best at first are minimised. The same rounds are given to the
        explanation itself, whose energy (B,) comes first.
        """
        own = self.minimise(state, rounds)[1]
        others = [torch.full_like(own, torch.inf)]
        if side:
            other = copy.copy(self)
            other.rays = self.rays * self.rays.new_tensor([-1.0, 1.0])
            rotation = state[0] * state[0].new_tensor([-1.0, 1, -1])[:, None]
            wrist = state[1] * state[1].new_tensor([-1.0, 1, 1])
            others = [other.minimise([rotation, wrist, *state[2:]], 3 * rounds)[1]]
        columns = [torch.as_tensor(swapped_columns(*p), device=own.device) for p in PAIRS]
        swapped = copy.copy(self)
        index, first = torch.arange(len(own), device=own.device), []
        for order in columns:
            swapped.rays, swapped.weights = self.rays[:, order], self.weights[:, order]
            first.append(swapped.energy(state, index, False)[0])
        nearest = torch.stack(first).topk(tries, dim=0, largest=False).indices
        energies = torch.full((len(PAIRS), len(own)), torch.inf, dtype=own.dtype, device=own.device)
        for pairs in nearest:
            order = torch.stack(columns)[pairs]  # (B, 21)
            swapped.rays = self.rays.gather(1, order[..., None].expand_as(self.rays))
            swapped.weights = self.weights.gather(1, order)
            energies[pairs, index] = swapped.minimise(state, rounds)[1]
        others += energies.unbind(0)
        return own, torch.stack(others)

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


def _between(rotations: Tensor) -> Tensor:
    """Rotation half way between the frames before and after; the ends have one.  (T, 3, 3)."""
    before = torch.cat([rotations[1:2], rotations[:-1]])
    after = torch.cat([rotations[1:], rotations[-2:-1]])
    return axis_angle_to_matrix(matrix_to_axis_angle(after @ before.mT) / 2) @ before


def _smoothest(cost: Tensor, rotations: Tensor) -> Tensor:
    """Which of K fits of each of T frames: least cost plus turning (Viterbi 1967).

    cost: (K, T).   rotations: (K, T, 3, 3).   returns (T,) numbers below K. A turn of t radians
    between frames costs (t / 0.15)^2, at most 100.
    """
    count, frames = cost.shape
    best, came = cost[:, 0].clone(), []
    for t in range(1, frames):
        trace = torch.einsum("iab,jab->ij", rotations[:, t - 1], rotations[:, t])
        turn = ((trace - 1) / 2).clamp(-1, 1).acos()
        total = best[:, None] + ((turn / 0.15) ** 2).clamp_max(100.0)
        best, where = total.min(0)
        best = best + cost[:, t]
        came.append(where)
    path = [best.argmin()]
    for where in reversed(came):
        path.append(where[path[-1]])
    return torch.stack(path[::-1])


@lru_cache(maxsize=16)
def swapped_columns(one: str, two: str) -> np.ndarray:
    """Order of the 21 columns inside the fit when two fingers have taken each other's keypoints."""
    order = np.arange(21)
    order[list(FINGERS[one])], order[list(FINGERS[two])] = FINGERS[two], FINGERS[one]
    return np.argsort(ORDER)[order[ORDER]]
