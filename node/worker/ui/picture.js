// The timeline as an SVG picture.

const WIDTH = 1100, NAMES = 230, ROW = 22, TOP = 24;
const NS = "http://www.w3.org/2000/svg";

/** rows and [begin, end] from timeline.js; `end` stands for "now" where a part is not over. */
export function picture(rows, [begin, end]) {
  const width = WIDTH - NAMES;
  const x = (at) => NAMES + (end > begin ? ((at - begin) / (end - begin)) * width : 0);
  const height = TOP + rows.length * ROW + 4;
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img" });
  root.append(svg("title", {}, `${rows.length} steps in ${duration(end - begin)}`));
  for (let i = 0; i <= 4; i++) {
    const at = begin + ((end - begin) * i) / 4;
    root.append(svg("line", { class: "tick", x1: x(at), x2: x(at), y1: TOP - 6, y2: height }));
    root.append(svg("text", { class: "time", x: x(at), y: 12, "text-anchor": i === 4 ? "end" : i ? "middle" : "start" }, "+" + duration(at - begin)));
  }
  rows.forEach((row, i) => {
    const y = TOP + i * ROW;
    root.append(svg("text", { x: 0, y: y + 14 }, short(`${row.kind === "activity" ? "" : row.kind + " "}${row.name}`)));
    for (const part of row.parts) {
      const to = Math.max(part.end ?? end, part.begin);
      const style = { done: "attempt-done", failed: "attempt-failed", open: "attempt-open" }[part.state] ?? part.state;
      if (part.begin > end) continue; // the next attempt is still to come
      const bar = svg("rect", { class: style, x: x(part.begin), y: y + 4, width: Math.max(2, x(Math.min(to, end)) - x(part.begin)), height: ROW - 9 });
      bar.append(svg("title", {}, told(row, part, to)));
      root.append(bar);
    }
  });
  return root;
}

/** Milliseconds as people say them. */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${(ms / 60_000).toFixed(1)} min`;
  if (ms < 172_800_000) return `${(ms / 3_600_000).toFixed(1)} h`;
  return `${(ms / 86_400_000).toFixed(1)} d`;
}

function told(row, part, to) {
  const took = duration(to - part.begin) + (part.end === null ? " so far" : "");
  if (part.state === "wait") return `${row.kind} ${row.name}: waited ${took}`;
  if (part.state === "pause") return `${row.name}: ${took} until attempt ${part.attempt + 1}`;
  return `${row.name}, attempt ${part.attempt}: ${part.state}, ${took}`;
}

const short = (text) => (text.length > 34 ? text.slice(0, 33) + "…" : text);

function svg(name, attributes, text) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
