"""The minimisation behind ``fit_hands``: many hands at once, Levenberg-Marquardt with limits.

Everything happens in normalised camera coordinates and for right hands; left ones are mirrored at
the door. From ``Problem`` to ``State``: ``first_guesses`` of a bank of posed hands seen from all
sides, ``minimise`` from each, ``solve`` keeps the best, ``smooth_track`` ties frames together.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from hand_lib.fitting.skeleton import ANGLES, ORDER, SHAPE, TURN, WRIST, Skeleton
from hand_lib.hand.kinematics import axis_angle_to_matrix

_VIEWS = 120
_DONE = 1e-3  # a step that promises to lower no cost by more is not taken
_TURN_SPREAD, _WRIST_SPREAD = 0.05, 0.005
"""Between a frame and its neighbours: radians of turn and of every angle, metres of the wrist."""


class State(NamedTuple):
    """Right hands in camera coordinates."""

    rotation: Tensor  # (B, 3, 3)
    wrist: Tensor  # (B, 3) metres
    angles: Tensor  # (B, 27) radians
    betas: Tensor  # (B, 10)

    def rows(self, index) -> "State":
        """Some of the hands."""
        return State(*(part[index] for part in self))


class JointPrior(NamedTuple):
    """What a network says of the joints of B hands, in ``ORDER``."""

    rays: Tensor  # (B, 2, 21) as it read them from the picture, normalised camera coordinates
    weight: Tensor  # (B,) of each of them, beside a keypoint's 1
    places: Tensor  # (B, 3, 21) metres, less the wrist
    spread: float  # metres that these are off by along each axis


class Problem(NamedTuple):
    """What is asked about B hands."""

    skeleton: Skeleton
    rays: Tensor  # (B, 2, 21) keypoints in normalised camera coordinates, in ``ORDER``
    weights: Tensor  # (B, 21) at most 1
    sigma: Tensor  # (B,) expected noise in normalised units
    precision: Tensor  # (37, 37) of angles about the pose prior's mean, and of the shape
    fixed_shape: bool = False
    near: State | None = None  # pulls towards another answer: a track's neighbours, a network's
    pull: Tensor | None = None  # (43,) or (B, 43) precision of that pull
    joints: JointPrior | None = None


class Terms(NamedTuple):
    """Joints of B states, their cost, its part from the pose prior, and the normal equations."""

    joints: Tensor  # (B, 3, 21) metres, of right hands, in ``ORDER``
    cost: Tensor  # (B,)
    pose: Tensor  # (B,)
    gradient: Tensor  # (B, 43)
    matrix: Tensor  # (B, 43, 43)


def make_problem(skeleton, points, weights, cameras, size, noise, proportions) -> Problem:
    """Pixels to normalised coordinates of right hands.

    points: (B, 21, 2) px.   weights: (B, 21).   cameras: (B, 3, 3) px.   size: (B,) px.
    noise: expected noise as a fraction of the size.   proportions: weight of even bone lengths.
    """
    inverse = np.linalg.inv(cameras)
    rays = np.concatenate([points, np.ones_like(points[..., :1])], 2) @ inverse.swapaxes(1, 2)
    rays = rays[..., :2] * (skeleton.mirror, 1.0)
    focal = np.sqrt(np.abs(np.linalg.det(cameras[:, :2, :2])))
    weights = weights / np.maximum(weights.max(1, keepdims=True), 1e-9)
    rays, weights = rays[:, ORDER].swapaxes(1, 2), weights[:, ORDER]
    sigma = np.maximum(noise * size, 0.5) / focal
    shape = torch.eye(10).to(skeleton.proportions) + proportions * skeleton.proportions
    precision = torch.block_diag(skeleton.prior_precision, shape)
    return Problem(skeleton, *map(skeleton.put, (rays, weights, sigma)), precision)


def solve(problem: Problem, starts: int, track: bool = False, history: list | None = None):
    """Short fits from each start, then a long one from the best of each hand.

    track: the best is chosen for all frames together, so that rotations go on.   history: a list
    that gets every round's state: first those of all starts, (starts B) rows, then of the best.
    returns the state, its ``Terms``, and the start (B,) that won.
    """
    batch = len(problem.rays)
    many = first_guesses(problem, starts)
    if history is not None:
        history.append(many)
    repeated = problem._replace(
        rays=problem.rays.repeat(starts, 1, 1), weights=problem.weights.repeat(starts, 1),
        sigma=problem.sigma.repeat(starts),
    )  # fmt: skip
    many, terms = minimise(repeated, many, 14 if track else 7, history)
    cost = terms.cost.view(starts, batch)
    turns = many.rotation.view(starts, batch, 3, 3)
    best = _smoothest(cost, turns) if track else cost.argmin(0)
    rows = best * batch + torch.arange(batch, device=best.device)
    return *minimise(problem, many.rows(rows), 14, history), best


@lru_cache(maxsize=1)
def _views() -> np.ndarray:
    """Rotations (N, 3, 3) that see a hand from all over the sphere, evenly (golden spiral)."""
    k = np.arange(_VIEWS) + 0.5
    turn, tilt = np.pi * (1 + 5**0.5) * k, np.arccos(1 - 2 * k / _VIEWS)
    return Rotation.from_euler("zy", np.stack([-turn, -tilt], 1)).as_matrix()


def first_guesses(problem: Problem, starts: int) -> State:
    """(starts B) poses and views of the bank: whose picture fits best, then best from elsewhere.

    Pictures are compared up to shift, turn and scale, as complex numbers.
    """
    skeleton = problem.skeleton
    draws = skeleton.draws
    poses = len(draws)
    none, eye = draws.new_zeros(poses, 10), torch.eye(3).to(draws).expand(poses, 3, 3)
    bank, _ = skeleton.place(eye, none[:, :3], draws, none)
    views = skeleton.put(_views())
    seen = torch.einsum("vab,pbj->avpj", views, bank).reshape(3, -1, 21)
    flat = torch.complex(seen[0], seen[1])  # (N, 21)
    weight = problem.weights / problem.weights.sum(1, keepdim=True)
    rays = torch.complex(*problem.rays.unbind(1))
    middle = (weight * rays).sum(1, keepdim=True)
    cross = (weight * (rays - middle)) @ flat.conj().T  # (B, N), the bank's own middle drops out
    mean = weight.to(flat.dtype) @ flat.T
    power = weight @ flat.abs().square().T - mean.abs().square()
    score = cross.abs().square() / power  # explained square; the rest is error
    hand, found = torch.arange(len(rays), device=rays.device), []
    for _ in range(starts):
        best = score.argmax(1)
        factor = cross[hand, best] / power[hand, best]  # scale and turn in the picture
        centre = middle[:, 0] - factor * mean[hand, best]
        view, angles = views[best // poses], draws[best % poses]
        zero, x, y = torch.zeros_like(centre.real), centre.real, centre.imag
        turn = axis_angle_to_matrix(torch.stack([zero, zero, factor.angle()], 1))
        ray = torch.stack([x, y, zero + 1], 1)
        wrist = ray / factor.abs().clamp_min(1e-6)[:, None]
        tilt = torch.stack([-y, x, zero], 1) / ray.norm(dim=1, keepdim=True)
        turn = axis_angle_to_matrix(tilt) @ turn @ view  # seen along the hand's own ray
        found.append(State(turn, wrist, angles, angles.new_zeros(len(angles), 10)))
        near = (view[:, 2] @ views[:, 2].T) > 0.7  # (B, views)
        score = score.masked_fill(near.repeat_interleave(poses, 1), -1.0)
    return State(*map(torch.cat, zip(*found, strict=True)))


def evaluate(problem: Problem, state: State) -> Terms:
    """Robust reprojection error, priors on pose and shape, and the pull along a track."""
    skeleton, prior = problem.skeleton, problem.joints
    joints, moves = skeleton.place(*state)
    z, sigma = joints[:, 2:], problem.sigma[:, None, None]
    behind = 1e4 * (z < 0.02).sum((1, 2))
    z = z.clamp_min(1e-3)
    flat = joints[:, :2] / z
    error = (flat - problem.rays) / sigma  # (B, 2, 21)
    square = error.square().sum(1) / 9.0
    data = 9.0 * problem.weights * torch.log1p(square)  # Cauchy, quadratic below three sigma
    if prior is not None:
        own, trust = (flat - prior.rays) / sigma, prior.weight[:, None, None]
        off = (joints - joints[..., :1] - prior.places) / prior.spread
        data = data + (trust * own.square()).sum(1) + off.square().sum(1)
    away = torch.cat([state.angles - skeleton.prior_mean, state.betas], 1)
    back = away @ problem.precision
    cost, pose = data.sum(1) + (away * back).sum(1) + behind, (away * back)[:, :27].sum(1)
    if problem.near is not None:
        apart = _apart(state, problem.near)
        cost = cost + (problem.pull * apart * apart).sum(1)
    weight = (problem.weights / (1 + square))[:, None]  # the robust weight of each joint
    right = weight * error
    if prior is not None:
        weight, right = weight + trust, right + trust * own
    both = (moves[:, :, :2] - flat[:, None] * moves[:, :, 2:]) / (z * sigma)[:, None]
    matrix = (both * weight[:, None]).flatten(2) @ both.flatten(2).mT
    gradient = (both.flatten(2) @ right.flatten(1)[..., None])[..., 0]
    matrix[:, ANGLES.start :, ANGLES.start :] += problem.precision
    gradient[:, ANGLES.start :] += back
    if problem.near is not None:
        matrix.diagonal(dim1=1, dim2=2).add_(problem.pull)
        gradient += problem.pull * apart
    if prior is not None:
        about = (moves - moves[..., :1]).flatten(2) / prior.spread  # (B, 43, 63)
        matrix += about @ about.mT
        gradient += (about @ off.flatten(1)[..., None])[..., 0]
    return Terms(joints, cost, pose, gradient, matrix)


def _apart(state: State, near: State) -> Tensor:
    """What leads from one state to another, (B, 43)."""
    turn = _turn(state.rotation @ near.rotation.mT)
    rest = (one - other for one, other in zip(state[1:], near[1:], strict=True))
    return torch.cat([turn, *rest], 1)


def _turn(rotation: Tensor) -> Tensor:
    """Axis-angle (B, 3) of rotations (B, 3, 3) that are no half turns; a tenth of SciPy's time."""
    axis = (rotation - rotation.mT).flatten(1)[:, [7, 2, 3]] / 2
    sine = axis.norm(dim=1, keepdim=True)
    cosine = (rotation.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) - 1) / 2
    return axis * torch.atan2(sine, cosine) / sine.clamp_min(1e-9)


