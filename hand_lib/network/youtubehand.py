"""Youtubehand's published checkpoints: into a network, and into a run folder.

python -m hand_lib.network.youtubehand state_dict.bin --transform template/transform.pkl \\
    --mano MANO_RIGHT.pkl --folder runs/yth
"""

import argparse
import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from hand_lib import __version__
from hand_lib.files import find_run, write_json, written_atomically
from hand_lib.hand.joints import convert_joints, fingertip_vertices
from hand_lib.hand.model import HandModel
from hand_lib.mesh.hierarchy import load_hierarchy
from hand_lib.network.encoders import (
    CLASSIFIER,
    find_tensors,
    list_misfits,
    read_state_dict,
    without_prefix,
)
from hand_lib.network.model import build_network, regressor_of


def convert_checkpoint(checkpoint, transform, folder, mano=None) -> dict:
    """Make a run folder, as a training leaves it, of a published checkpoint.

    checkpoint: ``state_dict.bin``.   transform: HandMesh's ``transform.pkl`` of its meshes.
    folder: or name of the run, which must not be there yet.   mano: MANO_RIGHT.pkl, for the joints;
    None takes ``j_reg.npy``, which HandMesh keeps beside its transform.
    returns what it found: ``backbone``, ``channels``, ``spiral_length``, ``ignored`` names.
    """
    checkpoint, transform, folder = Path(checkpoint), Path(transform), find_run(folder)
    if (folder / "config.json").exists():
        raise FileExistsError(f"{folder} already holds a run; choose another folder")
    state = read_state_dict(checkpoint)
    hierarchy = load_hierarchy(transform)
    found = settings_of(state, checkpoint.name)
    config = found | {
        "preset": "youtubehand", "decoder": "youtubehand", "pretrained": False, "dilation": 1,
        "image_size": 224, "view_size": 0, "n_crops": 1, "epochs": 38,
        "factors": [round(factor) for factor in hierarchy.factors],
    }  # fmt: skip
    joints = Path(mano) if mano else transform.with_name("j_reg.npy")
    regressor = _regressor(joints, hierarchy.faces[0], mano)
    network = build_network(SimpleNamespace(**config), hierarchy, regressor)
    ignored = load_youtubehand_state_dict(network, state)
    folder.mkdir(parents=True, exist_ok=True)
    hierarchy.save(folder / "hierarchy.npz")
    with written_atomically(folder / "model.safetensors") as temporary:
        tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
        temporary.write_bytes(save(tensors))
    notes = {"made_by": f"hand_lib.network.youtubehand {__version__}", "ignored": ignored}
    for name, path in {"checkpoint": checkpoint, "transform": transform, "joints": joints}.items():
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        notes[name] = {"file": path.name, "sha256": digest}
    write_json(folder / "provenance.json", notes)
    write_json(folder / "config.json", config)
    return found | {"ignored": ignored}


def settings_of(state: dict[str, Tensor], source: str = "checkpoint") -> dict:
    """Backbone, channels (fine to coarse) and spiral length of a checkpoint, from its shapes."""
    state = without_prefix(state, ["de_layers.0.weight"])
    channels = []
    while f"de_layers.{len(channels) + 1}.conv.layer.bias" in state:
        channels.insert(0, len(state[f"de_layers.{len(channels) + 1}.conv.layer.bias"]))
    last = state.get(f"de_layers.{len(channels) + 1}.layer.weight")
    if not channels or last is None:
        raise ValueError(
            f"{source} is no checkpoint of Youtubehand: there is no de_layers.1.conv.layer.bias "
            f"in it; it holds {', '.join(list(state)[:4])}, ..."
        )
    names = {name.split(".", 1)[-1] for name in state if name.startswith(("backbone", "en_layer"))}
    backbone = "resnet50" if "layer1.0.conv3.weight" in names else "resnet18"
    if any(name.startswith("stage4.") for name in names):
        backbone = "hrnet_w64"
    length = last.shape[1] // channels[0]
    return {"backbone": backbone, "channels": channels, "spiral_length": length}


