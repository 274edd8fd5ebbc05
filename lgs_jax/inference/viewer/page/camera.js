/**
 * Where the picture is taken from: a place, three angles about the scene's up, and how far ahead
 * the point lies around which one turns. Axes of cameras are x right, y down, z forward.
 */
class View {
  /** `up` is a unit vector, `camera` an entry of a camera set. */
  constructor(up, camera) {
    const aside = Math.abs(up[2]) < 0.9 ? [0, 0, 1] : [1, 0, 0];
    const forward = unit(add(aside, up, -dot(aside, up)));
    const down = up.map((value) => -value);
    this.level = fromColumns(cross(down, forward), down, forward);
    this.distance = 1;
    this.goTo(camera);
  }

  /** Takes the place, direction and lens of a camera; the turning point is left at its distance. */
  goTo(camera) {
    const { pose } = camera;
    this.position = [pose[3], pose[7], pose[11]];
    this.lens = { ...camera };
    this.orient([pose[0], pose[1], pose[2], pose[4], pose[5], pose[6], pose[8], pose[9], pose[10]]);
  }

  /** Reads the angles off a rotation world from camera. */
  orient(rotation) {
    const local = multiply(transpose(this.level), rotation);
    const [right, down, forward] = [0, 1, 2].map((i) => column(local, i));
    this.pitch = Math.asin(clamp(-forward[1], -1, 1));
    // Straight up or down, the image's rows tell the yaw.
    const ahead = Math.hypot(forward[0], forward[2]) > 1e-4;
    const flat = ahead ? forward : down.map((value) => value * Math.sign(this.pitch));
    this.yaw = Math.atan2(flat[0], flat[2]);
    const unrolled = multiply(turn(1, this.yaw), turn(0, this.pitch));
    this.roll = Math.atan2(dot(right, column(unrolled, 1)), dot(right, column(unrolled, 0)));
  }

  /** The rotation world from camera. */
  get rotation() {
    const turned = multiply(turn(1, this.yaw), multiply(turn(0, this.pitch), turn(2, this.roll)));
    return multiply(this.level, turned);
  }

  get pivot() {
    return add(this.position, column(this.rotation, 2), this.distance);
  }

  /** Turns around the pivot by angles to the right and up, which also straightens the horizon. */
  orbit(yaw, pitch) {
    const { pivot } = this;
    this.look(yaw, pitch);
    this.position = add(pivot, column(this.rotation, 2), -this.distance);
  }

  /** Turns the camera on the spot. */
  look(yaw, pitch) {
    const limit = Math.max(1.5, Math.abs(this.pitch)); // never over the top
    this.yaw = wrapAngle(this.yaw + yaw);
    this.pitch = clamp(this.pitch + pitch, -limit, limit);
    this.roll *= Math.exp(-3 * Math.hypot(yaw, pitch));
  }

  /** Moves along the camera's axes; the pivot comes along. */
  move(right, down, forward) {
    this.position = add(this.position, apply(this.rotation, [right, down, forward]));
  }

  /** Comes closer to the pivot (factor < 1) or goes away from it. */
  zoom(factor) {
    const { pivot } = this;
    this.distance *= factor;
    this.position = add(pivot, column(this.rotation, 2), -this.distance);
  }

  /** Camera from world and the lens for a canvas: the camera's image as large as fits, centred. */
  project(width, height) {
    const rotation = transpose(this.rotation);
    const shift = apply(rotation, this.position).map((value) => -value);
    const scale = fit(this.lens, width, height);
    return { rotation, shift, lens: placeLens(this.lens, width, height, scale), scale };
  }

  /** A function of a share t in [0, 1] that moves from here to a camera, on a canvas of a size. */
  wayTo(camera, width, height) {
    const [from, start] = [this.rotation, this.position];
    const { pose } = camera;
    const to = [0, 1, 2].flatMap((i) => pose.slice(4 * i, 4 * i + 3));
    const end = [pose[3], pose[7], pose[11]];
    // The present lens for an image of the other camera's size, without a change of the picture.
    const factor = fit(this.lens, width, height) / fit(camera, width, height);
    const lens = placeLens(this.lens, camera.width, camera.height, factor);
    return (t) => {
      if (t >= 1) return this.goTo(camera);
      this.position = start.map((value, i) => mix(value, end[i], t));
      this.orient(interpolateRotation(from, to, t));
      const intrinsics = lens.map((value, i) => mix(value, camera.intrinsics[i], t));
      this.lens = { width: camera.width, height: camera.height, intrinsics };
    };
  }
}

/** By how much the image of a lens grows to fill a canvas without leaving it. */
const fit = (lens, width, height) => Math.min(width / lens.width, height / lens.height);

