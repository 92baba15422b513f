// The page follows the runs: charts and tables at once; pictures and new runs when nobody is reading. Source: own.
(() => {
  'use strict';
  const RESTING = 20000;  // ms without a touch after which nobody is interrupted
  const line = document.createElement('p'), words = document.createElement('span'), again = document.createElement('button');
  line.className = 'live';
  line.setAttribute('role', 'status');
  again.type = 'button';
  again.hidden = true;
  again.textContent = 'Show its pictures';
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
  let touched = -RESTING, busy = false, waiting = false;
  for (const kind of ['pointerdown', 'keydown', 'wheel', 'touchmove']) addEventListener(kind, () => { touched = performance.now(); }, { passive: true });

  const follow = async () => {
    if (busy) { waiting = true; return; }
    busy = true;
    try {
      do {
        waiting = false;
        const answer = await fetch(location.pathname + '?data');
        if (!answer.ok) { say('This run is no longer there.'); return; }
        const found = await answer.json(), had = window.report?.tables();
        if (!had) { location.reload(); return; }
        const more = window.report.runsOf(found) !== window.report.runsOf(had) || size(found) !== size(had);
        await window.report.update(found);
        say('Live, last change at ' + now() + '.');
        if (!more) continue;
        window.report.renew(await (await fetch(location.pathname)).text());
        if (!document.querySelector('dialog[open]') && performance.now() - touched > RESTING) location.reload();  // the address keeps what was chosen
        else { say('A new evaluation came at ' + now() + '.'); again.hidden = false; }
      } while (waiting);
    } finally { busy = false; }
  };
  const start = () => {
    const events = new EventSource('/events');
    events.addEventListener('open', () => { if (!words.textContent.startsWith('Live, last')) say('Live: this page follows the runs.'); });
    events.addEventListener('error', () => say('The dashboard does not answer; this page stays as it was.'));
    events.addEventListener('changed', follow);
  };
  if (window.report) window.report.ready().then(start); else start();
})();
