// A picture and a phrase for the models of this dashboard; what comes back is put in as text and pictures. Source: own.
(() => {
  'use strict';
  const one = (selector) => document.querySelector(selector);
  const make = (tag, attributes = {}, ...children) => {
    const found = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
    found.append(...children);
    return found;
  };
  const form = one('form'), input = one('#picture'), drop = one('#drop'), phrase = one('#phrase'), state = one('#state'), found = one('#answers');
  let picture = null;
  const take = (file) => {
    if (!file) return;
    picture = file;
    one('#name').textContent = file.name;
  };
  input.addEventListener('change', () => take(input.files[0]));
  for (const kind of ['dragover', 'drop']) addEventListener(kind, (event) => event.preventDefault());
  drop.addEventListener('dragover', () => drop.classList.add('over'));
  drop.addEventListener('dragleave', () => drop.classList.remove('over'));
  drop.addEventListener('drop', (event) => { drop.classList.remove('over'); take(event.dataTransfer.files[0]); });

  const shown = (uri, title, alt) => make('figure', { class: 'tile' }, make('img', { src: uri, alt }), make('figcaption', {}, title));
  const alike = (value) => value === null ? 'a map of one value' : `alike to the phrase's map: r = ${value.toFixed(2).replace('-', '−')}`;
  const row = (answer) => make('section', {},
    make('h2', {}, answer.model),
    make('div', { class: 'maps' }, shown(answer.phrase, make('strong', {}, 'what the phrase names'), `${answer.model}: map of the phrase`),
      ...answer.words.map(({ word, picture: uri }) => shown(uri, word, `${answer.model}: map of the word ${word}`))),
    make('h3', {}, 'Control: asked for what the phrase does not name'),
    make('p', { class: 'how' }, 'If a finding that nobody mentioned gives the same map, the map hangs on the picture, not on the word.'),
    make('div', { class: 'maps' }, ...answer.absent.map(({ finding, picture: uri, alike: value }) =>
      shown(uri, make('span', {}, make('strong', {}, finding), alike(value)), `${answer.model}: map of ${finding}`))));
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (!picture) { state.textContent = 'Choose a picture first.'; return; }
    const begun = performance.now(), button = one('form button');
    button.disabled = true;
    const clock = setInterval(() => { state.textContent = `Asking, ${Math.round((performance.now() - begun) / 1000)} s …`; }, 1000);
    state.textContent = 'Asking …';
    try {
      const answer = await fetch('/try?phrase=' + encodeURIComponent(phrase.value), { method: 'POST', headers: { 'Content-Type': 'application/octet-stream' }, body: picture });
      const said = await answer.json();
      if (answer.ok) found.replaceChildren(...said.map(row));
      state.textContent = answer.ok ? `“${phrase.value}” asked of ${said.length} model${said.length > 1 ? 's' : ''} in ${((performance.now() - begun) / 1000).toFixed(1)} s.` : said.problem;
    } catch { state.textContent = 'The dashboard does not answer.'; } finally { clearInterval(clock); button.disabled = false; }
  });
})();
