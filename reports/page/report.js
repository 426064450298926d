"use strict";
// Sorts each application's rows by a column. Without this script the tables are
// in the order of the suite.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const original = [...table.tBodies].map((body) => [...body.rows]);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
      heads.forEach((h) => h.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", next);
      [...table.tBodies].forEach((body, i) => body.append(...order(original[i], column, next)));
    });
  });
}

// order keeps the first row, the application's heading, where it is; empty
// cells come last either way.
function order([heading, ...rows], column, direction) {
  if (direction === "none") return [heading, ...rows];
  const sign = direction === "ascending" ? 1 : -1;
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
  return [heading, ...[...rows].sort(compare)];
}
