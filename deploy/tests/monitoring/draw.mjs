/**
 * Draws a dashboard's panels from what a Prometheus has: their places, queries, units and legends are the dashboard's, the drawing
 * is uPlot's (which Grafana draws with as well) in Chromium. It is no Grafana.
 *
 *     node draw.mjs PROMETHEUS DASHBOARD SECONDS PICTURE
 */

import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { chromium } from 'playwright-core';

const [prometheus, file, seconds, picture] = process.argv.slice(2);
const dashboard = JSON.parse(readFileSync(file, 'utf8'));
const end = Math.floor(Date.now() / 1000);
const start = end - Number(seconds);

const substituted = (expression) =>
  expression
    .replace(/\$(job|instance|tenant)\b/g, '.*')
    .replaceAll('$__rate_interval', '15s')
    .replaceAll('$__range', `${seconds}s`);

async function ask(path, parameters) {
  const answer = await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const { status, data, error } = await answer.json();
  if (status !== 'success') throw new Error(`${parameters.query}: ${error}`);
  return data.result;
}

const called = (legend, labels) => legend.replace(/\{\{(\w+)\}\}/g, (_, name) => labels[name] ?? '');

async function asked(panel) {
  const results = [];
  for (const target of panel.targets) {
    const query = substituted(target.expr);
    if (target.instant) {
      results.push({ target, series: await ask('query', { query, time: end }) });
    } else {
      results.push({ target, series: await ask('query_range', { query, start, end, step: 1 }) });
    }
  }
  return results;
}

/** Columns as the panel's `organize` renames them. */
function rows(panel, results) {
  const renamed = panel.transformations.find((t) => t.id === 'organize').options.renameByName;
  const joined = new Map();
  for (const { target, series } of results) {
    for (const { metric, value } of series) {
      const { __name__, ...labels } = metric;
      const key = JSON.stringify(labels);
      const row = joined.get(key) ?? { ...labels };
      row[renamed[`Value #${target.refId}`] ?? renamed.Value] = Number(value[1]);
      joined.set(key, row);
    }
  }
  return [...joined.values()];
}

const panels = [];
for (const panel of dashboard.panels) {
  const { title, type, gridPos } = panel;
  if (type === 'row') {
    panels.push({ title, type, gridPos });
    continue;
  }
  const results = await asked(panel);
  const { unit, custom, mappings, min } = panel.fieldConfig.defaults;
  const drawn = { title, type, gridPos, unit, min, stacked: custom?.stacking?.mode === 'normal' };
  if (type === 'table') {
    drawn.rows = rows(panel, results);
  } else {
    const times = Array.from({ length: end - start + 1 }, (_, index) => start + index);
    drawn.times = times;
    drawn.series = results.flatMap(({ target, series }) =>
      series.map(({ metric, values }) => {
        const at = new Map(values.map(([time, value]) => [time, Number(value)]));
        return { name: called(target.legendFormat, metric), values: times.map((time) => (Number.isFinite(at.get(time)) ? at.get(time) : null)) };
      }),
    );
    drawn.mapped = mappings?.[0]?.options;
  }
  panels.push(drawn);
}

