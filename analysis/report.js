"use strict";

const OPTIONS = {
  actions: false, // their links lead out of the page
  renderer: "svg", // prints sharp, and takes its colours from the page
  ast: true, // expressions are interpreted, so that the page can forbid eval
  defaultStyle: false,
  tooltip: { disableDefaultStyle: true },
};

for (const place of document.querySelectorAll(".chart")) {
  const spec = JSON.parse(place.closest("figure").querySelector("script").textContent);
  vegaEmbed(place, spec, OPTIONS).catch((error) => {
    place.textContent = `This chart cannot be drawn: ${error.message}`;
  });
}

const table = document.querySelector("#cases table");
const body = table.tBodies[0];
const headers = [...table.tHead.rows[0].cells];
const filters = [...document.querySelectorAll("#cases [data-filter]")];
const status = document.querySelector("#cases output");
const shown = () => [...body.rows].filter((row) => !row.hidden);

function compare(one, other) {
  return one.localeCompare(other, "en", { numeric: true });
}

function sortBy(header) {
  const column = headers.indexOf(header);
  const direction = header.ariaSort === "ascending" ? -1 : 1;
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...body.rows].sort((one, other) => {
    const [left, right] = [value(one), value(other)];
    if (left === "" || right === "") return (left === "") - (right === ""); // what is missing stays last
    return direction * (header.classList.contains("figure") ? left - right : compare(left, right));
  });
  for (const one of headers) one.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  body.append(...rows);
}

function filter() {
  const words = filters[0].value.toLowerCase().split(/\s+/);
  const wanted = filters.slice(1).map((choice) => [choice.dataset.filter, choice.value]);
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden =
      !words.every((word) => text.includes(word)) ||
      !wanted.every(([name, value]) => value === "" || row.dataset[name] === value);
  }
  status.textContent = `${shown().length} of ${body.rows.length} cases`;
}

async function copy() {
  const rows = shown();
  const text = [table, ...rows].map((one) => one.dataset.csv).join("\n") + "\n";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // no clipboard here, or not allowed
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (!copied) {
      status.textContent = "The browser does not let this page copy.";
      return;
    }
  }
  status.textContent = `${rows.length} cases copied as CSV`;
}

for (const header of headers) header.querySelector("button").addEventListener("click", () => sortBy(header));
for (const one of filters) one.addEventListener("input", filter);
document.querySelector("#copy").addEventListener("click", copy);
filter();
