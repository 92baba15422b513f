"""The page's only script: theme, tooltips, tabs, sliders, hiding runs. Without it the page shows the newest of everything.

Its hash stands in the page's content security policy, so nothing that a file of a run brings along can run. Source: own.
"""

import base64
import hashlib

SCRIPT = r"""
(() => {
  'use strict';
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  const themes = ['auto', 'light', 'dark'];
  const button = document.getElementById('theme');
  const remember = (value) => {
    try {
      if (value !== null) localStorage.setItem('report-theme', value);
      return localStorage.getItem('report-theme');
    } catch { return value; }
  };
  const apply = (theme) => {
    if (theme === 'auto') root.removeAttribute('data-theme'); else root.setAttribute('data-theme', theme);
    button.textContent = 'Theme: ' + theme;
  };
  let theme = remember(null);
  if (!themes.includes(theme)) theme = 'auto';
  apply(theme);
  button.hidden = false;
  button.addEventListener('click', () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    remember(theme);
    apply(theme);
  });

  const tip = document.getElementById('tip');
  all('.chart title').forEach((title) => {
    title.parentNode.dataset.tip = title.textContent;
    title.parentNode.setAttribute('aria-label', title.textContent);
    title.remove();
  });
  document.addEventListener('pointerover', (event) => {
    const owner = event.target.closest ? event.target.closest('[data-tip]') : null;
    tip.hidden = !owner;
    if (!owner) return;
    tip.textContent = owner.dataset.tip;
    const place = owner.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const centre = owner.classList.contains('mark') ? place.left + place.width / 2 : event.clientX;
    const left = Math.min(Math.max(8, centre - size.width / 2), root.clientWidth - size.width - 8);
    const above = place.top - size.height - 10;
    tip.style.left = left + window.scrollX + 'px';
    tip.style.top = (above < 4 ? place.bottom + 10 : above) + window.scrollY + 'px';
  });

  all('.tabs').forEach((tabs) => {
    const buttons = all('[role=tab]', tabs);
    const choose = (chosen) => buttons.forEach((one) => {
      one.setAttribute('aria-selected', String(one === chosen));
      one.tabIndex = one === chosen ? 0 : -1;
      document.getElementById(one.getAttribute('aria-controls')).classList.toggle('off', one !== chosen);
    });
    buttons.forEach((one, place) => {
      one.addEventListener('click', () => choose(one));
      one.addEventListener('keydown', (event) => {
        const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!move) return;
        const next = buttons[(place + move + buttons.length) % buttons.length];
        choose(next);
        next.focus();
      });
    });
    if (buttons.length) choose(buttons[0]);
  });

  all('.gallery').forEach((gallery) => {
    const slider = gallery.querySelector('input[type=range]');
    if (!slider) return;
    const data = JSON.parse(gallery.querySelector('script').textContent);
    const stops = JSON.parse(slider.dataset.stops);
    const cells = all('[data-cell]', gallery).map((cell) => {
      const one = data[Number(cell.dataset.cell)], image = cell.querySelector('.frame');
      const inPage = image.getAttribute('href');
      return { image, value: cell.querySelector('.value'), uris: one.uris.map((uri) => uri || inPage), at: one.at };
    });
    const show = () => {
      const position = Number(slider.value);
      gallery.querySelector('.at').textContent = stops[position];
      slider.setAttribute('aria-valuetext', stops[position]);
      cells.forEach((cell) => {
        const frame = cell.at[position];
        if (frame) { cell.image.setAttribute('href', cell.uris[frame[0]]); cell.image.removeAttribute('hidden'); }
        else cell.image.setAttribute('hidden', '');
        cell.value.textContent = frame ? frame[1] : 'none';
      });
    };
    slider.addEventListener('input', show);
    show();
  });

  all('[data-hides]').forEach((box) => {
    const set = () => box.closest('section').classList.toggle('hide-' + box.dataset.hides, !box.checked);
    box.addEventListener('change', set);
    set();
  });

  all('.legend button').forEach((one) => one.addEventListener('click', () => {
    const on = one.getAttribute('aria-pressed') !== 'true';
    one.setAttribute('aria-pressed', String(on));
    all('main .' + one.dataset.run).forEach((part) => part.classList.toggle('off', !on));
  }));
})();
"""

#: source expression for the content security policy
SCRIPT_HASH = "'sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode() + "'"
