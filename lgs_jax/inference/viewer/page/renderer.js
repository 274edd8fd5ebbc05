/** Splats are kept in textures with so many of them in a row. */
const ROW = 2048;

/**
 * Draws splats on a canvas: blended back to front into half floats, so that many faint splats do
 * not drown in the rounding of 8 bits, then put before the background.
 */
class Renderer {
  /** Throws an Error that tells the user what is missing. */
  constructor(canvas, constants) {
    const options = { alpha: false, antialias: false, depth: false };
    const gl = canvas.getContext("webgl2", options);
    if (!gl) throw new Error("This browser does not offer WebGL 2, which draws the scene.");
    const hasHalf =
      gl.getExtension("EXT_color_buffer_float") ?? gl.getExtension("EXT_color_buffer_half_float");
    Object.assign(this, { canvas, gl, constants, count: 0 });
    this.blendFormat = hasHalf ? gl.RGBA16F : gl.RGBA8;
    const vertex = SPLAT_VERTEX.replaceAll("ROW", String(ROW));
    this.splats = createProgram(gl, vertex, SPLAT_FRAGMENT);
    this.finish = createProgram(gl, COVER_VERTEX, FINISH_FRAGMENT);
    this.lines = createProgram(gl, LINE_VERTEX, LINE_FRAGMENT);
    this.order = gl.createBuffer();
    this.orderSize = 0;
    this.splatArray = gl.createVertexArray();
    gl.bindVertexArray(this.splatArray);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.order);
    const index = gl.getAttribLocation(this.splats.program, "index");
    gl.enableVertexAttribArray(index);
    gl.vertexAttribIPointer(index, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(index, 1);
    this.emptyArray = gl.createVertexArray();
    this.lineBuffer = gl.createBuffer();
    this.lineArray = gl.createVertexArray();
    gl.bindVertexArray(this.lineArray);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.lineBuffer);
    const place = gl.getAttribLocation(this.lines.program, "place");
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
    this.framebuffer = gl.createFramebuffer();
    this.textures = [];
    this.setLines([]);
  }

  /** Takes a scene as `unpack` gives it. */
  setScene(scene) {
    const { gl } = this;
    this.textures.forEach((texture) => gl.deleteTexture(texture));
    const upload = (...format) => createTexture(gl, scene.count, ...format);
    this.textures = [
      upload(gl.RGB32F, gl.RGB, gl.FLOAT, scene.means, 3),
      upload(gl.RGBA16I, gl.RGBA_INTEGER, gl.SHORT, scene.quats, 4),
      upload(gl.RGB16UI, gl.RGB_INTEGER, gl.UNSIGNED_SHORT, scene.logScales, 3),
      upload(gl.RGBA16F, gl.RGBA, gl.HALF_FLOAT, scene.colors, 4),
    ];
    this.scaleCode = [scene.lowestLogScale, scene.logScaleStep];
    this.count = 0;
  }

  /** Takes what the sorter gives. */
  setOrder({ order, nearest, farthest }) {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.order);
    if (order.length > this.orderSize) {
      gl.bufferData(gl.ARRAY_BUFFER, order, gl.DYNAMIC_DRAW);
      this.orderSize = order.length;
    } else {
      gl.bufferSubData(gl.ARRAY_BUFFER, 0, order);
    }
    this.count = order.length;
    this.depthRange = [nearest, Math.max(farthest, 1.001 * nearest)];
  }

  /** Takes groups of line segments: [{points: [x, y, z, ...], color: [r, g, b, a]}]. */
  setLines(groups) {
    const { gl } = this;
    this.lineGroups = groups;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.lineBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(groups.flatMap((g) => g.points)), gl.STATIC_DRAW);
  }

  /**
   * Draws the scene as a camera sees it, on a canvas of `width` x `height` pixels.
   *
   * `camera` holds rotation and shift (camera from world) and lens (fx, fy, cx, cy in pixels of the
   * canvas); `style` holds background, blur (variance in px^2), splatScale, showDepth, showLines.
   */
  draw(camera, style, width, height) {
    const { gl, canvas } = this;
    if (canvas.width !== width || canvas.height !== height || !this.target) {
      [canvas.width, canvas.height] = [width, height];
      this.resizeTarget(width, height);
    }
    const view = {
      camFromWorld: transpose(camera.rotation), // column by column, as GL has it
      shift: camera.shift,
      lens: camera.lens,
      size: [width, height],
      near: this.constants.near,
    };
    gl.viewport(0, 0, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.framebuffer);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (this.count) this.drawSplats(view, style);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.disable(gl.BLEND);
    const depthRange = (this.depthRange ?? [1, 2]).map((d) => d / (this.depthRange?.[1] ?? 1));
    this.finish.use([this.target], {
      blended: 0,
      background: style.background,
      showDepth: style.showDepth,
      depthRange,
    });
    gl.bindVertexArray(this.emptyArray);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    if (style.showLines) this.drawLines(view);
    gl.deleteSync(this.fence ?? null);
    this.fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
  }

  /** Whether the card is still at the last picture; a further one would only wait in line. */
  isBusy() {
    const { gl } = this;
    return Boolean(this.fence) && gl.clientWaitSync(this.fence, 0, 0) === gl.TIMEOUT_EXPIRED;
  }

  drawSplats(view, style) {
    const { gl, constants } = this;
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.splats.use(this.textures, {
      means: 0,
      quats: 1,
      logScales: 2,
      colors: 3,
      scaleCode: this.scaleCode,
      splatScale: style.splatScale,
      blur: style.blur,
      frustumMargin: constants.frustumMargin,
      minAlpha: constants.minAlpha,
      maxAlpha: constants.maxAlpha,
      maxExtent: constants.maxExtent,
      showDepth: style.showDepth,
      depthUnit: this.depthRange[1],
      ...view,
    });
    gl.bindVertexArray(this.splatArray);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.count);
  }

  drawLines(view) {
    const { gl } = this;
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    gl.bindVertexArray(this.lineArray);
    let start = 0;
    for (const { points, color } of this.lineGroups) {
      this.lines.use([], { ...view, color });
      gl.drawArrays(gl.LINES, start, points.length / 3);
      start += points.length / 3;
    }
  }

  resizeTarget(width, height) {
    const { gl } = this;
    gl.deleteTexture(this.target ?? null);
    this.target = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.target);
    gl.texStorage2D(gl.TEXTURE_2D, 1, this.blendFormat, width, height);
    pickTexels(gl);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.framebuffer);
    const attachment = gl.COLOR_ATTACHMENT0;
    gl.framebufferTexture2D(gl.FRAMEBUFFER, attachment, gl.TEXTURE_2D, this.target, 0);
  }
}