const require = createRequire(import.meta.url);
const uplot = join(dirname(require.resolve('uplot')), '..', 'dist');
const executablePath = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => path && existsSync(path));
if (!executablePath) throw new Error('no Chromium here: sh .ci/deps test, or CHROMIUM=/path');
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--no-proxy-server'] });
try {
  const page = await browser.newPage({ viewport: { width: 1240, height: 800 } });
  page.on('pageerror', (error) => {
    throw error;
  });
  await page.setContent(`<!doctype html><style>${readFileSync(join(uplot, 'uPlot.min.css'), 'utf8')}
    body { margin: 0; padding: 8px; width: 1224px; background: #f4f5f5; font: 11px sans-serif; color: #24292e }
    main { display: grid; grid-template-columns: repeat(24, 1fr); grid-auto-rows: 15px; gap: 5px }
    section { background: #fff; border: 1px solid #dcdee0; border-radius: 2px; padding: 3px 6px; overflow: hidden }
    .row { background: none; border: 0; font-weight: bold; padding: 0 }
    h2 { font-size: 11px; margin: 0 0 2px } b { display: block; font-size: 24px; font-weight: 500; text-align: center; margin-top: 4px }
    .legend { white-space: nowrap } .legend i { display: inline-block; width: 9px; height: 3px; margin: 0 3px 3px 7px }
    table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: 2px 8px 2px 0; border-bottom: 1px solid #eee }
    </style><h1 style="font-size: 15px; margin: 0 0 6px">${dashboard.title}</h1><main></main>`);
  await page.addScriptTag({ path: join(uplot, 'uPlot.iife.min.js') });
  await page.evaluate((all) => {
    const COLOURS = ['#56a64b', '#1f78c1', '#e0b400', '#e02f44', '#8f3bb8', '#fa6400', '#0aa5a5', '#705da0', '#b7791f', '#3f6833', '#c15c17', '#890f02'];
    const whole = (value) => value.toLocaleString('en-GB', { maximumSignificantDigits: 3 });
    const shown = (value, unit) => {
      if (value === null || value === undefined) return '';
      if (unit === 'percentunit') return `${whole(value * 100)} %`;
      if (unit === 's') {
        if (value === 0 || value >= 1) return `${whole(value)} s`;
        return value >= 1e-3 ? `${whole(value * 1e3)} ms` : `${whole(value * 1e6)} µs`;
      }
      if (unit === 'reqps') return `${whole(value)} req/s`;
      if (unit === 'cps') return `${whole(value)} c/s`;
      return whole(value);
    };
    const day = (column, value) => {
      if (value === undefined) return '';
      if (column === 'tokens') return whole(Math.round(value));
      const days = (value - Date.now()) / 86400e3;
      return days < 0 ? `${Math.round(-days * 86400)} seconds ago` : days > 365 ? `in ${Math.round(days / 365.25)} years` : `in ${Math.round(days)} days`;
    };
    const main = document.querySelector('main');
    for (const panel of all) {
      const box = document.createElement('section');
      const { x, y, w, h } = panel.gridPos;
      box.style.gridArea = `${y + 1} / ${x + 1} / span ${h} / span ${w}`;
      main.append(box);
      if (panel.type === 'row') {
        box.className = 'row';
        box.textContent = panel.title;
        continue;
      }
      const title = document.createElement('h2');
      title.textContent = panel.title;
      box.append(title);
      if (panel.type === 'stat') {
        const value = panel.series[0]?.values.findLast((v) => v !== null) ?? null;
        const text = document.createElement('b');
        text.textContent = panel.mapped?.[String(value)]?.text ?? shown(value, panel.unit);
        box.append(text);
        continue;
      }
      if (panel.type === 'table') {
        const columns = [...new Set(panel.rows.flatMap((row) => Object.keys(row)))];
        const table = document.createElement('table');
        table.insertRow().append(...columns.map((column) => Object.assign(document.createElement('th'), { textContent: column })));
        for (const row of panel.rows) {
          const line = table.insertRow();
          for (const column of columns) line.insertCell().textContent = typeof row[column] === 'number' || row[column] === undefined ? day(column, row[column]) : row[column];
        }
        box.append(table);
        continue;
      }
      // Stacked: each line is drawn on those before it, the highest first so that the lower ones are painted over it.
      const names = panel.series.filter((series) => series.values.some((value) => value));
      const kept = names.length > 0 ? names : panel.series;
      const sums = panel.times.map(() => 0);
      const values = kept.map(({ values }) => (panel.stacked ? values.map((value, index) => (sums[index] += value ?? 0)) : values));
      const lines = kept.map(({ name }, index) => ({ label: name, stroke: COLOURS[index % 12], width: 1, points: { show: false }, fill: panel.stacked ? `${COLOURS[index % 12]}` : undefined }));
      if (panel.stacked) {
        lines.reverse();
        values.reverse();
      }
      const plot = document.createElement('div');
      box.append(plot);
      const axis = { font: '10px sans-serif', grid: { stroke: '#eceeef', width: 1 }, ticks: { show: false } };
      new uPlot(
        {
          width: box.clientWidth - 12,
          height: box.clientHeight - 36,
          legend: { show: false },
          cursor: { show: false },
          scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.1 : 1] } },
          axes: [
            { ...axis, size: 18, space: 70, values: (_, ticks) => ticks.map((tick) => new Date(tick * 1000).toISOString().slice(11, 16 + 3)) },
            { ...axis, size: 58, space: 24, values: (_, ticks) => ticks.map((tick) => shown(tick, panel.unit)) },
          ],
          series: [{}, ...lines],
        },
        [panel.times, ...values],
        plot,
      );
      const legend = document.createElement('div');
      legend.className = 'legend';
      for (const [index, { name }] of kept.entries()) {
        const mark = document.createElement('i');
        mark.style.background = COLOURS[index % 12];
        legend.append(mark, name);
      }
      box.append(legend);
    }
  }, panels);
  await (await page.$('body')).screenshot({ path: picture });
} finally {
  await browser.close();
}
