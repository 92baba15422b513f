// Galleries: word maps and samples, their filters, their slider over evaluations, and the picture enlarged. Source: own.
// Everything from a run is put in as text; `tools` are those of page.js.
'use strict';
window.gallery = (host, { all, one, make, count, state, remember }) => {
  const name = host.dataset.name, maps = name !== 'samples', data = JSON.parse(one('script', host).textContent);
  const timed = data.unit === 'timestep', stopText = (stop) => timed ? `timestep ${data.stops[stop]}` : count(data.stops[stop]) + ' images';
  const stateOf = (filter) => timed ? `${name}-${filter}` : filter;
  const input = one('[data-stop]', host), tiles = one('.tiles', host), box = document.getElementById('box');
  const filters = Object.fromEntries(all('[data-filter]', host).map((each) => [each.dataset.filter, each]));
  const several = data.runs.length > 1, based = data.cards.some((card) => card.base !== null);
  const svg = (tag, attributes) => {
    const found = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
    return found;
  };
  const absent = (text) => make('div', { class: 'absent' }, text);
  const marked = (phrase, word) => {
    const words = word.split(/[\s,/|]+/).filter((part) => part.length > 1).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    if (!words.length) return [phrase];
    const pieces = phrase.split(new RegExp('(?<!\\w)(' + words.join('|') + ')', 'i'));
    return pieces.map((piece, i) => i % 2 ? make('mark', {}, piece) : piece);
  };
  const picture = (places, alt, { size: [width, height], mask, boxes }) => {
    const marks = svg('svg', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    const whole = { width, height, preserveAspectRatio: 'none' };
    if (mask !== null) marks.append(svg('image', { class: 'mask', filter: 'url(#outline)', href: data.pictures[mask], ...whole }));
    for (const [x, y, w, h] of boxes)
      for (const kind of ['roi halo', 'roi']) marks.append(svg('rect', { class: kind, x, y, width: w, height: h }));
    const layers = places.filter((place) => place !== null);
    const images = layers.map((place, i) => make('img', { src: data.pictures[place], alt: i === layers.length - 1 ? alt : '', width, height }));
    return make('button', { class: 'xray', type: 'button' }, ...images, marks);
  };
  const panel = (shown, ...note) => make('div', {}, shown, make('div', { class: 'note' }, ...note));
  const panels = (card, stop) => {
    const label = maps ? 'X-ray' : 'real', bare = maps ? card : { ...card, boxes: [], mask: null }, found = [];
    if (based) found.push(panel(card.base === null ? absent(`no ${label} image`) : picture([card.base], label, bare), label));
    data.runs.forEach(({ run, encoder }, i) => {
      let at = stop;  // where a run was not evaluated it shows its evaluation before, and says so
      while (at > 0 && !timed && !data.cards.some((each) => each.cells[i][at])) at -= 1;
      if (timed) {  // a slow kind of map is there at few timesteps: the nearest one, which is said
        const there = card.cells[i].map((_, j) => j).filter((j) => card.cells[i][j]);
        at = there.sort((a, b) => Math.abs(a - stop) - Math.abs(b - stop))[0] ?? stop;
      }
      const cell = card.cells[i][at], cnr = (cell?.cnr ?? null) === null ? '' : 'CNR ' + cell.cnr.toFixed(2).replace('-', '−');
      const value = [cnr, { 1: 'hit', 0: 'miss' }[cell?.hit], at === stop ? '' : `at ${count(data.stops[at])}`].filter(Boolean).join(', ');
      const alt = maps ? `${card.class}: map of the word ${card.word}, ${run}` : `drawn for: ${card.prompt}`;
      const whose = several ? [make('i', { class: 'dot ' + encoder }), run] : [maps ? 'word map' : 'drawn'];
      const shown = cell ? picture([maps ? card.base : null, cell.picture], alt, bare) : absent('none');
      found.push(panel(shown, make('span', {}, ...whose), make('b', {}, cell ? value : 'none')));
    });
    return make('div', { class: 'panels' }, ...found);
  };
  const caption = (card) => make('figcaption', {},
    ...(maps ? [make('strong', {}, card.class || card.word), ...marked(card.phrase, card.word)] : [card.prompt || 'no prompt']),
    ' ', ...(card.key ? [make('code', {}, card.key)] : []));
  if (filters.class) {
    const offer = (filter, value, text) => filters[filter].append(make('option', { value }, text));
    const sides = data.runs.map(({ run }) => several ? run + ': ' : '');
    for (const each of [...new Set(data.cards.map((card) => card.class))].sort()) offer('class', each, each);
    sides.forEach((side, i) => { offer('outcome', `${i}:1`, side + 'hit'); offer('outcome', `${i}:0`, side + 'miss'); });
    if (sides.length === 2) for (const [a, b] of [[0, 1], [1, 0]]) offer('outcome', `${a}:1 ${b}:0`, `${sides[a]}hit, ${sides[b]}miss`);
    sides.forEach((side, i) => { offer('order', `${i}:-1`, side + 'CNR, greatest first'); offer('order', `${i}:1`, side + 'CNR, least first'); });
  }
  let visible = [];
  const draw = () => {
    const stop = Number(input.value), value = (filter) => filters[filter]?.value ?? '', text = value('text').toLowerCase();
    const outcomes = value('outcome').split(' ').filter(Boolean).map((part) => part.split(':').map(Number));
    visible = data.cards.filter((card) => (!value('class') || card.class === value('class'))
      && (!text || `${card.word} ${card.phrase}`.toLowerCase().includes(text))
      && outcomes.every(([i, hit]) => card.cells[i][stop]?.hit === hit));
    if (value('order')) {
      const [i, way] = value('order').split(':').map(Number), cnr = (card) => card.cells[i][stop]?.cnr ?? null;
      visible.sort((a, b) => (cnr(a) === null) - (cnr(b) === null) || way * (cnr(a) - cnr(b)));
    }
    input.nextElementSibling.textContent = stopText(stop);
    input.setAttribute('aria-valuetext', input.nextElementSibling.textContent);
    const evaluations = `${data.stops.length} ${timed ? 'timestep' : 'evaluation'}${data.stops.length > 1 ? 's' : ''}`;
    one('.count', host).textContent = `${visible.length} of ${data.cards.length} ${maps ? 'phrases' : 'prompts'}, ${evaluations}`;
    tiles.replaceChildren(...visible.map((card, i) => {
      const tile = make('figure', { class: 'tile' }, panels(card, stop), caption(card));
      for (const each of all('.xray', tile)) each.addEventListener('click', () => enlarge(i));
      return tile;
    }));
  };
  const enlarge = (i) => {
    if (!visible[i]) return;
    const more = make('p', { class: 'muted' }, `${i + 1} of ${visible.length}; arrow keys show the others.`);
    one('div', box).replaceChildren(panels(visible[i], Number(input.value)), caption(visible[i]), more);
    box.onkeydown = (event) => enlarge(i + ({ ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? NaN));
    if (!box.open) box.showModal();
  };
  tiles.classList.add('columns-' + (data.runs.length + 1));
  input.max = data.stops.length - 1;
  input.closest('label').hidden = data.stops.length < 2;
  input.value = state.has(name) ? Math.max(0, data.stops.indexOf(Number(state.get(name)))) : input.max;
  input.addEventListener('input', () => { remember(name, input.value === input.max ? null : data.stops[input.value]); draw(); });
  for (const [filter, each] of Object.entries(filters)) {
    each.value = state.get(stateOf(filter)) ?? '';
    each.addEventListener('input', () => { remember(stateOf(filter), each.value); draw(); });
  }
  const hides = (each) => document.body.classList.toggle('hide-' + each.dataset.hides, !each.checked);
  for (const each of all('[data-hides]', host)) each.addEventListener('change', () => hides(each));
  draw();
};
