// The script of run_page.h, as it stands in the page: switches that show and hide runs, charts rescaled to what is
// shown, values under the pointer. Without it the page is whole, with all runs.
#pragma once

namespace llmc {

inline constexpr const char* kRunPageScript = R"js(
'use strict';
const tip = document.getElementById('tip');
const names = [...document.querySelectorAll('.card h2 label')].map(label => label.textContent.trim());
const hidden = new Set();
const kCurveHeight = 9999;

// As page_axis.h.
function roundStep(value) {
  const power = Math.pow(10, Math.floor(Math.log10(value)));
  return ([1, 2, 5].find(factor => factor * power >= value * (1 - 1e-9)) || 10) * power;
}
function ticks(first, last, step) {
  return Array.from({length: last - first + 1}, (_, i) => (first + i) * step);
}
function linearAxis(low, high) {
  const size = Math.max(Math.abs(low), Math.abs(high));
  const room = high - low > 1e-9 * size ? 0 : size === 0 ? 1 : 0.1 * size;
  const step = roundStep((high - low + 2 * room) / 5);
  return ticks(Math.floor((low - room) / step + 1e-9), Math.ceil((high + room) / step - 1e-9), step);
}
function logarithmicAxis(low, high) {
  const at = index => Math.floor(index / 3) + Math.log10([1, 2, 5][index - 3 * Math.floor(index / 3)]);
  for (let stride = 1; ; stride += stride === 1 ? 2 : 3) {
    let first = stride * (Math.floor(3 * low / stride) - 1);
    while (at(first + stride) <= low + 1e-9) first += stride;
    const found = [at(first), at(first + stride)];
    while (found[found.length - 1] < high - 1e-9) found.push(at(first + stride * found.length));
    if (found.length <= 7) return found;
  }
}
function tickWords(value) {
  const size = Math.abs(value);
  const [unit, letter] = [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']].find(([unit]) => size >= unit && size < 1e15) || [1, ''];
  return +(value / unit).toPrecision(6) + letter;
}
function valueWords(value) {
  const size = Math.abs(value);
  if (size >= 1e5) return Math.round(value).toLocaleString('en');
  return value !== 0 && size < 1e-3 ? value.toExponential(2) : String(+value.toPrecision(5));
}

const points = new WeakMap();
function pointsOf(path) {
  if (!points.has(path)) {
    points.set(path, path.getAttribute('d').match(/[^ML]+/g).map(point => point.split(' ').map(Number)));
  }
  return points.get(path);
}
function nearest(list, x) {
  let low = 0, high = list.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle][0] < x) low = middle; else high = middle;
  }
  return Math.abs(list[low][0] - x) <= Math.abs(list[high][0] - x) ? list[low] : list[high];
}

