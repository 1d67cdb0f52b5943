// What the page sends is a drawing, a class and the player's name and code; what it shows is what the server found out.
const at = (name) => element.querySelector(`[data-is=${name}]`);
const make = (tag, text, kind) => { const node = document.createElement(tag); if (text !== undefined) node.textContent = text; if (kind) node.className = kind; return node; };
const base = new URL('play/', document.baseURI);
const KEEP = 'dadc-play';
const ink = at('ink'), where = at('where'), brush = ink.getContext('2d', { willReadFrequently: true });
let config = null, strokes = [], line = null, drawing = fresh(), began = 0, newest = 0, given = null, meant = null, sending = false, sent = false;
let pen = null;  // of the keyboard: { x, y, down }
let player = null;
try { player = JSON.parse(localStorage.getItem(KEEP)); } catch { /* a page in a frame may keep nothing */ }

function fresh() { return Math.random().toString(36).slice(2, 12) + Date.now().toString(36); }

async function ask(path, options = {}) {
  const headers = player ? { 'X-Player': encodeURIComponent(`${player.name}:${player.code}`) } : {};
  let answer;
  try { answer = await fetch(new URL(path, base), { ...options, headers: { ...headers, ...options.headers }, signal: AbortSignal.timeout(60000) }); }
  catch { throw new Error('The page cannot reach its server. What you drew is still here; try again in a moment.'); }
  let told = {};
  try { told = await answer.json(); } catch { /* said below */ }
  if (!answer.ok) throw new Error(typeof told.detail === 'string' ? told.detail : `The server refused (${answer.status}).`);
  return told;
}

function say(text, kind = '') { at('note').textContent = text; at('note').className = `note ${kind}`; }

// Drawing -------------------------------------------------------------------------------------------------------------
function place(event) {
  const box = ink.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * ink.width, (event.clientY - box.top) / box.height * ink.height];
}

function paint() {
  brush.clearRect(0, 0, ink.width, ink.height);
  brush.lineCap = brush.lineJoin = 'round';
  brush.strokeStyle = brush.fillStyle = '#fff';
  for (const stroke of line ? [...strokes, line] : strokes) {
    brush.lineWidth = stroke.width;
    brush.beginPath();
    brush.moveTo(...stroke.points[0]);
    for (const point of stroke.points) brush.lineTo(...point);
    brush.stroke();
  }
  at('hint').hidden = strokes.length > 0 || line !== null;
}

function width() { return Number(at('width').value) * ink.width / 280; }
function start(point) { line = { width: width(), points: [point] }; began = began || performance.now(); paint(); }
function end() { if (!line) return; strokes.push(line); line = null; sent = false; paint(); answer(); }

ink.addEventListener('pointerdown', (event) => { if (!config || event.button) return; ink.setPointerCapture(event.pointerId); start(place(event)); event.preventDefault(); ink.focus({ preventScroll: true }); hidePen(); });
ink.addEventListener('pointermove', (event) => { if (!line || pen?.down) return; for (const each of event.getCoalescedEvents?.() ?? [event]) line.points.push(place(each)); paint(); });
for (const kind of ['pointerup', 'pointercancel']) ink.addEventListener(kind, () => { if (!pen?.down) end(); });

function undo() { if (!strokes.length || sending) return; strokes.pop(); sent = false; paint(); strokes.length ? answer() : blank(); }
function clear() { if (sending) return; strokes = []; line = null; if (pen) pen.down = false; drawing = fresh(); began = 0; sent = false; choose(null); paint(); blank(); say(''); showPen(); }
function blank() { newest += 1; given = null; show(); }

// Asking --------------------------------------------------------------------------------------------------------------
const picture = () => new Promise((done) => ink.toBlob(done, 'image/png'));

async function answer() {
  const mine = ++newest, started = performance.now();
  try {
    const body = await picture();
    const told = await ask(`answer?drawing=${drawing}&where=${at('look').checked ? 1 : 0}`, { method: 'POST', body });
    if (mine !== newest) return;
    given = told;
    element.dataset.answered = Math.round(performance.now() - started);
    show();
  } catch (error) { if (mine === newest) { given = null; show(); at('says').textContent = error.message; } }
}