def _regressor(path: Path, faces, mano) -> np.ndarray:
    """(21, V) from vertices to joints, with the fingertips that Youtubehand trained on.

    path: MANO's file where ``mano`` is true, else ``j_reg.npy``.   faces: (F, 3) of the transform.
    """
    if mano:
        hand = HandModel.from_mano(path, fingertips="metro")
        one, other = (np.unique(np.sort(f, axis=1), axis=0) for f in (faces, hand.faces.numpy()))
        if not np.array_equal(one, other):
            raise ValueError(f"{path} and the transform have other triangles: not of one hand")
        return regressor_of(hand)
    if not path.is_file():
        raise FileNotFoundError(
            "which vertices make joints is not known: give --mano MANO_RIGHT.pkl, or copy "
            f"HandMesh's template/j_reg.npy to {path}"
        )
    joints = np.load(path, allow_pickle=False)
    if joints.shape != (21, 778):
        raise ValueError(f"{path} should be (21, 778), found {joints.shape}")
    joints[16:] = np.eye(778)[list(fingertip_vertices("metro"))]  # HandMesh has other fingertips
    return convert_joints(joints, "manopth_raw")


def load_youtubehand_state_dict(network: nn.Module, state_dict: dict) -> list[str]:
    """Copy a Youtubehand checkpoint into a ``decoder="youtubehand"`` network.

    state_dict: its names to tensors, maybe under ``model_state_dict``, with the encoder under
    ``backbone.``, ``en_layer.`` or both.
    returns the names of the file that have no place here (batch counters, a classifier that this
    encoder does not keep), so that nothing vanishes unsaid.
    raises ValueError listing what is missing, surplus or of the wrong shape; then nothing changes.
    """
    if not hasattr(network.decoder, "cam_pred_1"):
        raise TypeError(
            "Youtubehand checkpoints fit networks with decoder='youtubehand', "
            f"found {type(network.decoder).__name__}"
        )
    given = without_prefix(find_tensors(state_dict, "checkpoint"), ["de_layers.0.weight"])
    names, own = youtubehand_names(network), network.state_dict()
    first = {theirs: both[0] for both in names.values() for theirs in both}
    loaded, twice = {}, []
    for name in (name for name in given if name in first):
        if not torch.equal(loaded.setdefault(first[name], given[name]), given[name]):
            twice.append(f"{first[name]} and {name} should be the same tensor, and differ")
    ignored = [name for name in given if name not in first and name.endswith(CLASSIFIER)]
    surplus = [name for name in given if name not in first and name not in ignored]
    needed = {both[0]: own[ours] for ours, both in names.items()}
    if misfits := list_misfits(needed, loaded, surplus=surplus, twice=twice):
        raise ValueError(
            f"the checkpoint does not fit this network: {misfits}. Channels, "
            "encoder, spiral length and hierarchy must be those it was trained with"
        )
    loaded = {ours: loaded[both[0]] for ours, both in names.items() if both[0] in loaded}
    network.load_state_dict(loaded, strict=False)
    return ignored


def youtubehand_names(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Our name of each learnt tensor (and batch statistic) -> its names in a checkpoint.

    The fixed arrays (spirals, sampling matrices, regressor) are in no checkpoint of Youtubehand.
    """
    learnt, steps = dict(network.named_parameters()), len(network.decoder.blocks)
    theirs = {"encoder.net": ("backbone", "en_layer"), "decoder.latent": ("de_layers.0",)}
    theirs |= {f"decoder.blocks.{n}": (f"de_layers.{n + 1}",) for n in range(steps)}
    theirs |= {"decoder.last": (f"de_layers.{steps + 1}",)}
    theirs |= {f"decoder.cam_pred_{n}": (f"cam_pred_{n}",) for n in (1, 2, 3)}
    names = {}
    for ours in network.state_dict():
        room = next((room for room in theirs if ours.startswith(f"{room}.")), None)
        if room == "encoder.net" or (room and ours in learnt):
            names[ours] = tuple(other + ours.removeprefix(room) for other in theirs[room])
    return names


def main(arguments=None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hand_lib.network.youtubehand", description=convert_checkpoint.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("checkpoint", help="state_dict.bin")
    parser.add_argument("--transform", required=True, help="transform.pkl of HandMesh")
    parser.add_argument("--mano", help="MANO_RIGHT.pkl")
    parser.add_argument("--folder", required=True, help="the run folder to make")
    given = parser.parse_args(arguments)
    try:
        found = convert_checkpoint(given.checkpoint, given.transform, given.folder, given.mano)
    except (OSError, TypeError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    ignored = ", ".join(found.pop("ignored")) or "nothing"
    said = ", ".join(f"{name} {value}" for name, value in found.items())
    sys.stdout.write(f"{given.folder}: {said}; left out: {ignored}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