/** A compiled program; `use` binds textures and sets uniforms, each by the type that it has. */
function createProgram(gl, vertexSource, fragmentSource) {
  const program = gl.createProgram();
  for (const [kind, source] of [
    [gl.VERTEX_SHADER, vertexSource],
    [gl.FRAGMENT_SHADER, fragmentSource],
  ]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
    throw new Error(`The graphics driver refuses a shader: ${logs.join(" ")}`);
  }
  const setters = {
    [gl.FLOAT]: (at, value) => gl.uniform1f(at, value),
    [gl.FLOAT_VEC2]: (at, value) => gl.uniform2fv(at, value),
    [gl.FLOAT_VEC3]: (at, value) => gl.uniform3fv(at, value),
    [gl.FLOAT_VEC4]: (at, value) => gl.uniform4fv(at, value),
    [gl.FLOAT_MAT3]: (at, value) => gl.uniformMatrix3fv(at, false, value),
  };
  const uniforms = new Map();
  for (let i = 0; i < (gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS) ?? 0); i++) {
    const { name, type } = gl.getActiveUniform(program, i);
    const at = gl.getUniformLocation(program, name);
    const set = setters[type] ?? ((place, value) => gl.uniform1i(place, value));
    uniforms.set(name, (value) => set(at, value));
  }
  return {
    program,
    use(textures, values) {
      gl.useProgram(program);
      textures.forEach((texture, i) => {
        gl.activeTexture(gl.TEXTURE0 + i);
        gl.bindTexture(gl.TEXTURE_2D, texture);
      });
      gl.activeTexture(gl.TEXTURE0);
      for (const [name, value] of Object.entries(values)) uniforms.get(name)?.(value);
    },
  };
}

/** A texture of `count` texels with `channels` numbers each, ROW in a row. */
function createTexture(gl, count, internalFormat, format, type, data, channels) {
  const rows = Math.floor(count / ROW);
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texStorage2D(gl.TEXTURE_2D, 1, internalFormat, ROW, rows + 1);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  const put = (y, width, height, part) =>
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, y, width, height, format, type, part);
  if (rows) put(0, ROW, rows, data.subarray(0, rows * ROW * channels));
  if (count % ROW) put(rows, count % ROW, 1, data.subarray(rows * ROW * channels));
  pickTexels(gl);
  return texture;
}

/** Only single texels are read, and float textures could not be filtered. */
function pickTexels(gl) {
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
}
