"""What an accelerator's minutes leave must come home whole."""

import pytest
from benchmarks.gpu_training import cut_into_pieces, join_pieces, leg_config, main

from hand_lib.files import read_json, write_text
from hand_lib.training.config import make_config


def a_run(folder, weights: bytes, step: int):
    folder.mkdir(exist_ok=True)
    write_text(folder / "config.json", make_config("quick").to_json())
    write_text(folder / "metrics.json", f'{{"step": {step}}}')
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_pieces_are_small_and_the_newest_whole_set_is_joined(tmp_path, capsys):
    old, new = (
        a_run(tmp_path / name, bytes([n]) * 30_000, n) for n, name in enumerate(("old", "new"))
    )
    out = tmp_path / "out"
    cut_into_pieces(new, out, "b", limit=100)  # more pieces than the next set of that name has
    cut_into_pieces(old, out, "a", limit=9000)
    paths = cut_into_pieces(new, out, "b", limit=9000)
    assert len(paths) == len(list(out.glob("b.[0-9]*"))) > 3
    assert all(path.stat().st_size <= 9000 for path in out.iterdir())
    assert read_json(out / "b.json")["step"] == 1
    joined = join_pieces(out, tmp_path / "joined")
    for path in new.iterdir():
        assert (joined / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(FileExistsError, match="choose another folder"):
        join_pieces(out, joined)
    paths[1].write_bytes(paths[1].read_bytes()[:-1] + b"x")  # the set before is whole
    assert (join_pieces(out, tmp_path / "before") / "model.safetensors").read_bytes()[0] == 0
    (out / "a.00").unlink()
    assert main([str(out), "--join", str(tmp_path / "none")]) == 2
    assert "no whole set of pieces: b.json tells" in capsys.readouterr().err


def test_a_leg_keeps_the_encoders_stages_at_another_view_size(tmp_path):
    a_run(tmp_path, b"", 7)
    write_text(tmp_path / "config.json", make_config("small", frozen=("conv_stem",)).to_json())
    config = leg_config(tmp_path, 224, batch_size=8)
    assert (config.view_size, config.image_size, config.encoder_stride) == (224, 224, 16)
    assert config.frozen == () and config.start_from == str(tmp_path) and not config.pretrained
