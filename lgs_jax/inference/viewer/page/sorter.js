/**
 * Orders splats by depth. Runs in a worker, made from the text of this function, and on the page
 * where a browser forbids that or a picture is wanted at once. It must not use anything outside.
 */
function createSorter() {
  let means = new Float32Array(0);
  let depths, bits, first, second;

  return {
    /** Takes the centres, x y z after each other. */
    load(centres) {
      const count = centres.length / 3;
      means = centres;
      depths = new Float32Array(count);
      bits = new Uint32Array(depths.buffer);
      first = new Uint32Array(count);
      second = new Uint32Array(count);
    },

    /**
     * The splats with depth a·x + b·y + c·z + d between near and far, farthest first.
     *
     * Exact: bits of positive floats have their order, and two stable passes over 16 bits each
     * leave equal depths by index. Also gives the depths that 2 % and 98 % of the splats reach.
     */
    sort({ plane: [a, b, c, d], near, far }) {
      const low = new Uint32Array(65537);
      const high = new Uint32Array(65537);
      let visible = 0;
      for (let i = 0, j = 0; j < depths.length; i += 3, j++) {
        const depth = a * means[i] + b * means[i + 1] + c * means[i + 2] + d;
        if (!(depth > near && depth < far)) continue;
        depths[j] = depth;
        low[(bits[j] & 0xffff) + 1]++;
        high[(bits[j] >>> 16) + 1]++;
        first[visible++] = j;
      }
      for (let digit = 0; digit < 65536; digit++) {
        low[digit + 1] += low[digit];
        high[digit + 1] += high[digit];
      }
      for (let k = 0; k < visible; k++) {
        const j = first[k];
        second[low[bits[j] & 0xffff]++] = j;
      }
      const order = new Uint32Array(visible);
      for (let k = 0; k < visible; k++) {
        const j = second[k];
        order[visible - 1 - high[bits[j] >>> 16]++] = j;
      }
      const at = (share) => (visible ? depths[order[Math.floor(share * (visible - 1))]] : 1);
      return { order, nearest: at(0.98), farthest: at(0.02) };
    },
  };
}

/** A sorter whose answers come later, one request at a time; `onSorted` gets each answer. */
function createSorterInBackground(onSorted) {
  const loop = `const sorter = (${createSorter})();
    onmessage = ({ data }) => {
      if (data.means) sorter.load(data.means);
      else {
        const sorted = sorter.sort(data);
        postMessage({ ...sorted, serial: data.serial }, [sorted.order.buffer]);
      }
    };`;
  const here = createSorter();
  let worker = null;
  let [busy, waiting, serial] = [false, null, 0];

  function useThisThread() {
    worker = null;
    const request = waiting ?? busy;
    [busy, waiting] = [false, null];
    if (request) onSorted(here.sort(request));
  }
  try {
    worker = new Worker(URL.createObjectURL(new Blob([loop], { type: "text/javascript" })));
    worker.onerror = useThisThread;
    worker.onmessage = ({ data }) => {
      busy = false;
      if (data.serial === serial) onSorted(data);
      if (waiting) send(waiting);
      waiting = null;
    };
  } catch {
    worker = null; // as in pages that forbid workers
  }
  function send(request) {
    busy = request;
    worker.postMessage({ ...request, serial });
  }
  return {
    load(means) {
      serial++;
      here.load(means);
      worker?.postMessage({ means });
    },
    request(request) {
      if (!worker) onSorted(here.sort(request));
      else if (busy) waiting = request;
      else send(request);
    },
    sortNow: (request) => here.sort(request),
  };
}
