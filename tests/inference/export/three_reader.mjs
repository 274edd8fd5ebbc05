// Prints what three.js reads from a file of splats, as JSON: its arrays by their names.
//   node three_reader.mjs NODE_MODULES FILE

import { readFileSync } from 'node:fs';
import { extname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, file] = process.argv.slice(2);
globalThis.self ??= globalThis; // which browsers have

async function loader(name) {
  const path = resolve(modules, 'three/examples/jsm/loaders', `${name}.js`);
  return (await import(pathToFileURL(path)))[name];
}

// The first mesh of a scene: the numbers of the file, and what three.js makes of them to draw them.
async function readGlb(data) {
  const GLTFLoader = await loader('GLTFLoader');
  const Splats = await loader('GLTFGaussianSplatLoaderExtension');
  const [plain, splats] = [new GLTFLoader(), new GLTFLoader()];
  splats.register((parser) => new Splats(parser));
  const stored = (await plain.parseAsync(data, '')).scene.children[0];
  const drawn = (await splats.parseAsync(data, '')).scene.children[0];
  return { ...stored.geometry.attributes, ...drawn.splatGeometry.attributes };
}

const parse = async (name, data) => (await new (await loader(name))().parse(data)).attributes;
const read = {
  '.glb': readGlb,
  '.ply': (data) => parse('GaussianSplatPLYLoader', data),
  '.splat': (data) => parse('SPLATLoader', data),
  '.spz': (data) => parse('SPZLoader', data),
};

const bytes = new Uint8Array(readFileSync(file)); // a copy, of which the buffer is the file alone
const attributes = await read[extname(file)](bytes.buffer);
const arrays = Object.entries(attributes).map(([name, { array }]) => [name, Array.from(array)]);
process.stdout.write(JSON.stringify(Object.fromEntries(arrays)));
