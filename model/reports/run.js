"use strict";
// The table of videos. All rows are in the page as JSON; only one page of the matching ones is in
// the document, so that ten thousand rows stay fast.
const PAGE_SIZE = 100; // rows
const { columns, rows, cases } = JSON.parse(document.getElementById("videos-data").textContent);
const columnIndex = Object.fromEntries(columns.map((column, n) => [column.key, n]));
const texts = rows.map((row) =>
  row.filter((value, n) => columns[n].find).join(" ").toLowerCase()
);
const withCase = new Set(cases);
const form = document.getElementById("videos-filter");
const status = document.getElementById("videos-status");
const body = document.querySelector("#videos-table tbody");
const headers = [...document.querySelectorAll("#videos-table thead th")];
const turn = document.getElementById("videos-turn");
const [before, after] = turn.querySelectorAll("button");
const first = headers.find((header) => header.ariaSort === "descending");
let sorted = { key: first.dataset.key, up: false };
let matches = [];
let start = 0;

function isMissing(value) {
  return value === null || value === "";
}

// Missing values come last in both directions.
function compare(a, b) {
  const n = columnIndex[sorted.key];
  const [x, y] = [rows[a][n], rows[b][n]];
  if (isMissing(x) || isMissing(y)) return isMissing(x) - isMissing(y) || a - b;
  if (x === y) return a - b;
  return x < y === sorted.up ? -1 : 1;
}

function isMatch(row, n, chosen, words) {
  return (
    chosen.every(({ name, value }) =>
      name === "split" && value === "unseen"
        ? row[columnIndex.unseen]
        : row[columnIndex[name]] === value
    ) && words.every((word) => texts[n].includes(word))
  );
}

function update() {
  const selects = [...form.querySelectorAll("select")];
  const chosen = selects.filter((select) => select.value !== "all");
  const words = form.elements.text.value.toLowerCase().split(/\s+/);
  matches = rows.flatMap((row, n) => (isMatch(row, n, chosen, words) ? [n] : []));
  matches.sort(compare);
  start = 0;
  show();
}

function show() {
  const shown = matches.slice(start, start + PAGE_SIZE);
  body.replaceChildren(...shown.map(makeRow));
  before.disabled = start === 0;
  after.disabled = start + PAGE_SIZE >= matches.length;
  turn.hidden = matches.length <= PAGE_SIZE;
  const selects = [...form.querySelectorAll("select")].filter((select) => select.value !== "all");
  const filters = selects.map((select) => `${select.name}: ${select.value || "none"}`);
  const text = form.elements.text.value.trim();
  if (text) filters.push(`text: ${text}`);
  const conditions = filters.length ? ` (${filters.join("; ")})` : "";
  const part = shown.length < matches.length ? `, ${start + 1} to ${start + shown.length} shown` : "";
  const order = `by ${columns[columnIndex[sorted.key]].title}, ${sorted.up ? "ascending" : "descending"}`;
  status.textContent = `${matches.length} of ${rows.length} videos fit${conditions}${part}, ${order}`;
}

function makeRow(n) {
  const row = document.createElement("tr");
  columns.forEach((column, m) => {
    if (!column.title) return;
    const cell = document.createElement(column.key === "id" ? "th" : "td");
    const value = rows[n][m];
    if (column.key === "id") cell.scope = "row";
    if (column.number) cell.className = "number";
    if (column.key === "file") cell.className = "file";
    if (column.key === "outcome") cell.className = value.replace(" ", "-");
    cell.append(content(column, value));
    row.append(cell);
  });
  return row;
}

function content(column, value) {
  if (isMissing(value)) return "-";
  if (column.number) return value.toFixed(3);
  const name = document.createElement(column.key === "id" ? "code" : "bdi");
  name.textContent = value;
  if (column.key !== "id" || !withCase.has(value)) return name;
  const link = document.createElement("a");
  link.href = `cases/${encodeURIComponent(value)}.html`;
  link.append(name);
  return link;
}

for (const header of headers) {
  header.querySelector("button").addEventListener("click", () => {
    const key = header.dataset.key;
    sorted = { key, up: sorted.key === key ? !sorted.up : !columns[columnIndex[key]].number };
    for (const other of headers) other.ariaSort = "none";
    header.ariaSort = sorted.up ? "ascending" : "descending";
    update();
  });
}

function turnPage(by) {
  start += by;
  show();
  const [wanted, other] = by < 0 ? [before, after] : [after, before];
  (wanted.disabled ? other : wanted).focus();
}

before.addEventListener("click", () => turnPage(-PAGE_SIZE));
after.addEventListener("click", () => turnPage(PAGE_SIZE));
form.addEventListener("input", update);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(update)); // after the controls are reset
addEventListener("pageshow", update); // browsers restore earlier input
form.hidden = false;
update();