/** fx, fy, cx, cy of a lens whose image is grown and put in the middle of a canvas. */
function placeLens(lens, width, height, scale) {
  const [fx, fy, cx, cy] = lens.intrinsics;
  return [
    fx * scale,
    fy * scale,
    width / 2 + (cx - lens.width / 2) * scale,
    height / 2 + (cy - lens.height / 2) * scale,
  ];
}

/**
 * How far ahead of a view the scene lies at a place of the picture (pixels of a canvas), or null.
 *
 * Of the splats that are not faint and lie within 3 % of the picture's width: the depth that a
 * quarter of them does not reach, so that it is the near side of what is there.
 */
function depthAt(scene, projected, x, y, width) {
  const faint = 0x2e66; // 0.1 as a half float; these are ordered as their bits are
  const depths = [];
  const [fx, fy, cx, cy] = projected.lens;
  const m = projected.rotation;
  const reach = (0.03 * width) ** 2;
  for (let i = 0; i < scene.count; i++) {
    if (scene.colors[4 * i + 3] < faint) continue;
    const p = [scene.means[3 * i], scene.means[3 * i + 1], scene.means[3 * i + 2]];
    const z = m[6] * p[0] + m[7] * p[1] + m[8] * p[2] + projected.shift[2];
    if (z <= 0) continue;
    const u = (fx * (m[0] * p[0] + m[1] * p[1] + m[2] * p[2] + projected.shift[0])) / z + cx;
    const v = (fy * (m[3] * p[0] + m[4] * p[1] + m[5] * p[2] + projected.shift[1])) / z + cy;
    if ((u - x) ** 2 + (v - y) ** 2 < reach) depths.push(z);
  }
  if (!depths.length) return null;
  return Float64Array.from(depths).sort()[Math.floor(depths.length / 4)];
}

/**
 * A turntable around the pivot of a view: a function of seconds that moves it.
 *
 * Cameras that leave no gap of half a turn around the pivot make it go all the way round; else it
 * sways over the arc that they cover, at least `leastHalfAngle`, and so stays where the scene was
 * seen. It starts where the view is.
 */
function turntable(view, cameras) {
  const [turnSeconds, swaySeconds, leastHalfAngle] = [24, 10, 0.25];
  const pivot = view.pivot;
  const start = { yaw: view.yaw, pitch: view.pitch };
  const offsets = cameras.map(({ pose }) =>
    apply(transpose(view.level), add(pivot, [pose[3], pose[7], pose[11]], -1)),
  );
  // The yaws of cameras that look at the pivot, relative to the view's.
  const angles = offsets.map((o) => wrapAngle(Math.atan2(o[0], o[2]) - start.yaw)).sort((a, b) => a - b);
  const gaps = angles.map((angle, i) =>
    i + 1 < angles.length ? angles[i + 1] - angle : angles[0] + 2 * Math.PI - angle,
  );
  const widest = gaps.indexOf(Math.max(...gaps));
  const covered = 2 * Math.PI - gaps[widest];
  const half = Math.max(covered / 2, leastHalfAngle);
  const middle = wrapAngle(angles[(widest + 1) % angles.length] + covered / 2);
  const phase = Math.asin(clamp(-middle / half, -1, 1));
  return (seconds) => {
    let yaw = (2 * Math.PI * seconds) / turnSeconds;
    if (covered <= Math.PI) {
      const now = phase + (2 * Math.PI * seconds) / swaySeconds;
      yaw = half * (Math.sin(now) - Math.sin(phase));
      view.pitch = start.pitch + 0.15 * half * (Math.cos(now) - Math.cos(phase));
    }
    view.yaw = wrapAngle(start.yaw + yaw);
    view.position = add(pivot, column(view.rotation, 2), -view.distance);
  };
}

/** Line segments that show a camera: the edges of its pyramid and a mark at the image's top. */
function frustum(camera, length) {
  const { pose, width, height } = camera;
  const [fx, fy, cx, cy] = camera.intrinsics;
  const rotation = [0, 1, 2].flatMap((i) => pose.slice(4 * i, 4 * i + 3));
  const center = [pose[3], pose[7], pose[11]];
  const at = (u, v) =>
    add(center, apply(rotation, [(u - cx) / fx, (v - cy) / fy, 1]), length);
  const corners = [at(0, 0), at(width, 0), at(width, height), at(0, height)];
  const top = [at(0.4 * width, 0), at(0.5 * width, -0.12 * height), at(0.6 * width, 0)];
  const segments = corners.flatMap((corner, i) => [center, corner, corner, corners[(i + 1) % 4]]);
  return [...segments, top[0], top[1], top[1], top[2]].flat();
}
