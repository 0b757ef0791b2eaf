"""The look of a report: its style sheet and its few lines of script, both embedded in the page.

Colours are custom properties with a light and a dark value each; charts name the property, never a colour.
"""

CSS = """
:root { color-scheme: light dark;
  --page: #f6f6f3; --panel: #ffffff; --ink: #1c2227; --muted: #626c75; --line: #e2e4e1; --soft: #f0f1ee;
  --run: #1f5fc4; --untrained: #b06a10; --thumbnail: #7a828b; --other: #7c4fb0;
  --right: #14855a; --wrong: #cc3530; --place: #9aa3aa; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171a; --panel: #1c2125; --ink: #e6e9eb; --muted: #9aa4ac; --line: #32393f; --soft: #23292e;
  --run: #74abff; --untrained: #eca557; --thumbnail: #a2aab2; --other: #bd9bea;
  --right: #43c48c; --wrong: #ff756e; --place: #6b757e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 36px 24px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 40px 0 12px; }
h3 { font-size: 14px; margin: 0 0 10px; }
p { margin: 0 0 10px; }
.muted, .protocol, figcaption { color: var(--muted); font-size: 13px; }
.protocol { margin: 10px 0 0; overflow-wrap: anywhere; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin: 0 0 16px; }
.two { display: grid; gap: 16px; margin: 0 0 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
.two > .panel { margin: 0; }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); margin: 22px 0 16px; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 25px; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }
.small b { font-size: 20px; line-height: 1.5; white-space: nowrap; }
.tile.first b { color: var(--run); }
.tile span { color: var(--muted); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 9px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--muted); font-size: 13px; font-weight: 500; }
tbody tr:last-child td { border-bottom: 0; }
tr.run td { font-weight: 650; }
td small { display: block; color: var(--muted); font-weight: 400; font-size: 12px; }
.key { display: inline-block; width: 18px; border-top: 3px solid; margin-right: 8px; vertical-align: middle; }
th.bar { text-align: left; padding-left: 28px; }
td.bar { width: 30%; min-width: 150px; padding-left: 28px; }
.bar div { background: var(--soft); border-radius: 3px; }
.bar i { display: block; height: 12px; border-radius: 3px; background: var(--run); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font-size: 12px; font-family: inherit; }
svg text.name { font-weight: 600; }
figure { margin: 0; }
.many .one polyline { fill: none; stroke: var(--colour); stroke-width: 1.2; stroke-linejoin: round; }
.many .one .reach { stroke: transparent; stroke-width: 11; pointer-events: stroke; }
.many .one path { fill: none; stroke: var(--colour); stroke-width: .6; opacity: .7; }
.many .one circle { fill: var(--colour); }
.many .first .seen { stroke-width: 2.6; }
.many .first text { fill: var(--colour); font-weight: 650; }
.many:has(.one:hover) .one:not(:hover) { opacity: .22; }
.many .one:hover .seen { stroke: var(--ink); stroke-width: 3; }
.many .one:hover text { fill: var(--ink); font-weight: 650; }
td.heat { background: color-mix(in srgb, var(--run) var(--share), transparent); }
.cells th:last-child, .cells td:last-child { padding-right: 9px; }
td.failed { color: var(--wrong); }
td.best b { color: var(--run); }
.map { position: relative; }
.map svg { background: var(--soft); border-radius: 8px; max-height: 760px; }
.map .controls button { min-width: 36px; margin-left: 4px; }
.tip { position: absolute; pointer-events: none; background: var(--ink); color: var(--page); border-radius: 6px;
  padding: 4px 9px; font-size: 13px; white-space: nowrap; display: none; }
.controls { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; margin: 0 0 12px; font-size: 14px; }
.controls button, .controls select { font: inherit; color: inherit; background: var(--panel);
  border: 1px solid var(--line);
  border-radius: 7px; padding: 4px 12px; cursor: pointer; }
.controls button[aria-pressed=true] { border-color: var(--run); color: var(--run); font-weight: 600; }
.controls label { display: inline-flex; gap: 6px; align-items: center; cursor: pointer; }
.mark { width: 10px; height: 10px; border-radius: 50%; background: currentColor; display: inline-block; }
.mark.place { color: var(--place); } .mark.right { color: var(--right); } .mark.wrong { color: var(--wrong); }
.mark.diamond { border-radius: 0; width: 9px; height: 9px; transform: rotate(45deg); }
.mark.line { border-radius: 0; width: 16px; height: 1px; }
.answer { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px;
  margin: 0 0 12px; }
.answer header { display: flex; flex-wrap: wrap; gap: 2px 12px; align-items: baseline; margin: 0 0 8px;
  font-size: 13px; }
.answer header .path { color: var(--muted); overflow-wrap: anywhere; }
.badge { font-weight: 650; } .badge.right { color: var(--right); } .badge.wrong { color: var(--wrong); }
.strip { display: grid; gap: 10px; grid-template-columns: repeat(var(--count), minmax(84px, 1fr)); overflow-x: auto; }
.strip figure { min-width: 0; }
.strip img, .strip .lost { display: block; width: 100%; height: auto; border-radius: 6px;
  border: 3px solid transparent; }
.strip .lost { display: grid; place-items: center; min-height: 70px; background: var(--soft); color: var(--muted);
  font-size: 12px; }
.strip .query img { border-color: var(--ink); } .strip .right img { border-color: var(--right); }
.strip .wrong img { border-color: var(--wrong); } .strip .truth img { border: 3px dashed var(--right); }
.strip figcaption { font-size: 12px; line-height: 1.35; padding-top: 3px; overflow-wrap: anywhere; }
.strip .right b { color: var(--right); } .strip .wrong b { color: var(--wrong); }
details summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; margin: 12px 0 0; }
[hidden] { display: none !important; }
@media print { body { background: #fff; } .controls { display: none; } .answer, .panel { break-inside: avoid; } }
"""

