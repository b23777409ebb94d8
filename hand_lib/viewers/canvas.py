"""A hand in a notebook that moves with a slider: an ipywidget that draws with WebGL.

A Plotly figure takes several times as long to redraw. Here a step sends the posed vertices and
joints, and the browser draws them at once. Drag turns the hand, the wheel brings it closer, a
double click puts it back.
"""

import functools

import anywidget
import numpy as np
import traitlets

from hand_lib.hand.joints import BONES, FINGER_COLOURS, FINGERS
from hand_lib.hand.refinement import refine_mesh
from hand_lib.hand.skin import detailed_skin, skin_colours, stored_faces

PARTS = 3
"""Every edge of the mesh is cut into so many for drawing."""

_SCRIPT = """
const VERTEX = `
attribute vec3 place, normal, colour;
uniform mat3 turn; uniform vec3 centre; uniform vec2 scale;
varying vec3 n, c;
void main() {
  vec3 p = turn * (place - centre);
  gl_Position = vec4(p.x * scale.x, -p.y * scale.y, 2.0 * p.z, 1.0);
  n = turn * normal; c = colour;
}`;
const PIXEL = `
precision mediump float;
varying vec3 n, c;
void main() {
  vec3 m = normalize(gl_FrontFacing ? n : -n);
  float lit = max(dot(m, vec3(-0.42, -0.62, -0.66)), 0.0);
  float shine = max(dot(m, vec3(-0.23, -0.34, -0.91)), 0.0);  // half way to the eye
  shine *= shine; shine *= shine; shine *= shine; shine *= shine;
  float level = (0.30 - 0.12 * m.y + 0.72 * lit) * (gl_FrontFacing ? 1.0 : 0.45);
  gl_FragColor = vec4(sqrt(c * c * level + 0.05 * shine), 1.0);
}`;

const numbers = (view, Kind) =>
  new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

function normalsOf(points, faces) {
  const sum = new Float32Array(points.length);
  for (let f = 0; f < faces.length; f += 3) {
    const a = 3 * faces[f], b = 3 * faces[f + 1], c = 3 * faces[f + 2];
    const ux = points[b] - points[a], uy = points[b + 1] - points[a + 1];
    const uz = points[b + 2] - points[a + 2], vx = points[c] - points[a];
    const vy = points[c + 1] - points[a + 1], vz = points[c + 2] - points[a + 2];
    const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
    sum[a] += x; sum[a + 1] += y; sum[a + 2] += z;
    sum[b] += x; sum[b + 1] += y; sum[b + 2] += z;
    sum[c] += x; sum[c + 1] += y; sum[c + 2] += z;
  }
  for (let k = 0; k < sum.length; k += 3) {
    const size = Math.hypot(sum[k], sum[k + 1], sum[k + 2]) || 1;
    sum[k] /= size; sum[k + 1] /= size; sum[k + 2] /= size;
  }
  return sum;
}

// Phong tessellation, as refinement.Refinement.vertices; and the normals in between
function refined(points, normals, corners, weights) {
  const fine = new Float32Array(corners.length), slopes = new Float32Array(corners.length);
  const flat = [0, 0, 0], move = [0, 0, 0];
  for (let i = 0; i < corners.length; i += 3) {
    for (let a = 0; a < 3; a++) {
      flat[a] = move[a] = 0;
      for (let k = i; k < i + 3; k++) flat[a] += weights[k] * points[3 * corners[k] + a];
    }
    for (let k = i; k < i + 3; k++) {
      const at = 3 * corners[k];
      let height = 0;
      for (let a = 0; a < 3; a++) height += (flat[a] - points[at + a]) * normals[at + a];
      for (let a = 0; a < 3; a++) {
        const share = weights[k] * normals[at + a];
        move[a] += height * share;
        slopes[i + a] += share;
      }
    }
    for (let a = 0; a < 3; a++) fine[i + a] = flat[a] - 0.7 * move[a];
  }
  return [fine, slopes];
}

function render({ model, el }) {
  const height = model.get("height"), width = Math.round(0.86 * height);
  const box = document.createElement("div");
  box.className = "hand-canvas";
  box.style.cssText =
    `position:relative;width:${width}px;height:${height}px;touch-action:none;cursor:grab`;
  el.append(box);
  const [solid, lines] = [0, 1].map(() => {
    const canvas = document.createElement("canvas");
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    canvas.width = width * ratio; canvas.height = height * ratio;
    canvas.style.cssText = `position:absolute;inset:0;width:${width}px;height:${height}px`;
    box.append(canvas);
    return canvas;
  });
  // smooth edges only where a graphics card draws: without one they take most of the time
  const probe = document.createElement("canvas").getContext("webgl");
  const about = probe && probe.getExtension("WEBGL_debug_renderer_info");
  const maker = about ? probe.getParameter(about.UNMASKED_RENDERER_WEBGL) : "";
  const antialias = !/swiftshader|llvmpipe|softpipe|software/i.test(maker);
  if (probe) probe.getExtension("WEBGL_lose_context")?.loseContext();
  const gl = solid.getContext("webgl", { antialias });
  if (!gl) { box.textContent = "This browser has no WebGL, which the hand needs."; return; }
  const pen = lines.getContext("2d");
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, PIXEL]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text); gl.compileShader(shader); gl.attachShader(program, shader);
  }
  gl.linkProgram(program); gl.useProgram(program); gl.enable(gl.DEPTH_TEST);
  const at = (name) => gl.getUniformLocation(program, name);
  const buffers = {};
  const upload = (name, data, kind) => {
    const fresh = !buffers[name], place = gl.getAttribLocation(program, name);
    buffers[name] = buffers[name] || gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
    if (fresh) {
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, 3, kind, kind === gl.UNSIGNED_BYTE, 0, 0);
    }
  };
  const faces = numbers(model.get("faces"), Uint16Array);
  const coarse = numbers(model.get("coarse_faces"), Uint16Array);
  const corners = numbers(model.get("corners"), Uint16Array);
  const weights = numbers(model.get("weights"), Float32Array);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
  const centre = model.get("centre"), extent = model.get("extent");
  let yaw = 0, pitch = 0, zoom = 1, waiting = false, drawn = 0, joints = [];

  const move = () => {
    const all = numbers(model.get("frame"), Float32Array);
    const posed = all.subarray(0, all.length - 63);
    const [points, slopes] = refined(posed, normalsOf(posed, coarse), corners, weights);
    joints = all.subarray(all.length - 63);
    upload("place", points, gl.FLOAT);
    upload("normal", slopes, gl.FLOAT);
  };
  const paint = () => upload("colour", numbers(model.get("colours"), Uint8Array), gl.UNSIGNED_BYTE);

  function draw() {
    waiting = false;
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    const rows = [[cy, 0, sy], [sp * sy, cp, -sp * cy], [-cp * sy, sp, cp * cy]];
    const size = zoom * height / extent;  // pixels of the page per metre
    gl.viewport(0, 0, solid.width, solid.height);
    gl.clearColor(1, 1, 1, 1); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix3fv(at("turn"), false, [0, 1, 2].flatMap((k) => rows.map((r) => r[k])));
    gl.uniform3fv(at("centre"), centre);
    gl.uniform2f(at("scale"), 2 * size / width, 2 * size / height);
    gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_SHORT, 0);
    const ratio = lines.width / width;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (model.get("skeleton")) {
      const spot = (j) => {
        const p = [0, 1, 2].map((k) => joints[3 * j + k] - centre[k]);
        const [x, y] = rows.map((r) => r[0] * p[0] + r[1] * p[1] + r[2] * p[2]);
        return [width / 2 + size * x, height / 2 + size * y];
      };
      for (const [one, other, colour] of model.get("bones")) {
        pen.beginPath(); pen.moveTo(...spot(one)); pen.lineTo(...spot(other));
        pen.lineWidth = 3; pen.strokeStyle = colour; pen.stroke();
        pen.beginPath(); pen.arc(...spot(other), 4.5, 0, 7);
        pen.fillStyle = colour; pen.fill();
        pen.lineWidth = 1; pen.strokeStyle = "white"; pen.stroke();
      }
    }
    box.dataset.drawn = ++drawn;
  }
  const redraw = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };
  const onFrame = () => { move(); redraw(); }, onColours = () => { paint(); redraw(); };
  model.on("change:frame", onFrame);
  model.on("change:colours", onColours);
  model.on("change:skeleton", redraw);
  box.addEventListener("pointerdown", (event) => box.setPointerCapture(event.pointerId));
  box.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    yaw -= 0.01 * event.movementX;
    pitch = Math.max(-1.5, Math.min(1.5, pitch + 0.01 * event.movementY));
    redraw();
  });
  box.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom = Math.max(0.5, Math.min(6, zoom * Math.exp(-0.001 * event.deltaY)));
    redraw();
  }, { passive: false });
  box.addEventListener("dblclick", () => { yaw = pitch = 0; zoom = 1; redraw(); });
  move(); paint(); redraw();
  return () => {
    model.off("change:frame", onFrame);
    model.off("change:colours", onColours);
    model.off("change:skeleton", redraw);
  };
}
export default { render };
"""