function show() {
  const fooled = given && meant !== null && given.answer !== meant;
  at('says').className = `says${fooled ? ' fooled' : ''}`;
  at('says').textContent = !given ? 'The model waits for a stroke.'
    : `Model says ${config.classes[given.answer]} (${Math.round(100 * given.probabilities[given.answer])}%)${fooled ? ': fooled!' : meant === given.answer ? ': right' : ''}`;
  [...at('bars').children].forEach((row, index) => {
    const share = given ? given.probabilities[index] : 0;
    row.className = [given && index === given.answer && (fooled ? 'top wrong' : 'top'), index === meant && 'meant'].filter(Boolean).join(' ');
    row.querySelector('u').style.width = `${100 * share}%`;
    row.lastChild.textContent = given ? `${Math.round(100 * share)}%` : '';
  });
  at('flag').disabled = !fooled || sending || sent || !config.round;
  const brush = where.getContext('2d'), map = at('look').checked && given && given.where;
  where.width = where.height = map ? map.length : 1;
  if (!map) return;
  const pixels = brush.createImageData(map.length, map.length);
  map.flat().forEach((value, index) => pixels.data.set([255, 90 + value * .55, 40, value * value / 300], 4 * index));
  brush.putImageData(pixels, 0, 0);
}

function choose(index) {  // null: nothing is chosen, as for a new drawing
  meant = index;
  at('classes').querySelectorAll('input').forEach((radio, each) => { radio.checked = each === index; });
  if (config) show();
}

async function flag() {
  if (at('flag').disabled) return;
  if (!player) { say('Say your name first: then it counts as yours.', 'bad'); at('name').focus(); return; }
  sending = true; show(); say('Sending …');
  try {
    const body = await picture(), seconds = Math.min(3600, (performance.now() - began) / 1000).toFixed(1);
    const told = await ask(`flag?meant=${meant}&seconds=${seconds}`, { method: 'POST', body });
    sent = true;
    say(`${told.text} Clear and try another.`, 'good');
    setTimeout(() => state(true), 1500);
  } catch (error) { say(error.message, 'bad'); }
  sending = false; show();
}

// What is known ---------------------------------------------------------------------------------------------------------
async function state(again = false) {
  if (again) setTimeout(state, 3000);  // by then the server has looked
  let told;
  try { told = await ask(`state${again ? '?fresh=1' : ''}`); } catch (error) { at('fault').hidden = false; at('fault').textContent = error.message; return; }
  if (!config || config.model !== told.model || config.round !== told.round) begin(told);
  at('fault').hidden = !(told.fault || !told.round);
  at('fault').textContent = told.fault || 'No round is open now: you can draw and ask, and flag when the next one opens.';
  at('model').textContent = `The model was trained in round ${told.model}.`;
  if (!told.ready) { setTimeout(state, 1500); return; }
  at('wanted').textContent = told.round ? told.wanted : '–';
  at('goal').textContent = told.wanted || !told.round ? 'verified fools wanted until the next training' : 'more wanted: enough for a training';
  at('progress').style.width = told.enough ? `${100 * Math.min(1, told.verified / told.enough)}%` : '0';
  at('gallery').replaceChildren(...told.gallery.map((each) => fool(each, each.by)));
  at('nothing').hidden = told.gallery.length > 0;
  at('placesection').hidden = !told.places.length;
  at('places').replaceChildren(...told.places.map((each) => {
    const row = make('tr', undefined, told.me && each.name === told.me.name.toLowerCase() ? 'own' : '');
    row.append(...[each.place, each.name, each.fools, each.verified].map((value) => make('td', value)));
    return row;
  }));
  at('join').hidden = Boolean(told.me);
  at('mine').hidden = !told.me;
  if (!told.me) return;
  at('who').textContent = told.me.name;
  at('mycode').textContent = player.code;
  const figures = { tries: told.me.tries, fools: told.me.fools, verified: told.me.verified, 'healed since': told.me.healed, place: told.me.fools ? told.me.place : '–' };
  at('figures').replaceChildren(...Object.entries(figures).map(([name, value]) => { const pair = make('div'); pair.append(make('dt', name), make('dd', value)); return pair; }));
  at('own').replaceChildren(...told.me.own.map((each) => fool(each, null, each.state)));
}

