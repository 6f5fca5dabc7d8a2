"use strict";

// A click on a header of the table of all cases sorts by its column, another one the other way round; what is missing stays last.
const table = document.querySelector("#cases table");
const headers = table ? [...table.tHead.rows[0].cells] : [];

function sortBy(column) {
  const ascending = headers[column].ariaSort !== "ascending";
  const value = (row) => row.cells[column].dataset.value;
  const order = (one, other) => {
    if (one === "" || other === "") return (one === "") - (other === "");
    return (ascending ? 1 : -1) * (one - other || one.localeCompare(other, "en", { numeric: true }));
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort((one, other) => order(value(one), value(other))));
  for (const header of headers) header.removeAttribute("aria-sort");
  headers[column].setAttribute("aria-sort", ascending ? "ascending" : "descending");
}

headers.forEach((header, column) => {
  const button = document.createElement("button");
  button.append(...header.childNodes);
  button.addEventListener("click", () => sortBy(column));
  header.append(button);
});
