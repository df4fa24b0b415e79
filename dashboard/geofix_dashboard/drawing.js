// A map on which areas are drawn: outlines of our own regions, no tiles, nothing from elsewhere.
// Longitude and latitude come in and go out; between lies Web Mercator, 0 to 1 on both axes.
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 320;
const CLOSE_PX = 10; // a click this near the first corner closes an area
const STEP_PX = 3; // of a line drawn by hand

const xOf = (lon) => lon / 360 + 0.5;
const yOf = (lat) =>
  0.5 - Math.log(Math.tan(Math.PI / 4 + (Math.max(-85, Math.min(85, lat)) * Math.PI) / 360)) / (2 * Math.PI);
const lonOf = (x) => (x - 0.5) * 360;
const latOf = (y) => (360 / Math.PI) * Math.atan(Math.exp((0.5 - y) * 2 * Math.PI)) - 90;

export default function (component) {
  const root = component.parentElement;
  const svg = root.querySelector("svg");
  const map = (svg.geofix ??= begin(root, svg));
  map.data = component.data;
  map.send = (rings) => component.setStateValue("rings", rings);
  if (map.of !== component.data.of) {
    map.of = component.data.of;
    map.rings = component.data.rings ?? [];
    fit(map);
  }
  draw(map);
}

function begin(root, svg) {
  const map = { svg, rings: [], line: [], moves: false, held: null };
  svg.setAttribute("height", HEIGHT);
  new ResizeObserver(() => map.view && draw(map)).observe(svg);
  const act = (name, deed) => (root.querySelector(`[data-act=${name}]`).onclick = () => (deed(), draw(map)));
  act("nearer", () => zoom(map, 2, width(map) / 2, HEIGHT / 2));
  act("farther", () => zoom(map, 0.5, width(map) / 2, HEIGHT / 2));
  act("undo", () => (map.line.length ? map.line.pop() : keep(map, map.rings.slice(0, -1))));
  act("clear", () => ((map.line = []), keep(map, [])));
  act("mode", () => {
    map.moves = !map.moves;
    root.querySelector("[data-act=mode]").textContent = map.moves ? "Moving" : "Drawing";
    svg.style.cursor = map.moves ? "grab" : "crosshair";
  });
  svg.onpointerdown = (event) => {
    svg.setPointerCapture(event.pointerId);
    map.held = { at: spot(map, event), far: false, moves: map.moves || event.button !== 0 };
  };
  svg.onpointermove = (event) => map.held && drag(map, spot(map, event));
  svg.onpointerup = (event) => map.held && drop(map, spot(map, event));
  svg.onpointercancel = () => (map.held = null);
  svg.oncontextmenu = (event) => event.preventDefault();
  svg.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const [x, y] = spot(map, event);
      zoom(map, event.deltaY < 0 ? 1.25 : 0.8, x, y);
      draw(map);
    },
    { passive: false },
  );
  return map;
}

const width = (map) => Math.max(map.svg.clientWidth, 50);

function spot(map, event) {
  const box = map.svg.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

// Pixels to degrees and back, by the view: middle of the map and pixels of the whole world.
function placeOf(map, [px, py]) {
  const { x, y, world } = map.view;
  return [lonOf(x + (px - width(map) / 2) / world), latOf(y + (py - HEIGHT / 2) / world)];
}

function pixelOf(map, [lon, lat]) {
  const { x, y, world } = map.view;
  return [(xOf(lon) - x) * world + width(map) / 2, (yOf(lat) - y) * world + HEIGHT / 2];
}

function fit(map) {
  const [west, south, east, north] = map.data.bounds;
  const wide = Math.max(xOf(east) - xOf(west), 1e-7);
  const high = Math.max(yOf(south) - yOf(north), 1e-7);
  const world = 0.9 * Math.min(width(map) / wide, HEIGHT / high);
  map.view = { x: (xOf(west) + xOf(east)) / 2, y: (yOf(south) + yOf(north)) / 2, world };
}

function zoom(map, factor, px, py) {
  const { x, y, world } = map.view;
  const next = Math.max(200, Math.min(world * factor, 1e9));
  const [dx, dy] = [px - width(map) / 2, py - HEIGHT / 2];
  map.view = { x: x + dx / world - dx / next, y: y + dy / world - dy / next, world: next };
}

function drag(map, at) {
  const held = map.held;
  const away = Math.hypot(at[0] - held.at[0], at[1] - held.at[1]);
  if (held.moves) {
    map.view.x -= (at[0] - held.at[0]) / map.view.world;
    map.view.y -= (at[1] - held.at[1]) / map.view.world;
    held.at = at;
  } else if (away >= STEP_PX) {
    if (!held.far) map.line = [placeOf(map, held.at)]; // a line by hand begins anew
    held.far = true;
    map.line.push(placeOf(map, at));
    held.at = at;
  }
  draw(map);
}

function drop(map, at) {
  const held = map.held;
  map.held = null;
  if (held.moves) return;
  if (held.far) finish(map);
  else {
    const first = map.line.length > 2 ? pixelOf(map, map.line[0]) : null;
    if (first && Math.hypot(at[0] - first[0], at[1] - first[1]) <= CLOSE_PX) finish(map);
    else map.line.push(placeOf(map, at));
  }
  draw(map);
}

function finish(map) {
  const ring = map.line.map(([lon, lat]) => [+lon.toFixed(6), +lat.toFixed(6)]);
  map.line = [];
  if (ring.length > 2) keep(map, [...map.rings, ring]);
}

function keep(map, rings) {
  map.rings = rings;
  map.send(rings);
}

function path(map, rings, closed = true) {
  const part = (ring) => "M" + ring.map((at) => pixelOf(map, at).map((v) => v.toFixed(1)).join(" ")).join("L");
  return rings.map((ring) => part(ring) + (closed ? "Z" : "")).join("");
}

function draw(map) {
  const corners = map.held?.far ? [] : map.line;
  const [a, b, km] = scale(map);
  map.svg.replaceChildren(
    made("path", { d: path(map, map.data.land), class: "land" }),
    made("path", { d: path(map, map.data.blocks), class: "blocks" }),
    made("path", { d: path(map, map.rings), class: "drawn" }),
    made("path", { d: path(map, map.line.length ? [map.line] : [], false), class: "line" }),
    ...corners.map((at, i) => {
      const [cx, cy] = pixelOf(map, at);
      return made("circle", { cx, cy, r: i ? 3 : 6, class: "corner" });
    }),
    made("path", { d: `M${a} ${HEIGHT - 14}v6H${b}v-6`, class: "scale" }),
    made("text", { x: (a + b) / 2, y: HEIGHT - 16, class: "scale" }, km),
  );
}

// A bar of a round length at the bottom, true at its own latitude.
function scale(map) {
  const lat = placeOf(map, [0, HEIGHT - 14])[1];
  const pixelsPerMetre = map.view.world / (40030230 * Math.cos((lat * Math.PI) / 180));
  const most = 110 / pixelsPerMetre;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((step) => step * power).find((metres) => metres <= most);
  return [12, 12 + length * pixelsPerMetre, length >= 1000 ? `${length / 1000} km` : `${length} m`];
}

function made(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
}
