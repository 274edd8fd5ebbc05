/**
 * Draws pictures of the size of their cameras and puts them in the place of the page, for tests
 * and scripts: #capture&scene=0&camera=0,1 and, where wanted, &width=640&height=480 and &depth.
 */
function capture(wish) {
  const number = (name, otherwise) => Number(wish.get(name) ?? otherwise);
  const scene = unpack(number("scene", 0));
  const set = settings.cameraSets[scene.cameraSet];
  const renderer = new Renderer(canvas, constants);
  const sorter = createSorter();
  renderer.setScene(scene);
  sorter.load(scene.means);
  style.showDepth = wish.has("depth");
  const images = (wish.get("camera") ?? "0").split(",").map((index) => {
    const camera = set.cameras[index];
    const [width, height] = [number("width", camera.width), number("height", camera.height)];
    const projected = new View(set.up, camera).project(width, height);
    renderer.setOrder(sorter.sort(rangeOf(projected)));
    renderer.draw(projected, styleAt(projected.scale, set.given), width, height);
    const image = new Image();
    image.className = "capture";
    image.src = canvas.toDataURL("image/png");
    return image;
  });
  document.body.replaceChildren(...images);
}
