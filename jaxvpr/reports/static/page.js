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
          || (condition && !JSON.parse(answer.dataset.conditions).includes(condition));
    };
    for (const button of buttons) button.onclick = () => {
      for (const other of buttons) other.ariaPressed = String(other === button);
      show();
    };
    if (choice) choice.onchange = show;
  }

  // A link between map and list shows what a filter, a layer or the zoom hides.
  const reveal = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (!target) return;
    if (target.hidden) {
      if (gallery.querySelector('select')) gallery.querySelector('select').value = '';
      gallery.querySelector('button').click();
    }
    if (target.dataset.layer) {
      const around = target.closest('.map');
      const layer = around.querySelector('input[value="' + target.dataset.layer + '"]');
      if (!layer.checked) layer.click();
      around.querySelector('button:last-of-type').click();
    }
    target.scrollIntoView({ block: 'center' });
  };
  addEventListener('hashchange', reveal);
  addEventListener('click', event => {
    const link = event.target.closest('a');
    if (link && link.getAttribute('href') === location.hash) reveal();
  });

  // Map: layers on and off, buttons or Ctrl and wheel to zoom, drag to move, nearest query under the pointer.
  const live = map => {
    const svg = map.querySelector('svg'), tip = map.querySelector('.tip');
    const points = JSON.parse(map.querySelector('script').textContent);
    const start = svg.getAttribute('viewBox').split(' ').map(Number);
    let box = [...start], held = null;
    const set = () => {
      svg.setAttribute('viewBox', box.join(' '));
      svg.style.setProperty('--zoom', box[2] / start[2]);
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
      if (box[2] >= start[2] || event.target.closest('a')) return;
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
  };
  for (const map of all('.map')) live(map);
})();
