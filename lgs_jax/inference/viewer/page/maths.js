// Vectors are [x, y, z]; matrices are 9 numbers, row after row.

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const add = (a, b, factor = 1) => a.map((value, i) => value + factor * b[i]);
const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];
const unit = (a) => a.map((value) => value / Math.hypot(...a));
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const mix = (a, b, t) => a + t * (b - a);
const wrapAngle = (angle) => angle - 2 * Math.PI * Math.round(angle / (2 * Math.PI));

const row = (m, i) => m.slice(3 * i, 3 * i + 3);
const column = (m, i) => [m[i], m[3 + i], m[6 + i]];
const fromColumns = (a, b, c) => [0, 1, 2].flatMap((i) => [a[i], b[i], c[i]]);
const transpose = (m) => fromColumns(row(m, 0), row(m, 1), row(m, 2));
const apply = (m, v) => [0, 1, 2].map((i) => dot(row(m, i), v));
const multiply = (a, b) =>
  fromColumns(apply(a, column(b, 0)), apply(a, column(b, 1)), apply(a, column(b, 2)));

/** Rotation by an angle around one of the axes 0, 1, 2. */
function turn(axis, angle) {
  const m = [0, 0, 0, 0, 0, 0, 0, 0, 0];
  const [i, j] = [(axis + 1) % 3, (axis + 2) % 3];
  m[4 * axis] = 1;
  m[4 * i] = m[4 * j] = Math.cos(angle);
  m[3 * i + j] = -Math.sin(angle);
  m[3 * j + i] = Math.sin(angle);
  return m;
}

/** A share t in [0, 1] of the way from rotation a to rotation b, around one axis. */
function interpolateRotation(a, b, t) {
  const between = multiply(transpose(a), b);
  const cosine = clamp((between[0] + between[4] + between[8] - 1) / 2, -1, 1);
  const angle = Math.acos(cosine);
  if (angle < 1e-6) return b;
  // The axis is a column of R + R^T + (1 - trace) I, which also holds at half a turn.
  const trace = 2 * cosine + 1;
  const symmetric = between.map(
    (value, i) => value + between[3 * (i % 3) + Math.floor(i / 3)] + (i % 4 ? 0 : 1 - trace),
  );
  const columns = [0, 1, 2].map((i) => column(symmetric, i));
  const axis = unit(columns.reduce((best, c) => (dot(c, c) > dot(best, best) ? c : best)));
  const handed = dot(axis, [
    between[7] - between[5],
    between[2] - between[6],
    between[3] - between[1],
  ]);
  return multiply(a, aroundAxis(axis, t * (handed < 0 ? -angle : angle)));
}

/** Rotation by an angle around a unit vector. */
function aroundAxis(axis, angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  const rotate = (v) => {
    const along = dot(axis, v) * (1 - c);
    const sideways = cross(axis, v);
    return v.map((value, i) => c * value + along * axis[i] + s * sideways[i]);
  };
  return fromColumns(rotate([1, 0, 0]), rotate([0, 1, 0]), rotate([0, 0, 1]));
}