def minimise(problem: Problem, state: State, rounds: int, history: list | None = None):
    """Levenberg-Marquardt; angles at a limit that push outwards are held for the step.

    returns the state and its ``Terms``; ``history`` gets the state after every round.
    """
    low, high = problem.skeleton.low, problem.skeleton.high
    damping = state.wrist.new_full((len(state.wrist), 1), 1e-2)
    terms = evaluate(problem, state)
    for _ in range(rounds):
        held = torch.zeros_like(terms.gradient, dtype=torch.bool)
        out = terms.gradient[:, ANGLES]
        held[:, ANGLES] = ((state.angles <= low) & (out > 0)) | ((state.angles >= high) & (out < 0))
        held[:, SHAPE] = problem.fixed_shape
        free = (~held).to(terms.gradient.dtype)
        system = terms.matrix * free[:, :, None] * free[:, None]
        diagonal = system.diagonal(dim1=1, dim2=2)
        diagonal += damping * diagonal + 1e-6 + held
        factor, _ = torch.linalg.cholesky_ex(system)
        move = torch.cholesky_solve((-terms.gradient * free)[..., None], factor)[..., 0]
        move = move.nan_to_num(0, 0, 0).clamp(-1, 1)
        if history is None and -(terms.gradient * move).sum(1).min() < _DONE:
            break
        trial = State(
            axis_angle_to_matrix(move[:, TURN]) @ state.rotation,
            state.wrist + move[:, WRIST],
            (state.angles + move[:, ANGLES]).clamp(low, high),
            (state.betas + move[:, SHAPE]).clamp(-4, 4),
        )
        tried = evaluate(problem, trial)
        better = tried.cost < terms.cost
        damping = torch.where(better[:, None], damping * 0.2, damping * 8).clamp(1e-6, 1e4)
        state, terms = (
            type(old)(*(torch.where(better.view(-1, *[1] * (one.ndim - 1)), one, other)
                        for one, other in zip(new, old, strict=True)))
            for new, old in ((trial, state), (tried, terms))
        )  # fmt: skip
        if history is not None:
            history.append(state)
    return state, terms


