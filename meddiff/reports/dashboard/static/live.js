// The page follows the runs: charts at once; tables and pictures when a new evaluation has come, unless somebody is reading. Source: own.
(() => {
  'use strict';
  const RESTING = 20000;  // ms without a touch after which nobody is interrupted
  const line = document.createElement('p'), words = document.createElement('span'), again = document.createElement('button');
  line.className = 'live';
  line.setAttribute('role', 'status');
  again.type = 'button';
  again.hidden = true;
  again.textContent = 'Show its tables and pictures';
  again.addEventListener('click', () => location.reload());
  line.append(words, ' ', again);
  if (document.body.dataset.live === 'asks') {
    const link = document.createElement('a');
    link.href = '/try';
    link.textContent = 'Ask a model about a picture';
    line.append(' ', link);
  }
  document.querySelector('header').append(line);
  const say = (text) => { words.textContent = text; };
  const now = () => new Date().toLocaleTimeString('en', { hour12: false });
  const size = (tables) => (tables.evaluations?.images ?? []).length;
  let touched = -RESTING, evaluations = null, busy = false, waiting = false;
  for (const kind of ['pointerdown', 'keydown', 'wheel', 'touchmove']) addEventListener(kind, () => { touched = performance.now(); }, { passive: true });

  const follow = async () => {
    if (busy) { waiting = true; return; }
    busy = true;
    try {
      do {
        waiting = false;
        const answer = await fetch(location.pathname + '?data');
        if (!answer.ok) { say('This run is no longer there.'); return; }
        const tables = await answer.json(), before = evaluations;
        evaluations = size(tables);
        if (window.report) await window.report.update(tables);
        say('Live, last change at ' + now() + '.');
        if (!window.report || (before !== null && evaluations !== before)) {
          if (!window.report || (!document.querySelector('dialog[open]') && performance.now() - touched > RESTING)) location.reload();
          else { say('A new evaluation came at ' + now() + '; charts show it.'); again.hidden = false; }
        }
      } while (waiting);
    } finally { busy = false; }
  };
  const start = () => {
    evaluations = window.report ? size(JSON.parse(document.getElementById('data').textContent)) : null;
    const events = new EventSource('/events');
    events.addEventListener('open', () => { if (!words.textContent.startsWith('Live, last')) say('Live: this page follows the runs.'); });
    events.addEventListener('error', () => say('The dashboard does not answer; this page stays as it was.'));
    events.addEventListener('changed', follow);
  };
  if (window.report) Promise.resolve(window.report.ready()).then(start); else start();
})();
