"use strict";
// The table of videos. Its rows lie in the page as JSON; those that fit are shown in order, some at
// a time, so that ten thousand of them are no burden.
const MOST = 100; // rows at a time
const { columns, rows, cases } = JSON.parse(document.getElementById("videos-data").textContent);
const place = Object.fromEntries(columns.map((column, n) => [column.key, n]));
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
let fitting = [];
let start = 0;

function missing(value) {
  return value === null || value === "";
}

// What is missing comes last, whichever way the rest goes.
function compare(a, b) {
  const n = place[sorted.key];
  const [x, y] = [rows[a][n], rows[b][n]];
  if (missing(x) || missing(y)) return missing(x) - missing(y) || a - b;
  if (x === y) return a - b;
  return x < y === sorted.up ? -1 : 1;
}

function fits(row, n, chosen, words) {
  return (
    chosen.every(({ name, value }) =>
      name === "split" && value === "unseen" ? row[place.unseen] : row[place[name]] === value
    ) && words.every((word) => texts[n].includes(word))
  );
}

function update() {
  const selects = [...form.querySelectorAll("select")];
  const chosen = selects.filter((select) => select.value !== "all");
  const words = form.elements.text.value.toLowerCase().split(/\s+/);
  fitting = rows.flatMap((row, n) => (fits(row, n, chosen, words) ? [n] : []));
  fitting.sort(compare);
  start = 0;
  show();
}

function show() {
  const shown = fitting.slice(start, start + MOST);
  body.replaceChildren(...shown.map(line));
  before.disabled = start === 0;
  after.disabled = start + MOST >= fitting.length;
  turn.hidden = fitting.length <= MOST;
  const selects = [...form.querySelectorAll("select")].filter((select) => select.value !== "all");
  const filters = selects.map((select) => `${select.name}: ${select.value || "none"}`);
  const text = form.elements.text.value.trim();
  if (text) filters.push(`text: ${text}`);
  const because = filters.length ? ` (${filters.join("; ")})` : "";
  const part = shown.length < fitting.length ? `, ${start + 1} to ${start + shown.length} shown` : "";
  const order = `by ${columns[place[sorted.key]].title}, ${sorted.up ? "ascending" : "descending"}`;
  status.textContent = `${fitting.length} of ${rows.length} videos fit${because}${part}, ${order}`;
}

function line(n) {
  const row = document.createElement("tr");
  columns.forEach((column, m) => {
    if (!column.title) return;
    const cell = document.createElement(column.key === "id" ? "th" : "td");
    const value = rows[n][m];
    if (column.key === "id") cell.scope = "row";
    if (column.number) cell.className = "number";
    if (column.key === "file") cell.className = "file";
    if (column.key === "outcome") cell.className = value.replace(" ", "-");
    cell.append(written(column, value));
    row.append(cell);
  });
  return row;
}

function written(column, value) {
  if (missing(value)) return "-";
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
    sorted = { key, up: sorted.key === key ? !sorted.up : !columns[place[key]].number };
    for (const other of headers) other.ariaSort = "none";
    header.ariaSort = sorted.up ? "ascending" : "descending";
    update();
  });
}

function leaf(by) {
  start += by;
  show();
  const [wanted, other] = by < 0 ? [before, after] : [after, before];
  (wanted.disabled ? other : wanted).focus();
}

before.addEventListener("click", () => leaf(-MOST));
after.addEventListener("click", () => leaf(MOST));
form.addEventListener("input", update);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(update)); // then the controls are as at first
addEventListener("pageshow", update); // browsers fill in what was there before
form.hidden = false;
update();
