// The projection and the falloff are those of lgs_jax/rendering/splat/{projection,reference}.py.

const SPLAT_VERTEX = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp isampler2D;
precision highp usampler2D;

uniform sampler2D means;        // x, y, z
uniform isampler2D quats;       // w, x, y, z times 32767
uniform usampler2D logScales;   // in steps from the lowest
uniform sampler2D colors;       // red, green, blue, opacity
uniform vec2 scaleCode;         // lowest logarithm, step
uniform float splatScale;
uniform mat3 camFromWorld;
uniform vec3 shift;
uniform vec4 lens;              // fx, fy, cx, cy in pixels
uniform vec2 size;              // width, height
uniform float blur;             // variance in px^2
uniform float near;
uniform float frustumMargin;
uniform float minAlpha;
uniform float maxExtent;
uniform bool showDepth;
uniform float depthUnit;

in uint index;
out vec2 offset;                // from the centre, in standard deviations
flat out vec4 paint;

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);  // outside: nothing is drawn
  ivec2 at = ivec2(int(index) % ROW, int(index) / ROW);
  vec3 cam = camFromWorld * texelFetch(means, at, 0).xyz + shift;
  paint = texelFetch(colors, at, 0);
  if (cam.z <= near || paint.a < minAlpha) return;
  if (showDepth) paint.rgb = vec3(cam.z / depthUnit);

  vec2 slope = cam.xy / cam.z;
  vec2 centre = lens.xy * slope + lens.zw;
  vec2 margin = frustumMargin * 0.5 * size / lens.xy;
  slope = clamp(slope, -(lens.zw / lens.xy + margin), (size - lens.zw) / lens.xy + margin);
  mat3 rows = transpose(camFromWorld);
  vec3 towardX = lens.x / cam.z * (rows[0] - slope.x * rows[2]);
  vec3 towardY = lens.y / cam.z * (rows[1] - slope.y * rows[2]);

  vec4 q = normalize(vec4(texelFetch(quats, at, 0)));
  mat3 axes = mat3(
    1.0 - 2.0 * (q.z * q.z + q.w * q.w), 2.0 * (q.y * q.z + q.x * q.w), 2.0 * (q.y * q.w - q.x * q.z),
    2.0 * (q.y * q.z - q.x * q.w), 1.0 - 2.0 * (q.y * q.y + q.w * q.w), 2.0 * (q.z * q.w + q.x * q.y),
    2.0 * (q.y * q.w + q.x * q.z), 2.0 * (q.z * q.w - q.x * q.y), 1.0 - 2.0 * (q.y * q.y + q.z * q.z)
  );
  vec3 steps = vec3(texelFetch(logScales, at, 0).xyz);
  vec3 deviations = splatScale * exp(scaleCode.x + scaleCode.y * steps);
  vec3 alongX = deviations * (towardX * axes);
  vec3 alongY = deviations * (towardY * axes);
  float xx = dot(alongX, alongX) + blur;
  float xy = dot(alongX, alongY);
  float yy = dot(alongY, alongY) + blur;

  // Half axes of the ellipse. The determinant as a sum of positive terms does not cancel.
  vec3 area = cross(alongX, alongY);
  float det = dot(area, area) + blur * (xx + yy - blur);
  float longer = 0.5 * (xx + yy) + length(vec2(0.5 * (xx - yy), xy));
  float angle = 0.5 * atan(2.0 * xy, xx - yy);
  vec2 direction = xy == 0.0 && xx == yy ? vec2(1.0, 0.0) : vec2(cos(angle), sin(angle));
  float extent = min(maxExtent, sqrt(2.0 * log(paint.a / minAlpha)));
  offset = extent * (2.0 * vec2(gl_VertexID & 1, gl_VertexID >> 1) - 1.0);
  vec2 pixel = centre + offset.x * sqrt(longer) * direction
             + offset.y * sqrt(det / longer) * vec2(-direction.y, direction.x);
  gl_Position = vec4(2.0 * pixel.x / size.x - 1.0, 1.0 - 2.0 * pixel.y / size.y, 0.0, 1.0);
}`;

const SPLAT_FRAGMENT = `#version 300 es
precision highp float;
uniform float minAlpha;
uniform float maxAlpha;
in vec2 offset;
flat in vec4 paint;
out vec4 result;

void main() {
  float alpha = min(maxAlpha, paint.a * exp(-0.5 * dot(offset, offset)));
  if (alpha < minAlpha) discard;
  result = vec4(alpha * paint.rgb, alpha);
}`;

const COVER_VERTEX = `#version 300 es
void main() {
  gl_Position = vec4(4.0 * vec2(gl_VertexID & 1, gl_VertexID >> 1) - 1.0, 0.0, 1.0);
}`;

// Puts the background behind what has been blended, or turns depth into colours: near is light.
const FINISH_FRAGMENT = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D blended;
uniform vec3 background;
uniform bool showDepth;
uniform vec2 depthRange;
out vec4 result;

vec3 palette(float t) {
  vec3 colors[5] = vec3[5](vec3(0.07, 0.06, 0.19), vec3(0.36, 0.11, 0.43), vec3(0.76, 0.25, 0.37),
                           vec3(0.96, 0.57, 0.31), vec3(0.99, 0.93, 0.72));
  float x = clamp(t, 0.0, 1.0) * 4.0;
  int i = min(int(x), 3);
  return mix(colors[i], colors[i + 1], x - float(i));
}

void main() {
  vec4 sum = texelFetch(blended, ivec2(gl_FragCoord.xy), 0);
  vec3 rgb = sum.rgb + (1.0 - sum.a) * background;
  if (showDepth) {
    float depth = sum.r / max(sum.a, 1e-4);
    float t = (1.0 / depth - 1.0 / depthRange.y) / (1.0 / depthRange.x - 1.0 / depthRange.y);
    rgb = mix(background, palette(t), smoothstep(0.0, 0.5, sum.a));
  }
  result = vec4(rgb, 1.0);
}`;

const LINE_VERTEX = `#version 300 es
precision highp float;
uniform mat3 camFromWorld;
uniform vec3 shift;
uniform vec4 lens;
uniform vec2 size;
uniform float near;
in vec3 place;

void main() {
  vec3 cam = camFromWorld * place + shift;
  vec2 pixel = lens.xy * cam.xy + lens.zw * cam.z;  // times depth
  gl_Position = vec4(2.0 * pixel.x / size.x - cam.z, cam.z - 2.0 * pixel.y / size.y,
                     cam.z - 2.0 * near, cam.z);
}`;

const LINE_FRAGMENT = `#version 300 es
precision highp float;
uniform vec4 color;
out vec4 result;
void main() { result = color; }`;
