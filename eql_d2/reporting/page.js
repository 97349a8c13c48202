"use strict";
// A click on a title sorts its table; a second click turns the order round. Empty cells stay last.
function value(row, column) {
  const text = row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const number = Number(text.replace(/,/g, "").replace("−", "-"));
  return text === "" || text === "n/a" ? null : Number.isNaN(number) ? text : number;
}
function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}
for (const table of document.querySelectorAll("table.sortable")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) =>
    title.addEventListener("click", () => {
      const text = title.classList.contains("text"); // names from A on, numbers from the highest
      const down = text ? title.ariaSort === "ascending" : title.ariaSort !== "descending";
      titles.forEach((other) => other.removeAttribute("aria-sort"));
      title.ariaSort = down ? "descending" : "ascending";
      const rows = [...table.tBodies[0].rows].sort((first, second) => {
        const [a, b] = [value(first, column), value(second, column)];
        if (a === null || b === null) return (a === null) - (b === null);
        return down ? compare(b, a) : compare(a, b);
      });
      table.tBodies[0].append(...rows);
    }),
  );
}
for (const box of document.querySelectorAll("input[data-filters]")) {
  const table = document.getElementById(box.dataset.filters).querySelector("table");
  box.addEventListener("input", () => {
    const wanted = box.value.trim().toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
