// The page's only script beside Vega: charts, runs that are shown, what is looked at, galleries, tables, downloads, theme.
// Every state that a reader sets stands in the address (permalink). Everything from a run is put in as text. Source: own.
(() => {
  'use strict';
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const make = (tag, attributes = {}, ...children) => {
    const found = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) found.setAttribute(name, value);
    found.append(...children);
    return found;
  };
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const root = document.documentElement, about = read('about');
  let tables = read('data');
  const count = (n) => Number(n).toLocaleString('en');

  // ---- state in the address: #SECTION?name=value
  const split = () => location.hash.slice(1).split('?');
  const state = new URLSearchParams(split()[1] ?? '');
  const remember = (name, value) => {
    if (value === null || value === '') state.delete(name); else state.set(name, value);
    history.replaceState(null, '', '#' + split()[0] + (state.size ? '?' + state : ''));
  };
  addEventListener('hashchange', () => { if (state.size && !location.hash.includes('?')) remember('', null); });

  // ---- theme
  const themes = ['auto', 'light', 'dark'], button = document.getElementById('theme');
  const stored = (value) => { try { if (value) localStorage.setItem('report-theme', value); return localStorage.getItem('report-theme'); } catch { return value; } };
  const paint = (theme) => {
    if (theme === 'auto') root.removeAttribute('data-theme'); else root.setAttribute('data-theme', theme);
    button.textContent = 'Theme: ' + theme;
  };
  let theme = themes.includes(stored()) ? stored() : 'auto';
  paint(theme);
  button.hidden = false;
  button.addEventListener('click', () => { theme = themes[(themes.indexOf(theme) + 1) % 3]; stored(theme); paint(theme); });

  // ---- navigation from what is there
  for (const section of all('main > section')) one('nav > div').append(make('a', { href: '#' + section.id }, section.dataset.short));

  // ---- charts
  const look = { distance: about.distances.includes(state.get('x')) ? state.get('x') : about.x, cnr: about.groundings.includes(state.get('y')) ? state.get('y') : about.y };
  const hidden = new Set(state.getAll('hide'));
  const runs = all('[data-run]').map((each) => each.dataset.run);
  const charts = new Map();  // figure -> {view, names, fields}
  let until = state.has('until') ? Number(state.get('until')) : null;

  const rowsOf = (name, fields = {}) => {
    const table = { ...(tables[name] ?? {}) };
    for (const [alias, key] of Object.entries(fields))
      for (const [a, b] of [['', ''], ['_low', ' low'], ['_high', ' high']]) { delete table[alias + a]; if (table[key + b]) table[alias + a] = table[key + b]; }
    const names = Object.keys(table);
    return (table[names[0]] ?? []).map((_, i) => Object.fromEntries(names.map((column) => [column, table[column][i]])));
  };
  const shown = () => hidden.size ? runs.filter((run) => !hidden.has(run)) : null;
  const signals = () => ({ shown: shown(), until, quiet: !hidden.size && (tables.means.run ?? []).length > 0, named: runs.length === 0 ? 'images' : runs.length < 5 ? 'run' : '' });
  const fieldsOf = (figure) => figure.dataset.chart === 'tradeoff' ? look : JSON.parse(figure.dataset.fields);
  const scaled = (part, fields) => {  // a distance that spans much gets a logarithmic axis
    if (Array.isArray(part)) part.forEach((each) => scaled(each, fields));
    else if (part && typeof part === 'object') {
      if (part.scale && typeof part.field === 'string' && about.keys[fields[part.field.replace(/_(low|high)$/, '')]]?.log) { Object.assign(part.scale, { type: 'log', nice: false }); delete part.scale.zero; part.axis = { ...part.axis, grid: false }; }
      Object.values(part).forEach((each) => scaled(each, fields));
    }
    return part;
  };
  const specOf = (figure) => {
    const fields = fieldsOf(figure), narrow = one('.plot', figure).clientWidth < 500;
    let text = JSON.stringify(about.specs[figure.dataset.chart]);
    for (const [alias, key] of Object.entries(fields))
      text = text.replaceAll('${string:' + alias + '}', JSON.stringify((narrow ? about.keys[key].label.split(',')[0] : about.keys[key].label) + (about.keys[key].log ? ', log scale' : '')).slice(1, -1));
    const spec = scaled(JSON.parse(text), fields);
    const names = [...new Set([...text.matchAll(/"data":\{"name":"(\w+)"\}/g)].map((match) => match[1]))];
    spec.datasets = Object.fromEntries(names.map((name) => [name, rowsOf(name, fields)]));
    if (narrow) spec.config.legend.layout = { top: { direction: 'vertical' } };
    const drawn = (layer) => {  // an empty layer would make the axes endless
      const known = [...JSON.stringify(layer).matchAll(/isValid\(datum\.(\w+)\)/g)].map((match) => match[1]);
      return spec.datasets[(layer.data ?? spec.data).name].some((row) => known.every((name) => row[name] !== null && row[name] !== undefined));
    };
    spec.layer = spec.layer.filter(drawn);
    if (!signals().named) spec.layer = spec.layer.filter((layer) => layer.encoding.text?.field !== 'said');  // thousands of unseen texts
    for (const param of spec.params) if (param.name in signals()) param.value = signals()[param.name];
    return { spec, fields, names: [...new Set(spec.layer.map((layer) => (layer.data ?? spec.data).name))] };
  };
  const linked = (view) => {
    try { view.addSignalListener('brush', (_, found) => set({ lo: found.images?.[0] ?? null, hi: found.images?.[1] ?? null })); } catch { /* no brush in this chart */ }
  };
  const embed = async (figure) => {
    const { spec, names, fields } = specOf(figure), plot = one('.plot', figure);
    if (one('.rows', figure).open) listRows(figure);
    try {
      const { view } = await vegaEmbed(plot, spec, { renderer: 'svg', ast: true, actions: false, defaultStyle: false, tooltip: { disableDefaultStyle: true } });
      charts.get(figure)?.view.finalize();
      charts.set(figure, { view, names, fields, layers: spec.layer.length });
      linked(view);
    } catch (error) { plot.textContent = 'This chart could not be drawn: ' + error.message; throw error; }
  };
  const set = (values) => Promise.all([...charts.values()].map(({ view }) => {
    for (const [name, value] of Object.entries(values)) view.signal(name, value);
    return view.runAsync();
  }));

  // ---- what is looked at: axes, runs, training images
  for (const select of all('[data-axis]')) {
    const field = { x: 'distance', y: 'cnr' }[select.dataset.axis];
    select.value = look[field];
    select.addEventListener('change', () => {
      look[field] = select.value;
      remember(select.dataset.axis, select.value === about[select.dataset.axis] ? null : select.value);
      embed(one('[data-chart=tradeoff]'));
    });
  }
  const legend = () => {
    for (const each of all('[data-run]')) each.setAttribute('aria-pressed', String(!hidden.has(each.dataset.run)));
    for (const each of all('[data-group]')) each.setAttribute('aria-pressed', String(all('[data-run]').every((run) => hidden.has(run.dataset.run) ? run.dataset.encoder !== each.dataset.group && each.dataset.group : true)));
  };
  const toggle = (names, show) => {
    for (const name of names) if (show) hidden.delete(name); else hidden.add(name);
    state.delete('hide');
    for (const name of hidden) state.append('hide', name);
    remember('', null);
    legend();
    return set(signals());
  };
  for (const each of all('[data-run]')) each.addEventListener('click', () => toggle([each.dataset.run], hidden.has(each.dataset.run)));
  for (const each of all('[data-group]')) each.addEventListener('click', () => toggle(
    all('[data-run]').filter((run) => !each.dataset.group || run.dataset.encoder === each.dataset.group).map((run) => run.dataset.run), each.getAttribute('aria-pressed') !== 'true'));
  document.getElementById('find')?.addEventListener('input', (event) => {
    for (const each of all('[data-run]')) each.hidden = !each.dataset.run.toLowerCase().includes(event.target.value.toLowerCase());
  });
  legend();
  const slider = document.getElementById('until');
  const stops = () => [...new Set(tables.evaluations.images ?? [])].sort((a, b) => a - b);
  const slide = () => {
    const found = stops(), last = found.length - 1;
    slider.max = last;
    slider.value = until === null ? last : found.findLastIndex((images) => images <= until);
    slider.nextElementSibling.textContent = until === null ? 'all images' : count(until) + ' images';
    slider.setAttribute('aria-valuetext', slider.nextElementSibling.textContent);
  };
  if (slider) {
    slide();
    slider.addEventListener('input', () => {
      until = Number(slider.value) === Number(slider.max) ? null : stops()[slider.value];
      remember('until', until);
      slide();
      set(signals());
    });
  }

  // ---- tables: rows of a chart, sorting
  const LISTED = 1000;
  const listRows = (figure) => {
    const { spec } = specOf(figure), details = one('.rows', figure), rows = spec.datasets[Object.keys(spec.datasets).includes('evaluations') ? 'evaluations' : Object.keys(spec.datasets)[0]];
    const fields = Object.keys(fieldsOf(figure));
    const columns = Object.keys(rows[0] ?? {}).filter((name) => !name.includes('/') && !['step', 'kind', 'sweep', 'order'].includes(name) && (!fields.length || fields.includes(name) || !['distance', 'cnr'].includes(name)));
    const title = (name) => about.keys[fieldsOf(figure)[name]]?.label ?? name;
    const cell = (value) => typeof value === 'number' ? (Math.abs(value) >= 1000 ? count(value) : String(value)) : value ?? '–';
    details.replaceChildren(one('summary', details), make('div', { class: 'scroll' }, make('table', {},
      make('thead', {}, make('tr', {}, ...columns.map((name) => make('th', { scope: 'col' }, title(name))))),
      make('tbody', {}, ...rows.slice(0, LISTED).map((row) => make('tr', {}, ...columns.map((name, i) => make(i ? 'td' : 'th', {}, cell(row[name])))))))),
    ...(rows.length > LISTED ? [make('p', { class: 'muted' }, `The first ${count(LISTED)} of ${count(rows.length)} rows; the CSV has all.`)] : []));
  };
  for (const details of all('.rows')) details.addEventListener('toggle', () => { if (details.open) listRows(details.closest('figure')); });
  const sortable = (scope = document) => {
    for (const head of all('.sortable thead th', scope)) {
      const sort = make('button', { 'aria-label': 'sort by ' + head.textContent });
      head.append(sort);
      head.addEventListener('click', (event) => {
        if (event.target.closest('a')) return;
        const body = one('tbody', head.closest('table')), place = head.cellIndex, down = head.getAttribute('aria-sort') !== 'descending';
        for (const other of all('th', head.parentNode)) other.removeAttribute('aria-sort');
        head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
        const value = (row) => row.cells[place].dataset.value === undefined ? row.cells[place].textContent : Number(row.cells[place].dataset.value);
        const order = (a, b) => typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b), 'en', { numeric: true });
        const missing = (row) => value(row) === '–';
        body.append(...[...body.rows].sort((a, b) => missing(a) - missing(b) || (down ? -1 : 1) * order(value(a), value(b))));
      });
    }
  };
  sortable();

  // ---- downloads
  const light = (text) => text.replace(/var\(--(\w+)\)/g, (_, name) => about.light[name] ?? '#000');
  const save = (name, blob) => { const link = make('a', { href: URL.createObjectURL(blob), download: name }); link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 1000); };
  const drawn = async (figure) => light(await charts.get(figure).view.toSVG()).replace('<svg ', '<svg style="background:#fff" ');
  const picture = async (svg, scale = 2) => {
    const image = new Image();
    image.src = 'data:image/svg+xml;charset=utf-8,' + encodeURIComponent(svg);
    await image.decode();
    const canvas = make('canvas', { width: scale * image.width, height: scale * image.height }), pen = canvas.getContext('2d');
    pen.fillStyle = '#fff';
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, 'image/png'));
  };
  const csv = (name) => {
    const table = tables[name], names = Object.keys(table), quote = (value) => /[",\n]/.test(value ?? '') ? '"' + String(value).replaceAll('"', '""') + '"' : value ?? '';
    return [names, ...table[names[0]].map((_, i) => names.map((column) => table[column][i]))].map((row) => row.map(quote).join(',')).join('\n') + '\n';
  };
  for (const each of all('[data-save]')) each.addEventListener('click', async () => {
    const figure = each.closest('figure'), kind = each.dataset.save, { names } = charts.get(figure), name = figure.id.replace('chart-', '') + '.' + kind;
    if (kind === 'csv') save(name, new Blob([csv(names.includes('evaluations') ? 'evaluations' : names[0])], { type: 'text/csv' }));
    else if (kind === 'svg') save(name, new Blob([await drawn(figure)], { type: 'image/svg+xml' }));
    else save(name, await picture(await drawn(figure)));
  });

  // ---- galleries: word maps and samples
  const svg = (tag, attributes) => { const found = document.createElementNS('http://www.w3.org/2000/svg', tag); for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value); return found; };
  const marked = (phrase, word) => {
    const words = word.split(/[\s,/|]+/).filter((part) => part.length > 1).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    if (!words.length) return [phrase];
    return phrase.split(new RegExp('(?<!\\w)(' + words.join('|') + ')', 'i')).map((piece, i) => i % 2 ? make('mark', {}, piece) : piece);
  };
  const gallery = (host) => {
    const name = host.dataset.name, data = JSON.parse(one('script', host).textContent), input = one('[data-stop]', host), tiles = one('.tiles', host);
    const filters = Object.fromEntries(all('[data-filter]', host).map((each) => [each.dataset.filter, each]));
    const say = (cnr) => cnr === null || cnr === undefined ? '' : 'CNR ' + cnr.toFixed(2).replace('-', '−');
    const view = (card, uri, alt, empty) => {
      if (uri === null && card.base === null) return make('div', { class: 'absent' }, empty);
      const [w, h] = card.size, marks = svg('svg', { viewBox: `0 0 ${w} ${h}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
      if (card.mask !== null) marks.append(svg('image', { class: 'mask', filter: 'url(#outline)', href: data.pictures[card.mask], width: w, height: h, preserveAspectRatio: 'none' }));
      for (const [x, y, width, height] of card.boxes) for (const kind of ['roi halo', 'roi']) marks.append(svg('rect', { class: kind, x, y, width, height }));
      const layers = [card.base, uri].filter((place) => place !== null).map((place, i, found) => make('img', { src: data.pictures[place], alt: i === found.length - 1 ? alt : '', width: w, height: h }));
      return make('button', { class: 'xray', type: 'button' }, ...layers, marks);
    };
    const panels = (card, stop) => {
      const found = [];
      if (data.cards.some((each) => each.base !== null)) {
        const label = name === 'attention' ? 'X-ray' : 'real';
        found.push(make('div', {}, card.base === null ? make('div', { class: 'absent' }, `no ${label} image`) : view(card, null, label, ''), make('div', { class: 'note' }, label)));
      }
      data.runs.forEach(({ run, encoder }, i) => {
        let at = stop;
        while (at > 0 && !card.cells[i][at] && !data.cards.some((each) => each.cells[i][at])) at -= 1;  // not evaluated there: the evaluation before, and said
        const cell = card.cells[i][at], hit = cell?.hit === 1 ? 'hit' : cell?.hit === 0 ? 'miss' : '';
        const value = cell ? [say(cell.cnr), hit, at === stop ? '' : `at ${count(data.stops[at])}`].filter(Boolean).join(', ') : 'none';
        const plain = name === 'attention' ? card : { ...card, base: null, boxes: [], mask: null };
        const whose = data.runs.length > 1 ? [make('i', { class: 'dot ' + encoder }), run] : [name === 'attention' ? 'word map' : 'drawn'];
        const alt = name === 'attention' ? `${card.class}: map of the word ${card.word}, ${run}` : `drawn for: ${card.prompt}`;
        found.push(make('div', {}, cell ? view(plain, cell.picture, alt, '') : make('div', { class: 'absent' }, 'none'), make('div', { class: 'note' }, make('span', {}, ...whose), make('b', {}, value))));
      });
      return found;
    };
    const caption = (card) => make('figcaption', {}, ...(name === 'attention' ? [make('strong', {}, card.class || card.word), ...marked(card.phrase, card.word)] : [card.prompt || 'no prompt']), ' ', ...(card.key ? [make('code', {}, card.key)] : []));
    const cell = (card, i, stop) => card.cells[i][stop];
    if (filters.class) {
      for (const each of [...new Set(data.cards.map((card) => card.class))].sort()) filters.class.append(make('option', {}, each));
      const sides = data.runs.map(({ run }) => data.runs.length > 1 ? run + ': ' : '');
      sides.forEach((side, i) => ['hit', 'miss'].forEach((word, miss) => filters.outcome.append(make('option', { value: `${i}:${1 - miss}` }, side + word))));
      if (sides.length === 2) for (const [a, b] of [[0, 1], [1, 0]]) filters.outcome.append(make('option', { value: `${a}:1 ${b}:0` }, `${sides[a]}hit, ${sides[b]}miss`));
      sides.forEach((side, i) => [['CNR, greatest first', -1], ['CNR, least first', 1]].forEach(([word, way]) => filters.order.append(make('option', { value: `${i}:${way}` }, side + word))));
    }
    let visible = [];
    const draw = () => {
      const stop = Number(input.value), [text, outcome, order] = ['text', 'outcome', 'order'].map((each) => filters[each]?.value ?? '');
      const wanted = outcome.split(' ').filter(Boolean).map((part) => part.split(':').map(Number));
      visible = data.cards.filter((card) => (!filters.class?.value || card.class === filters.class.value)
        && (!text || `${card.word} ${card.phrase}`.toLowerCase().includes(text.toLowerCase())) && wanted.every(([i, hit]) => cell(card, i, stop)?.hit === hit));
      if (order) {
        const [i, way] = order.split(':').map(Number), value = (card) => cell(card, i, stop)?.cnr ?? null;
        visible.sort((a, b) => (value(a) === null) - (value(b) === null) || way * (value(a) - value(b)));
      }
      input.nextElementSibling.textContent = count(data.stops[stop]) + ' images';
      input.setAttribute('aria-valuetext', input.nextElementSibling.textContent);
      one('.count', host).textContent = `${visible.length} of ${data.cards.length} ${name === 'attention' ? 'phrases' : 'prompts'}, ${data.stops.length} evaluation${data.stops.length > 1 ? 's' : ''}`;
      tiles.replaceChildren(...visible.map((card, i) => {
        const tile = make('figure', { class: 'tile' }, make('div', { class: 'panels' }, ...panels(card, stop)), caption(card));
        for (const each of all('.xray', tile)) each.addEventListener('click', () => enlarge(i));
        return tile;
      }));
    };
    const box = document.getElementById('box');
    const enlarge = (i) => {
      const card = visible[i];
      if (!card) return;
      one('div', box).replaceChildren(make('div', { class: 'panels' }, ...panels(card, Number(input.value))), caption(card), make('p', { class: 'muted' }, `${i + 1} of ${visible.length}; arrow keys show the others.`));
      box.onkeydown = (event) => { const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]; if (step) enlarge(i + step); };
      if (!box.open) box.showModal();
    };
    tiles.classList.add('columns-' + (data.runs.length + 1));
    input.max = data.stops.length - 1;
    input.closest('label').hidden = data.stops.length < 2;
    input.value = state.has(name) ? Math.max(0, data.stops.indexOf(Number(state.get(name)))) : input.max;
    input.addEventListener('input', () => { remember(name, Number(input.value) === Number(input.max) ? null : data.stops[input.value]); draw(); });
    for (const [filter, each] of Object.entries(filters)) {
      each.value = state.get(filter) ?? '';
      each.addEventListener('input', () => { remember(filter, each.value); draw(); });
    }
    for (const each of all('[data-hides]', host)) each.addEventListener('change', () => document.body.classList.toggle('hide-' + each.dataset.hides, !each.checked));
    draw();
  };
  all('.gallery').forEach(gallery);

  // ---- begin; and begin again with other data (a dashboard calls this)
  const update = async (found) => {
    tables = { ...tables, ...found };
    if (slider) slide();
    await Promise.all([...charts.keys()].map((figure) => {
      const chart = charts.get(figure), { spec, names, fields } = specOf(figure);
      if (spec.layer.length !== chart.layers) return embed(figure);
      for (const name of names) chart.view.data(name, rowsOf(name, fields));
      return chart.view.runAsync();
    }));
  };
  const pending = new Map();  // figure -> its embedding: a chart is drawn when it comes near
  const come = (figure) => { if (!pending.has(figure)) pending.set(figure, embed(figure)); return pending.get(figure); };
  const observer = new IntersectionObserver((entries) => { for (const entry of entries) if (entry.isIntersecting) come(entry.target); }, { rootMargin: '300px' });
  all('.chart').forEach((figure) => observer.observe(figure));
  addEventListener('beforeprint', () => all('.chart').forEach(come));
  const ready = (everything) => Promise.all(all('.chart').slice(0, everything ? undefined : 1).map(come));
  if (split()[0]) document.getElementById(split()[0])?.scrollIntoView();
  const renew = (text) => {  // claims and tables, from the page as it would be written now
    const fresh = new DOMParser().parseFromString(text, 'text/html');
    for (const part of all('[data-fresh]')) {
      const next = one(`[data-fresh=${part.dataset.fresh}]`, fresh);
      if (next && next.innerHTML !== part.innerHTML) { part.replaceWith(next); sortable(next); }
    }
  };
  const runsOf = (found) => [...new Set(found.evaluations?.run ?? [])].join('\n');
  window.report = { ready, update, renew, charts, tables: () => tables, runsOf };
})();