SCRIPT = """
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Gallery: one verdict and one condition at a time.
  const gallery = document.getElementById('gallery');
  if (gallery) {
    const buttons = all('button', gallery), choice = gallery.querySelector('select');
    const show = () => {
      const verdict = buttons.find(b => b.ariaPressed === 'true').value, condition = choice ? choice.value : '';
      for (const answer of all('.answer', gallery))
        answer.hidden = (verdict && answer.dataset.verdict !== verdict)
          || (condition && answer.dataset.condition !== condition);
    };
    for (const button of buttons) button.onclick = () => {
      for (const other of buttons) other.ariaPressed = String(other === button);
      show();
    };
    if (choice) choice.onchange = show;
  }

  // Map: layers on and off, buttons or Ctrl and wheel to zoom, drag to move, nearest query under the pointer.
  const map = document.querySelector('.map');
  if (!map) return;
  const svg = map.querySelector('svg'), tip = map.querySelector('.tip');
  const points = JSON.parse(map.querySelector('script').textContent);
  const start = svg.getAttribute('viewBox').split(' ').map(Number);
  let box = [...start], held = null;
  const set = () => {
    svg.setAttribute('viewBox', box.join(' '));
    svg.style.touchAction = box[2] < start[2] ? 'none' : 'auto';
  };
  const at = event => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [point.x, point.y];
  };
  const zoom = (by, x, y) => {
    const factor = Math.min(start[2], Math.max(start[2] / 60, box[2] * by)) / box[2];
    box = [x - (x - box[0]) * factor, y - (y - box[1]) * factor, box[2] * factor, box[3] * factor];
    if (box[2] >= start[2]) box = [...start];
    set();
  };
  for (const input of all('input', map)) input.onchange = () => {
    for (const layer of all('[data-layer="' + input.value + '"]', svg))
      layer.style.display = input.checked ? '' : 'none';
  };
  for (const button of all('button', map)) button.onclick = () =>
    zoom(Number(button.value), box[0] + box[2] / 2, box[1] + box[3] / 2);
  svg.onwheel = event => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, ...at(event));
  };
  svg.onpointerdown = event => {
    if (box[2] >= start[2]) return;
    held = at(event);
    svg.setPointerCapture(event.pointerId);
  };
  svg.onpointerup = () => { held = null; };
  svg.onpointermove = event => {
    const [x, y] = at(event);
    if (held) { box[0] += held[0] - x; box[1] += held[1] - y; set(); return; }
    let best = null, near = (box[2] / 60) ** 2;
    for (const point of points) {
      const distance = (point[0] - x) ** 2 + (point[1] - y) ** 2;
      if (distance < near) { near = distance; best = point; }
    }
    tip.style.display = best ? 'block' : 'none';
    if (!best) return;
    tip.textContent = best[2];
    const frame = map.getBoundingClientRect();
    tip.style.left = Math.min(event.clientX - frame.left + 14, frame.width - tip.offsetWidth) + 'px';
    tip.style.top = event.clientY - frame.top + 14 + 'px';
  };
  svg.onpointerleave = () => { tip.style.display = 'none'; };
})();
"""
