"""Error against pictures seen: how far runs have come, and how far their trend is from a target."""

import numpy as np

from hand_lib.training.lineage import run_ends, trend

_WORDS = {
    "vertices_mm": ("vertices", "mm"),
    "vertices_pa_mm": ("vertices PA", "mm"),
    "joints_2d_percent": ("2-D joints", "%"),
}
"""Score -> what to call it, unit."""


def learning_figure(curves: dict):
    """Error against pictures seen, both axes logarithmic, with the trend through the runs' ends.

    curves: name -> ``lineage.learning_curve``.   returns a Matplotlib figure of two panels.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    panels = (("vertices_mm", "wrists together"), ("vertices_pa_mm", "PA"))
    for axis, (score, words) in zip(axes, panels, strict=True):
        for number, (name, curve) in enumerate(curves.items()):
            rows = [row for row in curve if row["pictures"]]
            for run in sorted({row["run"] for row in rows}):
                part = [row for row in rows if row["run"] == run]
                pictures, errors = ([row[key] for row in part] for key in ("pictures", score))
                label = name if run == rows[0]["run"] else None
                axis.plot(pictures, errors, color=f"C{number}", label=label, linewidth=1.6)
            line = trend(curve, score)
            if line:
                pictures, errors = (
                    [row[key] for row in run_ends(curve)] for key in ("pictures", score)
                )
                reach = np.geomspace(pictures[0], 4 * pictures[-1], 50)
                axis.plot(reach, line.scale * reach**-line.exponent, "--", color="0.6")
                axis.plot(pictures, errors, "o", color=f"C{number}")
        axis.set(xscale="log", yscale="log", xlabel="pictures seen", title=words)
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, which="both")
    axes[0].set_ylabel("validation error, mm")
    axes[0].legend(frameon=False)
    plt.close(figure)
    return figure


def learning_words(curves: dict, targets: dict) -> str:
    """How far each run has come, and how many pictures its trend would need for the targets.

    curves: as ``learning_figure`` takes them.   targets: score of ``lineage.SCORES`` -> value.
    """
    lines = []
    for name, curve in curves.items():
        if not curve:
            lines.append(f"{name}: no log.csv, so nothing is known of its training")
            continue
        last = curve[-1]
        lines.append(
            f"{name}: {last['pictures']:,} pictures in {last['minutes']:.0f} minutes, "
            f"{last['run'] + 1} run(s); validation vertices {last['vertices_mm']:.1f} mm, "
            f"PA {last['vertices_pa_mm']:.1f} mm, 2-D joints {last['joints_2d_percent']:.1f} %"
        )
        for score, target in targets.items():
            line = trend(curve, score)
            if line:
                what, unit = _WORDS[score]
                lines.append(
                    f"  {what}: error falls as pictures^-{line.exponent:.2f}; {target:g} {unit} "
                    f"would take {line.pictures_for(target) / 1e6:,.0f} million"
                )
    return "\n".join(lines)