function fool(each, by, state) {
  const whole = make('figure'), image = make('img'), words = make('figcaption');
  image.src = each.image;
  image.alt = `a ${each.meant} that the model took for ${each.answer}`;
  words.append(make('b', each.meant), ` read as `, make('b', each.answer), make('br'));
  words.append(state ? make('span', state, `tag ${state.replace(' ', '-')}`) : `by ${by}, round ${each.round}`);
  whole.append(image, words);
  return whole;
}

function begin(told) {
  config = told;
  if (ink.width !== told.canvas) { ink.width = ink.height = told.canvas; strokes = []; }
  at('bars').replaceChildren(...told.classes.map((name) => {
    const row = make('div'), bar = make('i');
    bar.append(make('u'));
    row.append(make('span', name), bar, make('span'));
    return row;
  }));
  at('classes').replaceChildren(...told.classes.map((name, index) => {
    const label = make('label'), radio = make('input');
    radio.type = 'radio'; radio.name = 'meant'; radio.checked = index === meant;
    radio.addEventListener('change', () => choose(index));
    label.addEventListener('pointerup', () => choose(index));  // now and then a phone makes no click of a tap
    label.append(radio, name);
    return label;
  }));
  paint(); show();
  if (strokes.length) answer();
}

// Keys ----------------------------------------------------------------------------------------------------------------
function hidePen() { pen = null; at('pen').style.display = 'none'; }
function showPen() {
  if (!pen) return;
  const share = (value) => `${100 * value / ink.width}%`;
  Object.assign(at('pen').style, { display: 'block', left: share(pen.x), top: share(pen.y), width: share(width()), height: share(width()) });
  at('pen').className = pen.down ? 'down' : '';
}
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
ink.addEventListener('keydown', (event) => {
  if (!config || !(event.key in MOVES || event.key === ' ')) return;
  event.preventDefault();
  pen = pen || { x: ink.width / 2, y: ink.height / 4, down: false };
  if (event.key === ' ') {
    pen.down = !pen.down;
    pen.down ? start([pen.x, pen.y]) : end();
  } else {
    const [x, y] = MOVES[event.key], step = ink.width / (event.shiftKey ? 70 : 28);
    pen.x = Math.min(ink.width, Math.max(0, pen.x + x * step));
    pen.y = Math.min(ink.height, Math.max(0, pen.y + y * step));
    if (pen.down) { line.points.push([pen.x, pen.y]); paint(); }
  }
  showPen();
});

document.addEventListener('keydown', (event) => {
  if (!config || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.('input:not([type=radio]):not([type=checkbox]):not([type=range])')) return;
  const key = event.key.toLowerCase();
  const named = config.classes.findIndex((name) => config.keys[name] === key);
  const numbered = Object.keys(config.keys).length ? -1 : '123456789'.indexOf(key);
  if (named >= 0) choose(named);
  else if (numbered >= 0 && numbered < config.classes.length) choose(numbered);
  else if (key === 'enter' && event.target.tagName !== 'BUTTON') flag();
  else if (key === 'escape') clear();
  else if (key === 'z') undo();
  else if (key === 'l') { at('look').checked = !at('look').checked; look(); }
  else return;
  event.preventDefault();
});

function look() { strokes.length && at('look').checked ? answer() : show(); }
at('look').addEventListener('change', look);
at('undo').addEventListener('click', undo);
at('clear').addEventListener('click', clear);
at('flag').addEventListener('click', flag);
at('join').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    const told = await ask('join', { method: 'POST', body: JSON.stringify({ name: at('name').value.trim(), code: at('code').value.trim() }) });
    player = { name: told.name, code: told.code };
    try { localStorage.setItem(KEEP, JSON.stringify(player)); } catch { /* the code is on the page */ }
    say(`Hello ${told.name}.`, 'good');
    if (strokes.length) answer();
    state(true);
  } catch (error) { say(error.message, 'bad'); at('note').scrollIntoView({ block: 'nearest' }); }
});
state(true);
setInterval(() => { if (!document.hidden) state(); }, 20000);
