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
  const stored = (value) => {
    try { if (value) localStorage.setItem('report-theme', value); return localStorage.getItem('report-theme'); } catch { return value; }
  };
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
  const chosen = (name, allowed) => allowed.includes(state.get(name)) ? state.get(name) : about[name];
  const look = { distance: chosen('x', about.distances), cnr: chosen('y', about.groundings) };
  const hidden = new Set(state.getAll('hide'));
  const runs = all('[data-run]').map((each) => each.dataset.run);
  const charts = new Map();  // figure -> {view, names, fields}
  let until = state.has('until') ? Number(state.get('until')) : null;

  const rowsOf = (name, fields = {}) => {
    const table = { ...(tables[name] ?? {}) };
    for (const [alias, key] of Object.entries(fields))
      for (const [a, b] of [['', ''], ['_low', ' low'], ['_high', ' high']]) {
        delete table[alias + a];
        if (table[key + b]) table[alias + a] = table[key + b];
      }
    const names = Object.keys(table);
    return (table[names[0]] ?? []).map((_, i) => Object.fromEntries(names.map((column) => [column, table[column][i]])));
  };
  const shown = () => hidden.size ? runs.filter((run) => !hidden.has(run)) : null;
  const named = runs.length === 0 ? 'images' : runs.length < 5 ? 'run' : '';
  const signals = () => ({ shown: shown(), until, named, quiet: !hidden.size && (tables.means.run ?? []).length > 0 });
  const fieldsOf = (figure) => figure.dataset.chart === 'tradeoff' ? look : JSON.parse(figure.dataset.fields);
  const scaled = (part, fields) => {  // a distance that spans much gets a logarithmic axis
    if (Array.isArray(part)) part.forEach((each) => scaled(each, fields));
    else if (part && typeof part === 'object') {
      const key = typeof part.field === 'string' && fields[part.field.replace(/_(low|high)$/, '')];
      if (part.scale && about.keys[key]?.log) {
        part.scale = { ...part.scale, type: 'log', nice: false, zero: undefined };
        part.axis = { ...part.axis, grid: false };
      }
      Object.values(part).forEach((each) => scaled(each, fields));
    }
    return part;
  };
  const titleOf = ({ label, log }, narrow) => (narrow ? label.split(',')[0] : label) + (log ? ', log scale' : '');
  const specOf = (figure) => {
    const fields = fieldsOf(figure), narrow = one('.plot', figure).clientWidth < 500;
    let text = JSON.stringify(about.specs[figure.dataset.chart]);
    for (const [alias, key] of Object.entries(fields))
      text = text.replaceAll('${string:' + alias + '}', JSON.stringify(titleOf(about.keys[key], narrow)).slice(1, -1));
    const spec = scaled(JSON.parse(text), fields);
    const names = [...new Set([...text.matchAll(/"data":\{"name":"(\w+)"\}/g)].map((match) => match[1]))];
    spec.datasets = Object.fromEntries(names.map((name) => [name, rowsOf(name, fields)]));
    if (narrow) spec.config.legend.layout = { top: { direction: 'vertical' } };
    const drawn = (layer) => {  // an empty layer would make the axes endless
      const known = [...JSON.stringify(layer).matchAll(/isValid\(datum\.(\w+)\)/g)].map((match) => match[1]);
      return spec.datasets[(layer.data ?? spec.data).name].some((row) => known.every((name) => (row[name] ?? null) !== null));
    };
    spec.layer = spec.layer.filter((layer) => drawn(layer) && (named || layer.encoding.text?.field !== 'said'));
    for (const param of spec.params) if (param.name in signals()) param.value = signals()[param.name];
    return { spec, fields, names: [...new Set(spec.layer.map((layer) => (layer.data ?? spec.data).name))] };
  };
  const linked = (view) => {
    try {
      view.addSignalListener('brush', (_, found) => set({ lo: found.images?.[0] ?? null, hi: found.images?.[1] ?? null }));
    } catch { /* no brush in this chart */ }
  };
  // an interpreter instead of eval, and no style of its own: the page's policy allows neither
  const HOW = { renderer: 'svg', ast: true, actions: false, defaultStyle: false, tooltip: { disableDefaultStyle: true } };
  const embed = async (figure) => {
    const { spec, names, fields } = specOf(figure), plot = one('.plot', figure);
    if (one('.rows', figure).open) listRows(figure);
    try {
      const { view } = await vegaEmbed(plot, spec, HOW);
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
  const members = (group) => all('[data-run]').filter((each) => !group || each.dataset.encoder === group).map((each) => each.dataset.run);
  const press = (each, on) => each.setAttribute('aria-pressed', String(on));
  const legend = () => {
    for (const each of all('[data-run]')) press(each, !hidden.has(each.dataset.run));
    for (const each of all('[data-group]')) press(each, !members(each.dataset.group).some((run) => hidden.has(run)));
  };
  const toggle = (names, show) => {
    for (const name of names) if (show) hidden.delete(name); else hidden.add(name);
    state.delete('hide');
    for (const name of hidden) state.append('hide', name);
    remember('', null);
    legend();
    return set(signals());
  };
  for (const each of all('[data-run], [data-group]')) each.addEventListener('click', () =>
    toggle('run' in each.dataset ? [each.dataset.run] : members(each.dataset.group), each.getAttribute('aria-pressed') !== 'true'));
  document.getElementById('find')?.addEventListener('input', (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const each of all('[data-run]')) each.hidden = !each.dataset.run.toLowerCase().includes(wanted);
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
    const { spec, fields } = specOf(figure), details = one('.rows', figure), keep = Object.keys(fields);
    const rows = spec.datasets.evaluations ?? Object.values(spec.datasets)[0];
    const left = ['step', 'kind', 'sweep', 'order', ...(keep.length ? ['distance', 'cnr'].filter((name) => !keep.includes(name)) : [])];
    const columns = Object.keys(rows[0] ?? {}).filter((name) => !name.includes('/') && !left.includes(name));
    const cell = (value) => typeof value === 'number' && Math.abs(value) >= 1000 ? count(value) : String(value ?? '–');
    const head = columns.map((name) => make('th', { scope: 'col' }, about.keys[fields[name]]?.label ?? name));
    const body = rows.slice(0, LISTED).map((row) => make('tr', {}, ...columns.map((name, i) => make(i ? 'td' : 'th', {}, cell(row[name])))));
    const table = make('table', {}, make('thead', {}, make('tr', {}, ...head)), make('tbody', {}, ...body));
    const more = rows.length > LISTED ? `The first ${count(LISTED)} of ${count(rows.length)} rows; the CSV has all.` : '';
    details.replaceChildren(one('summary', details), make('div', { class: 'scroll' }, table), make('p', { class: 'muted' }, more));
  };
  for (const details of all('.rows')) details.addEventListener('toggle', () => { if (details.open) listRows(details.closest('figure')); });
  const sortable = (scope = document) => {
    for (const head of all('.sortable thead th', scope)) {
      const sort = make('button', { 'aria-label': 'sort by ' + head.textContent });
      head.append(sort);
      head.addEventListener('click', (event) => {
        if (event.target.closest('a')) return;
        const body = one('tbody', head.closest('table')), down = head.getAttribute('aria-sort') !== 'descending';
        for (const other of all('th', head.parentNode)) other.removeAttribute('aria-sort');
        head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
        const value = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
        const order = (a, b) => Number(a) - Number(b) || String(a).localeCompare(String(b), 'en', { numeric: true });
        const missing = (row) => value(row) === '–';
        body.append(...[...body.rows].sort((a, b) => missing(a) - missing(b) || (down ? -1 : 1) * order(value(a), value(b))));
      });
    }
  };
  sortable();

  // ---- downloads
  const light = (text) => text.replace(/var\(--(\w+)\)/g, (_, name) => about.light[name] ?? '#000');
  const save = (name, blob) => {
    const link = make('a', { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
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
    const quote = (value) => /[",\n]/.test(value ?? '') ? '"' + String(value).replaceAll('"', '""') + '"' : value ?? '';
    const rows = [Object.keys(tables[name]), ...rowsOf(name).map(Object.values)];
    return rows.map((row) => row.map(quote).join(',')).join('\n') + '\n';
  };
  for (const each of all('[data-save]')) each.addEventListener('click', async () => {
    const figure = each.closest('figure'), kind = each.dataset.save, name = figure.id.replace('chart-', '') + '.' + kind;
    await come(figure);
    const { names } = charts.get(figure);
    if (kind === 'csv') save(name, new Blob([csv(names.includes('evaluations') ? 'evaluations' : names[0])], { type: 'text/csv' }));
    else if (kind === 'svg') save(name, new Blob([await drawn(figure)], { type: 'image/svg+xml' }));
    else save(name, await picture(await drawn(figure)));
  });

  all('.gallery').forEach((host) => window.gallery(host, { all, one, make, count, state, remember }));

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
  const near = (entries) => { for (const entry of entries) if (entry.isIntersecting) come(entry.target); };
  const observer = new IntersectionObserver(near, { rootMargin: '300px' });
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