class HandCanvas(anywidget.AnyWidget):
    """Shows one hand, camera axes, and changes it in place.

    >>> canvas = HandCanvas(faces)
    >>> canvas.show(vertices, joints, colours)
    """

    _esm = _SCRIPT
    frame = traitlets.Bytes().tag(sync=True)  # float32 metres: (V, 3), then 21 joints
    colours = traitlets.Bytes().tag(sync=True)  # uint8 (N, 3) of the fine mesh
    faces = traitlets.Bytes().tag(sync=True)  # uint16, fine
    coarse_faces = traitlets.Bytes().tag(sync=True)  # uint16 (F, 3)
    corners = traitlets.Bytes().tag(sync=True)  # uint16 (N, 3), as in Refinement
    weights = traitlets.Bytes().tag(sync=True)  # float32 (N, 3)
    skeleton = traitlets.Bool(True).tag(sync=True)
    bones = traitlets.List().tag(sync=True)  # joint, joint, colour
    height = traitlets.Int(500).tag(sync=True)  # pixels
    centre = traitlets.List([0.0, -0.09, 0.0]).tag(sync=True)  # metres, in the middle of the view
    extent = traitlets.Float(0.26).tag(sync=True)  # metres from the upper to the lower edge

    def __init__(self, faces, **traits):
        """faces: (F, 3) of the mesh that ``show`` will be given."""
        self.fine = refine_mesh(faces, PARTS)
        if len(self.fine.corners) > 2**16:
            raise ValueError(f"{len(faces)} faces are too many to draw; expected a hand's 1538")
        finger = {joint: name for name, chain in FINGERS.items() for joint in chain}
        bones = [[int(a), int(b), FINGER_COLOURS[finger[int(b)]]] for a, b in BONES]
        super().__init__(
            faces=self.fine.faces.astype(np.uint16).tobytes(),
            coarse_faces=self.fine.coarse_faces.astype(np.uint16).tobytes(),
            corners=self.fine.corners.astype(np.uint16).tobytes(),
            weights=self.fine.weights.astype(np.float32).tobytes(),
            bones=bones, **traits,
        )  # fmt: skip

    def show(self, vertices, joints, colours=None) -> None:
        """Draw the hand.

        vertices: (V, 3) and joints: (21, 3) metres, camera axes.   colours: (V, 3) or (N, 3) of the
        fine mesh, 0 to 255; None leaves them.
        """
        with self.hold_sync():
            if colours is not None:
                colours = np.asarray(colours)
                if len(colours) != len(self.fine.corners):
                    colours = self.fine.interpolate(colours)
                self.colours = np.round(colours).astype(np.uint8).tobytes()
            parts = np.asarray(vertices, np.float32), np.asarray(joints, np.float32)
            self.frame = b"".join(part.tobytes() for part in parts)


@functools.lru_cache(maxsize=32)
def fine_skin(tone: float) -> np.ndarray:
    """Colours (N, 3) uint8 of the built-in hand's skin on ``HandCanvas``'s fine mesh."""
    _, points, masks = detailed_skin(PARTS)
    return skin_colours(tone, masks=masks, points=points)


def has_builtin_skin(faces) -> bool:
    """Whether faces (F, 3) are the built-in hand's, right or left, so that its nails fit."""
    faces, own = np.sort(faces, axis=1), np.sort(stored_faces(), axis=1)
    return faces.shape == own.shape and bool((faces == own).all())