class Chart {
  constructor(svg) {
    this.svg = svg;
    for (const name of ['left', 'right', 'top', 'bottom']) this[name] = Number(svg.dataset[name]);
    this.isLog = svg.dataset.log === '1';
    this.curves = [...svg.querySelectorAll('.run')].map(group => {
      const n = name => Number(group.dataset[name]);
      return {group, run: group.dataset.run, first: n('first'), last: n('last'), low: n('low'), high: n('high'),
        span: n('high') - n('low') || 1, isLevel: group.classList.contains('dashed'), words: group.dataset.words};
    });
    this.cursor = svg.querySelector('.cursor');
    this.measure();
    svg.addEventListener('pointerleave', () => this.leave());
    for (const event of ['pointermove', 'pointerdown']) svg.addEventListener(event, event => this.read(event));
  }
  measure() {
    this.shown = this.curves.filter(curve => !hidden.has(curve.run));
    this.svg.classList.toggle('empty', this.shown.length === 0);
    if (this.shown.length === 0) return;
    const least = name => Math.min(...this.shown.map(curve => curve[name]));
    const most = name => Math.max(...this.shown.map(curve => curve[name]));
    this.x0 = least('first'), this.x1 = most('last');
    if (this.x0 === this.x1) this.x0 -= 1, this.x1 += 1;
    this.ticks = (this.isLog ? logarithmicAxis : linearAxis)(least('low'), most('high'));
    this.y0 = this.ticks[0], this.y1 = this.ticks[this.ticks.length - 1];
  }
  x(step) { return this.left + (this.right - this.left) * (step - this.x0) / (this.x1 - this.x0); }
  y(scaled) { return this.bottom - (this.bottom - this.top) * (scaled - this.y0) / (this.y1 - this.y0); }
  value(curve, height) {
    const scaled = curve.low + height / kCurveHeight * curve.span;
    return this.isLog ? Math.pow(10, scaled) : scaled;
  }
  rescale() {
    this.measure();
    this.leave();
    if (this.shown.length === 0) return;
    for (const curve of this.shown) {
      const scale = (this.y(curve.span) - this.y(0)) / kCurveHeight;
      curve.group.setAttribute('transform',
        `matrix(${this.x(1) - this.x(0)} 0 0 ${scale} ${this.x(0)} ${this.y(curve.low)})`);
    }
    const rows = this.ticks.map(tick => {
      const y = this.y(tick).toFixed(1), words = tickWords(this.isLog ? Math.pow(10, tick) : tick);
      return `<line x1="${this.left}" x2="${this.right}" y1="${y}" y2="${y}"/>` +
        `<text x="${this.left - 6}" y="${+y + 4}" text-anchor="end">${words}</text>`;
    });
    const step = roundStep((this.x1 - this.x0) / 6), width = this.svg.viewBox.baseVal.width;
    const columns = ticks(Math.ceil(this.x0 / step - 1e-9), Math.floor(this.x1 / step + 1e-9), step).map(tick => {
      const isAtEdge = this.x(tick) > this.right - 20;
      return `<text x="${isAtEdge ? width : this.x(tick).toFixed(1)}" y="${this.bottom + 18}" ` +
        `text-anchor="${isAtEdge ? 'end' : 'middle'}">${tickWords(tick)}</text>`;
    });
    this.svg.querySelector('.axes').innerHTML = rows.concat(columns).join('');
  }
  leave() {
    tip.hidden = true;
    this.cursor.style.visibility = 'hidden';
  }
  read(event) {
    const box = this.svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * this.svg.viewBox.baseVal.width / box.width;
    if (this.shown.length === 0 || x < this.left || x > this.right) return this.leave();
    const pointed = this.x0 + (x - this.left) / (this.right - this.left) * (this.x1 - this.x0);
    const lines = this.shown.map(curve => {
      const [path, mean] = curve.group.querySelectorAll('.line, .band, .mean');
      const [step, height] = nearest(pointsOf(path), pointed);
      let line = (names.length > 1 ? names[curve.run] + ': ' : '') + curve.words + ' ' +
        valueWords(this.value(curve, height));
      if (!curve.isLevel) line += ' at step ' + step.toLocaleString('en');
      if (mean) line += ', mean ' + valueWords(this.value(curve, nearest(pointsOf(mean), pointed)[1]));
      return line;
    });
    tip.textContent = lines.join('\n');
    tip.hidden = false;
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 4)) + 'px';
    tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 4)) + 'px';
    this.cursor.setAttribute('x1', x);
    this.cursor.setAttribute('x2', x);
    this.cursor.style.visibility = 'visible';
  }
}
const charts = [...document.querySelectorAll('.chart svg')].map(svg => new Chart(svg));

function show(box) {
  const run = box.dataset.run;
  if (box.checked) hidden.delete(run); else hidden.add(run);
  for (const part of document.querySelectorAll('.r' + run)) part.style.display = box.checked ? '' : 'none';
  for (const chart of charts) chart.rescale();
}
for (const box of document.querySelectorAll('input[data-run]')) {
  box.addEventListener('change', () => show(box));
  if (!box.checked) show(box);  // As a browser remembers it.
}
)js";

}  // namespace llmc
