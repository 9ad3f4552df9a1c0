// A run's timeline from its history: pure, events in, rows out. Times are unix milliseconds.

const BEGINS = { activity_scheduled: "activity", timer_started: "timer", signal_awaited: "signal", child_started: "child" };
const ENDS = /_(completed|failed|cancelled|fired)$/;
const CLOSES = new Set(["completed", "failed", "cancelled", "terminated", "continued"]);

/**
 * One row a step, in the order that the code asked for them:
 * {id, kind, name, begin, end (null: not over), parts: [{begin, end, state, attempt}]}
 * where a part is an attempt (done, failed, open), the pause before the next one, or a wait.
 */
export function timeline(events) {
  const rows = new Map();
  const early = new Map(); // signals that came before somebody waited, by name
  for (const event of events) {
    const { kind, body } = event;
    const at = Date.parse(event.at);
    if (kind in BEGINS) rows.set(body.id, begun(BEGINS[kind], body, at, early));
    else if (kind === "attempt_failed" && rows.has(body.id)) failed(rows.get(body.id), body, at);
    else if (kind === "signal_received") received(rows, early, body.name, at);
    else if (ENDS.test(kind) && rows.has(body.id)) ended(rows.get(body.id), kind, at);
    else if (CLOSES.has(kind)) for (const row of rows.values()) if (row.end === null) ended(row, "cancelled", at);
  }
  return [...rows.values()];
}

/** [first, last] moment that the picture shows; `now` ends what is not over. */
export function span(events, now) {
  if (!events.length) return [now, now];
  const last = events.at(-1);
  return [Date.parse(events[0].at), CLOSES.has(last.kind) ? Date.parse(last.at) : now];
}

function begun(kind, body, at, early) {
  const waits = kind !== "activity" && kind !== "child";
  const row = { id: body.id, kind, name: body.name ?? "sleep", begin: at, end: null, parts: [] };
  row.parts.push({ begin: at, end: null, state: waits ? "wait" : "open", attempt: 1 });
  if (kind === "signal" && early.get(row.name) > 0) {
    early.set(row.name, early.get(row.name) - 1);
    ended(row, "signal_received", at);
  }
  return row;
}

function failed(row, body, at) {
  const part = row.parts.at(-1);
  part.end = at;
  part.state = "failed";
  const due = Math.max(at, body.due ?? at);
  row.parts.push({ begin: at, end: due, state: "pause", attempt: body.attempt });
  row.parts.push({ begin: due, end: null, state: "open", attempt: body.attempt + 1 });
}

function received(rows, early, name, at) {
  const waiting = [...rows.values()].find((row) => row.kind === "signal" && row.name === name && row.end === null);
  if (waiting) ended(waiting, "signal_received", at);
  else early.set(name, (early.get(name) ?? 0) + 1);
}

function ended(row, kind, at) {
  const part = row.parts.at(-1);
  row.end = at;
  part.begin = Math.min(part.begin, at);
  part.end = at;
  if (part.state === "open") part.state = /failed|cancelled/.test(kind) ? "failed" : "done";
}
