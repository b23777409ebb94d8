"""A 3-D hand mesh from a single image: the module behind the notebooks.

Conventions, the same in every file:

Letters    B batch, V vertices (V0 finest level, V1, ... coarser), F faces, J joints, K spiral
           length, C channels, H W image height and width in pixels.
Units      metres and radians. Anything else shows in the name: ``_px``, ``_mm``, ``_deg``.
Camera     OpenCV axes: x right, y down, z away from the camera.
Pixels     the pixel in row r and column c has its centre at (x, y) = (c, r), so an image of width
           W spans x from -0.5 to W - 0.5.
Crop       in crop units the crop spans [-1, 1] in x and y: x = (2 x_px + 1) / size - 1.
Images     (H, W, 3) uint8, RGB; batches are (B, 3, H, W).
Joints     21 in the FreiHAND order (``joints.JOINT_NAMES``); a pose has 16, in MANO's order.
Root       vertices and joints of a network have the wrist (joint 0) at the origin.
Sides      the right hand is canonical. A left hand is mirrored at the door and back at the exit.
"""

from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parent.parent
"""Folder of the workbook: ``ROOT / "template"``, ``ROOT / "data"``, ``ROOT / "runs"``."""
