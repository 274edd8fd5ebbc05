const element = (id) => document.getElementById(id);
const canvas = element("canvas");
const settings = JSON.parse(element("settings").textContent);
const { constants } = settings;

/** The arrays of a scene, as `pack` in html.py has written them. */
function unpack(index) {
  const record = settings.scenes[index];
  const text = atob(element(`scene-${index}`).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const n = record.count;
  return {
    ...record,
    means: new Float32Array(bytes.buffer, 0, 3 * n),
    quats: new Int16Array(bytes.buffer, 12 * n, 4 * n),
    logScales: new Uint16Array(bytes.buffer, 20 * n, 3 * n),
    colors: new Uint16Array(bytes.buffer, 26 * n, 4 * n), // half floats
  };
}

const style = {
  background: settings.background,
  splatScale: 1,
  showDepth: false,
  showLines: false,
  showPhoto: false,
  sharp: false,
};

/** The style with the blur in pixels of the canvas, `scale` of which make one of the image. */
function styleAt(scale, isGiven) {
  const grown = isGiven && !style.sharp ? Math.max(scale, 1) : 1;
  return { ...style, blur: constants.blur * grown ** 2 };
}

const planeOf = ({ rotation, shift }) => [...row(rotation, 2), shift[2]];
const rangeOf = (projected) => ({
  plane: planeOf(projected),
  near: constants.near,
  far: constants.far,
});

function fail(message) {
  element("message").textContent = message;
  element("message").hidden = false;
}

function start() {
  let renderer = new Renderer(canvas, constants);
  let scene, set, view;
  let cameraIndex = 0; // of the camera at which the view stands, or null
  let lastCamera = 0;
  let motion = null; // a function of seconds since its start that is true when it has ended
  let motionStart = 0;
  let playing = false;
  let pending = false;
  let wokenAt = 0; // in ms, when the next frame was asked for
  let resolution = 1; // share of the screen's, while something moves
  let rest = 0;
  let shift = false;

  const sorter = createSorterInBackground((sorted) => {
    renderer?.setOrder(sorted);
    wake();
  });

  // ---- frames

  function wake() {
    if (pending) return;
    pending = true;
    wokenAt = performance.now();
    requestAnimationFrame(frame);
  }

  /** Whatever moves the view comes through here. */
  function moved() {
    cameraIndex = null;
    wake();
  }

  function frame(now) {
    pending = false;
    if (!renderer) return;
    if (renderer.isBusy()) {
      pending = true;
      requestAnimationFrame(frame);
      return;
    }
    const waited = performance.now() - wokenAt;
    if (waited > 60) resolution = Math.max(0.8 * resolution, 0.25);
    else if (waited < 30) resolution = Math.min(1.05 * resolution, 1);
    let moving = steerHeld(Math.min(waited, 200) / 1000);
    if (motion) {
      if (motion((now - motionStart) / 1000)) motion = null;
      moving = true;
    }
    draw(resolution);
    clearTimeout(rest);
    if (moving) wake();
    else if (resolution < 1) rest = setTimeout(() => renderer && draw(1), 250);
  }

  /** Draws at a share of the screen's resolution: a slow card gets coarser while moving. */
  function draw(resolution) {
    const ratio = Math.min(devicePixelRatio, 2) * resolution;
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    const projected = view.project(width, height);
    requestOrder(projected);
    renderer.draw(projected, styleAt(projected.scale, set.given), width, height);
    placePhoto();
    markCamera();
  }

  let sortedFor = "";
  function requestOrder(projected) {
    const request = rangeOf(projected);
    const key = request.plane.join();
    if (key === sortedFor) return;
    sortedFor = key;
    sorter.request(request);
  }

  // ---- what is shown

  function showScene(index) {
    element("scenes").value = index;
    scene = unpack(index);
    renderer.setScene(scene);
    sorter.load(scene.means);
    sortedFor = "";
    const nextSet = settings.cameraSets[scene.cameraSet];
    if (nextSet !== set) {
      set = nextSet;
      view = new View(set.up, set.cameras[0]);
      cameraIndex = lastCamera = 0;
      listCameras();
      refocus();
    }
    updateLines();
    // At once, so that no picture shows one scene in the order of another.
    const projected = view.project(canvas.clientWidth, canvas.clientHeight);
    renderer.setOrder(sorter.sortNow(rangeOf(projected)));
    wake();
  }

  /** Puts the pivot where the scene lies in the middle of the picture. */
  function refocus() {
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const projected = view.project(width, height);
    view.distance = depthAt(scene, projected, width / 2, height / 2, width) ?? view.distance;
  }

  function goToCamera(index) {
    const camera = set.cameras[index];
    if (!camera) return;
    stopTurntable();
    const way = view.wayTo(camera, canvas.clientWidth, canvas.clientHeight);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    lastCamera = index;
    begin((seconds) => {
      const t = calm ? 1 : Math.min(seconds / 0.9, 1);
      way(t * t * (3 - 2 * t));
      cameraIndex = t === 1 ? index : null;
      if (t === 1) refocus();
      return t === 1;
    });
  }

  function begin(nextMotion) {
    motion = nextMotion;
    motionStart = performance.now();
    wake();
  }

  function setTurntable(on) {
    playing = on;
    press("turntable", on);
    motion = null;
    if (!on) return;
    const sway = turntable(view, set.cameras);
    begin((seconds) => {
      sway(Math.max(seconds, 0));
      cameraIndex = null;
      return false;
    });
  }
  const stopTurntable = () => playing && setTurntable(false);

  /** Stops what moves the view by itself when the user takes hold of it. */
  function take(act) {
    return (...values) => {
      stopTurntable();
      motion = null;
      act(...values);
      moved();
    };
  }

  function updateLines() {
    const spread = Math.max(...set.cameras.map((c) => Math.hypot(
      ...[3, 7, 11].map((i) => c.pose[i] - set.cameras[0].pose[i]))));
    const length = spread > 0 ? clamp(spread / set.cameras.length, 0.03 * spread, 0.2 * spread) : 0.1 * view.distance;
    const group = (cameras, color) => ({ points: cameras.flatMap((c) => frustum(c, length)), color });
    renderer.setLines([
      group(set.cameras.filter((_, i) => i !== lastCamera), [1, 1, 1, 0.65]),
      group([set.cameras[lastCamera]], [0.91, 0.64, 0.36, 1]),
    ]);
  }

  // ---- the page around the picture

  const press = (id, on) => element(id).setAttribute("aria-pressed", on);

  function listCameras() {
    const strip = element("cameras");
    strip.replaceChildren(
      ...set.cameras.map((camera, i) => {
        const button = document.createElement("button");
        button.title = `Camera ${i + 1}`;
        if (camera.image) {
          const thumbnail = new Image();
          Object.assign(thumbnail, { src: camera.image, alt: button.title });
          button.append(thumbnail);
        } else {
          button.textContent = i + 1;
        }
        button.addEventListener("click", () => goToCamera(i));
        return button;
      }),
    );
    element("overlay").hidden = !set.cameras.some((camera) => camera.image);
    element("sharp").hidden = !set.given;
  }

  let marked;
  function markCamera() {
    if (marked === cameraIndex) return;
    marked = cameraIndex;
    [...element("cameras").children].forEach((button, i) => {
      button.setAttribute("aria-pressed", i === cameraIndex);
      if (i === cameraIndex) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
    if (cameraIndex !== null) updateLines();
  }

  function placePhoto() {
    const photo = element("photo");
    const camera = set.cameras[cameraIndex];
    photo.hidden = !(style.showPhoto && camera?.image);
    if (photo.hidden) return;
    if (photo.src !== camera.image) photo.src = camera.image;
    const scale = fit(camera, canvas.clientWidth, canvas.clientHeight);
    const [width, height] = [camera.width * scale, camera.height * scale];
    Object.assign(photo.style, {
      left: `${(canvas.clientWidth - width) / 2}px`,
      top: `${(canvas.clientHeight - height) / 2}px`,
      width: `${width}px`,
      height: `${height}px`,
    });
  }

  function toggle(id, name) {
    style[name] = !style[name];
    press(id, style[name]);
    wake();
  }

  function savePicture() {
    draw(1); // a canvas keeps its picture only until the page is shown
    canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${document.title} ${scene.name}`.trim().replace(/[^\w-]+/g, "_") + ".png";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  function toggleControls() {
    const hidden = !element("panel").hidden;
    for (const id of ["panel", "cameras"]) element(id).hidden = hidden;
    if (hidden) element("help").hidden = true;
  }

  const stepScene = (step) =>
    showScene((scene.index + step + settings.scenes.length) % settings.scenes.length);
  const commands = {
    turntable: ["t", () => setTurntable(!playing)],
    frusta: ["c", () => toggle("frusta", "showLines")],
    overlay: ["i", () => toggle("overlay", "showPhoto")],
    depth: ["v", () => toggle("depth", "showDepth")],
    sharp: ["x", () => toggle("sharp", "sharp")],
    reset: ["r", () => goToCamera(lastCamera)],
    save: ["p", savePicture],
    about: ["?", () => (element("help").hidden = !element("help").hidden)],
    menu: ["h", toggleControls],
    previous: ["[", () => stepScene(-1)],
    next: ["]", () => stepScene(1)],
  };
  for (const [id, [, run]] of Object.entries(commands)) element(id).addEventListener("click", run);
  addEventListener("keydown", (event) => {
    shift = event.shiftKey;
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.matches?.("select, input[type=color]")) return;
    const command = Object.values(commands).find(([key]) => key === event.key.toLowerCase());
    if (command) command[1]();
    else if (event.key >= "1" && event.key <= "9") goToCamera(Number(event.key) - 1);
  });
  addEventListener("keyup", (event) => (shift = event.shiftKey));

  const perPixel = () => {
    const { lens } = view.project(canvas.clientWidth, canvas.clientHeight);
    return view.distance / lens[0];
  };
  const steerHeld = listen(canvas, {
    orbit: take((dx, dy) => view.orbit(dx * TURN_PER_PIXEL, -dy * TURN_PER_PIXEL)),
    pan: take((dx, dy) => view.move(-dx * perPixel(), -dy * perPixel(), 0)),
    zoom: take((factor) => view.zoom(factor)),
    turn: take(([x, y], seconds) => view.look(x * seconds, y * seconds)),
    fly: take((way, seconds) => {
      const speed = (shift ? 3 : 0.7) * view.distance * seconds;
      view.move(...way.map((value) => value * speed));
    }),
    pick(x, y) {
      const [width, height] = [canvas.clientWidth, canvas.clientHeight];
      const projected = view.project(width, height);
      const depth = depthAt(scene, projected, x, y, width);
      if (depth === null) return;
      // Towards the point, so that it comes to the middle.
      const [fx, fy, cx, cy] = projected.lens;
      const right = Math.atan((x - cx) / fx);
      const upwards = -Math.atan((y - cy) / Math.hypot(fy, ((x - cx) * fy) / fx));
      view.distance = depth * Math.hypot(1, (x - cx) / fx, (y - cy) / fy);
      let done = 0;
      begin((seconds) => {
        const share = Math.min(seconds / 0.4, 1);
        view.look(right * (share - done), upwards * (share - done));
        done = share;
        cameraIndex = null;
        return share === 1;
      });
    },
    wake,
  });

  const size = element("size");
  size.addEventListener("input", () => {
    style.splatScale = 2 ** size.value;
    wake();
  });
  size.addEventListener("dblclick", () => {
    size.value = 0;
    size.dispatchEvent(new Event("input"));
  });
  const background = element("background");
  const hex = (value) => Math.round(255 * value).toString(16).padStart(2, "0");
  background.value = `#${style.background.map(hex).join("")}`;
  background.addEventListener("input", () => {
    style.background = [1, 3, 5].map((i) => parseInt(background.value.slice(i, i + 2), 16) / 255);
    wake();
  });

  settings.scenes.forEach((record, index) => {
    record.index = index;
    element("scenes").append(new Option(record.name || `Scene ${index + 1}`, index));
  });
  element("switcher").hidden = settings.scenes.length < 2;
  element("scenes").addEventListener("change", (event) => showScene(Number(event.target.value)));
  ["turntable", "frusta", "overlay", "depth", "sharp"].forEach((id) => press(id, false));

  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault(); // asks the browser to bring it back
    renderer = null;
    fail("The graphics card was taken away; waiting for it to come back.");
  });
  canvas.addEventListener("webglcontextrestored", () => {
    element("message").hidden = true;
    renderer = new Renderer(canvas, constants);
    showScene(scene.index);
  });
  // On a narrow screen the controls would hide what there is to see.
  element("panel").hidden = matchMedia("(max-width: 560px)").matches;
  new ResizeObserver(wake).observe(canvas);
  showScene(0);
}

try {
  const wish = new URLSearchParams(location.hash.slice(1));
  if (wish.has("capture")) capture(wish);
  else start();
} catch (error) {
  fail(error.message);
  throw error;
}
