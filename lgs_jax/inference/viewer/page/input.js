const WAYS = {
  KeyW: [0, 0, 1], KeyS: [0, 0, -1], KeyA: [-1, 0, 0], KeyD: [1, 0, 0], KeyQ: [0, 1, 0], KeyE: [0, -1, 0],
}; // prettier-ignore
const TURNS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const TURN_PER_PIXEL = 0.004;

/**
 * Pointers, wheel and held keys on a canvas.
 *
 * `actions`: orbit(dx, dy), pan(dx, dy), zoom(factor) with lengths in CSS pixels, pick(x, y) for a
 * double click, fly(way, seconds), turn(way, seconds), and wake() when a key that needs frames goes
 * down. Returns a function to be called before every frame, which is true while a key is held.
 */
function listen(canvas, actions) {
  const pointers = new Map();
  const held = new Set();
  const span = ([a, b]) => Math.hypot(a.x - b.x, a.y - b.y);

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const pan = event.shiftKey || event.button !== 0;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, pan });
  });
  canvas.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const before = [...pointers.values()].map((p) => ({ ...p }));
    const [dx, dy] = [event.clientX - last.x, event.clientY - last.y];
    Object.assign(last, { x: event.clientX, y: event.clientY });
    if (pointers.size === 1) {
      (last.pan ? actions.pan : actions.orbit)(dx, dy);
    } else if (pointers.size === 2) {
      actions.pan(dx / 2, dy / 2); // their middle moves half as far
      actions.zoom(span(before) / Math.max(span([...pointers.values()]), 1));
    }
  });
  const release = (event) => pointers.delete(event.pointerId);
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", (event) => actions.pick(event.clientX, event.clientY));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
      actions.zoom(Math.exp(0.0015 * clamp(pixels, -300, 300)));
    },
    { passive: false },
  );

  const isTyping = (event) => event.target.matches?.("input, select, textarea");
  addEventListener("keydown", (event) => {
    if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!(event.code in WAYS) && !(event.code in TURNS)) return;
    event.preventDefault();
    held.add(event.code);
    actions.wake();
  });
  addEventListener("keyup", (event) => held.delete(event.code));
  addEventListener("blur", () => held.clear());

  return (seconds) => {
    for (const code of held) {
      if (code in WAYS) actions.fly(WAYS[code], seconds);
      else actions.turn(TURNS[code], seconds);
    }
    return held.size > 0;
  };
}
