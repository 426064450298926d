"use strict";
// Sorts and filters every table of class sortable. Rows of class group head the
// rows of their tbody; a table without them is one list. What is shown is kept in
// the address, as #?TABLE.FIELD=VALUE&..., so that a link shows the same view.
// Without this script the tables are whole, in the order of the suite.
const least = 8; // rows that are worth a filter
const most = 12; // values that are worth a choice
const views = [...document.querySelectorAll("table.sortable")].map((table, i) => view(table, table.id || "t" + i));

// view is a table with its controls.
function view(table, id) {
  const heads = [...table.tHead.rows[0].cells];
  const bodies = [...table.tBodies].map((body) => {
    const rows = [...body.rows];
    return { body, heads: rows.filter((r) => r.className === "group"), rows: rows.filter((r) => r.className !== "group") };
  });
  const total = bodies.reduce((n, b) => n + b.rows.length, 0);
  const v = { id, table, heads, bodies, total, sorted: "", fields: {}, status: null };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const next = { none: "a", ascending: "d", descending: "" }[head.getAttribute("aria-sort")];
      sort(v, next && column + next);
      keep();
    });
  });
  if (total >= least) controls(v);
  return v;
}

function make(name, properties, ...children) {
  const e = Object.assign(document.createElement(name), properties);
  e.append(...children);
  return e;
}

// controls puts the filters of a table above it.
function controls(v) {
  const bar = make("div", { className: "filter" });
  bar.setAttribute("role", "search");
  const field = (name, label, e) => {
    v.fields[name] = e;
    e.addEventListener("input", () => { filter(v); keep(); });
    bar.append(make("label", {}, label + " ", e));
  };
  field("q", "Filter", make("input", { type: "search", autocomplete: "off" }));
  const groups = v.bodies.map((b) => b.heads.map((h) => h.textContent).join(" "));
  if (groups.length > 1) field("group", "Group", choice(groups.map((g, i) => [String(i), g.length > 48 ? g.slice(0, 47) + "…" : g])));
  v.heads.forEach((head, column) => {
    if (!head.classList.contains("word")) return;
    const values = [...new Set(v.bodies.flatMap((b) => b.rows.map((r) => text(r, column))))];
    if (values.length > 1 && values.length <= most && (values.length < v.total || column > 0)) {
      field(String(column), head.textContent.trim(), choice(values.map((x) => [x, x || "(none)"])));
    }
  });
  v.status = make("p", { className: "shown" });
  v.status.setAttribute("role", "status");
  v.status.setAttribute("aria-live", "polite");
  bar.append(v.status);
  const place = v.table.parentElement.classList.contains("scroll") ? v.table.parentElement : v.table;
  place.before(bar);
  filter(v);
}

function choice(values) {
  return make("select", {}, make("option", { value: "*", textContent: "all" }), ...values.map(([value, textContent]) => make("option", { value: "=" + value, textContent })));
}

function text(row, column) {
  return column < row.cells.length ? row.cells[column].textContent.trim() : "";
}

// filter shows the rows that have all words and all chosen values.
function filter(v) {
  const words = v.fields.q.value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = Object.entries(v.fields).filter(([name, e]) => name !== "q" && e.value !== "*");
  let shown = 0;
  v.bodies.forEach((b, i) => {
    const title = b.heads.map((h) => h.textContent).join(" ").toLowerCase();
    let here = 0;
    for (const row of b.rows) {
      const all = title + " " + row.textContent.toLowerCase();
      const fits = words.every((w) => all.includes(w)) && chosen.every(([name, e]) => e.value === "=" + (name === "group" ? i : text(row, Number(name))));
      row.hidden = !fits;
      here += fits;
    }
    b.heads.forEach((h) => { h.hidden = here === 0; });
    shown += here;
  });
  v.status.textContent = shown + " of " + v.total + " rows shown";
}

// sort orders rows by "COLUMNa" or "COLUMNd"; "" is the order of the suite.
function sort(v, by) {
  const column = parseInt(by, 10);
  v.sorted = column < v.heads.length ? by : "";
  v.heads.forEach((h, i) => h.setAttribute("aria-sort", i !== column || !v.sorted ? "none" : by.endsWith("d") ? "descending" : "ascending"));
  for (const b of v.bodies) b.body.append(...b.heads, ...(v.sorted ? order(b.rows, column, by.endsWith("d") ? -1 : 1) : b.rows));
}

// order puts empty cells last either way.
function order(rows, column, sign) {
  const words = rows.every((row) => row.cells[column].dataset.sort === undefined);
  const key = (row) => {
    const cell = row.cells[column];
    if (words) return cell.textContent;
    return cell.dataset.sort === undefined ? null : Number(cell.dataset.sort);
  };
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (words ? x.localeCompare(y) : x - y);
  };
  return [...rows].sort(compare);
}

// keep writes what is shown into the address.
function keep() {
  const state = new URLSearchParams();
  for (const v of views) {
    if (v.sorted) state.set(v.id + ".sort", v.sorted);
    for (const [name, e] of Object.entries(v.fields)) {
      if (e.value !== (name === "q" ? "" : "*")) state.set(v.id + "." + name, e.value);
    }
  }
  history.replaceState(null, "", "#" + (state.size ? "?" + state : ""));
}

// restore shows what the address says, and opens the details that it points to.
function restore() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let e = target; e; e = e.parentElement) if (e.localName === "details") e.open = true;
  if (target) target.scrollIntoView();
  if (!location.hash.startsWith("#?")) return;
  const state = new URLSearchParams(location.hash.slice(2));
  let first = null;
  for (const v of views) {
    for (const [name, e] of Object.entries(v.fields)) {
      const value = state.get(v.id + "." + name) ?? (name === "q" ? "" : "*");
      e.value = value;
      if (e.value !== value) e.value = name === "q" ? "" : "*"; // a choice that is not there
    }
    sort(v, state.get(v.id + ".sort") ?? "");
    if (v.status) filter(v);
    if (!first && [...state.keys()].some((k) => k.startsWith(v.id + "."))) first = v.table;
  }
  for (let e = first; e; e = e.parentElement) if (e.localName === "details") e.open = true;
  if (first) first.scrollIntoView({ block: "center" });
}

addEventListener("hashchange", restore);
restore();
addEventListener("beforeprint", () => document.querySelectorAll("#answers details").forEach((d) => { d.open = true; }));