def smooth_track(problem: Problem, state: State, terms: Terms, smoothness: float) -> State:
    """One shape for all frames, then rounds that pull each frame towards its neighbours."""
    trust = 1 / (terms.cost + 1)
    shared = (trust[:, None] * state.betas).sum(0) / trust.sum()
    state = state._replace(betas=shared.expand_as(state.betas).clone())
    problem = problem._replace(fixed_shape=True)
    state, _ = minimise(problem, state, 6)
    pull = state.wrist.new_zeros(43)
    pull[TURN] = pull[ANGLES] = smoothness / _TURN_SPREAD**2
    pull[WRIST] = smoothness / _WRIST_SPREAD**2
    for _ in range(4 if smoothness > 0 else 0):
        problem = problem._replace(near=_between(state), pull=pull)
        state, _ = minimise(problem, state, 4)
    return state


def _between(state: State) -> State:
    """Half way between the frames before and after; the ends have one of them."""
    last = len(state.wrist) - 1
    frames = torch.arange(last + 1, device=state.wrist.device)
    before = state.rows((frames - 1).abs())
    after = state.rows(last - (last - frames - 1).abs())
    turn = _turn(after.rotation @ before.rotation.mT) / 2
    means = [(one + other) / 2 for one, other in zip(before[1:], after[1:], strict=True)]
    return State(axis_angle_to_matrix(turn) @ before.rotation, *means)


def _smoothest(cost: Tensor, rotations: Tensor) -> Tensor:
    """Which of K fits of each of T frames, (T,): least cost plus turning (Viterbi 1967).

    cost: (K, T).   rotations: (K, T, 3, 3). A turn of t radians costs (t / 0.15)^2, at most 100.
    """
    best, came = cost[:, 0].clone(), []
    for t in range(1, cost.shape[1]):
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
