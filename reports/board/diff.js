"use strict";
// Shows two cells beside each other. The address holds which, so that a link
// shows the same again.
const { metrics, cells } = JSON.parse(document.getElementById("cells").textContent);
const byId = new Map(cells.map((c) => [c.id, c]));
const picks = ["a", "b"].map((id) => document.getElementById(id));
for (const pick of picks) {
  for (const c of cells) {
    const o = document.createElement("option");
    o.value = c.id;
    o.textContent = c.label;
    pick.append(o);
  }
  pick.addEventListener("change", () => {
    location.hash = "a=" + picks[0].value + "&b=" + picks[1].value;
  });
}

function number(m) {
  if (m[0] === null) return "–";
  const text = (v) => (v === null ? "–" : Number(v).toPrecision(4));
  return text(m[0]) + " [" + text(m[1]) + ", " + text(m[2]) + "] n " + m[3];
}

function line(name, a, b, ratio) {
  const tr = document.createElement("tr");
  const th = document.createElement("th");
  th.scope = "row";
  th.textContent = name;
  tr.append(th);
  for (const v of [a, b, ratio]) {
    const td = document.createElement("td");
    td.textContent = v;
    tr.append(td);
  }
  return tr;
}

function show() {
  const want = new URLSearchParams(location.hash.slice(1));
  ["a", "b"].forEach((k, i) => {
    if (byId.has(want.get(k))) picks[i].value = want.get(k);
  });
  const [a, b] = picks.map((p) => byId.get(p.value));
  const out = document.getElementById("out");
  out.replaceChildren();
  if (!a || !b) return;
  const same = a.contract === b.contract;
  document.getElementById("verdict").textContent = a.id === b.id ? "This is one cell." : same
    ? "Same contract: the ratios mean something."
    : "Different contracts: what was asked differs, so there is no ratio.";
  for (const [key, name] of [["entry", "entry"], ["placement", "placement"], ["model", "model"], ["place", "system or site"], ["mode", "mode"], ["tier", "trust"], ["contract", "contract"], ["plan", "plan"], ["commit", "commit"], ["command", "command"]]) {
    out.append(line(name, a[key], b[key], a[key] === b[key] ? "same" : "differs"));
  }
  metrics.forEach(([name, unit], i) => {
    const [x, y] = [a.metrics[i], b.metrics[i]];
    if (x[0] === null && y[0] === null) return;
    const apart = x[1] !== null && y[1] !== null && x[2] !== null && y[2] !== null && (x[1] > y[2] || y[1] > x[2]);
    const ratio = same && x[0] !== null && y[0] !== null && x[0] !== 0 ? (y[0] / x[0]).toPrecision(4) + (apart ? "" : " (intervals overlap)") : "–";
    out.append(line(name + ", " + unit, number(x), number(y), ratio));
  });
}
addEventListener("hashchange", show);
show();
