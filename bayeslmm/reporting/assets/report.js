"use strict";
// Tables sort by a click on a header; cells carry what to sort by in data-value.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  const sortBy = (index) => {
    const header = headers[index];
    const down = header.getAttribute("aria-sort") === "ascending";
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[index].dataset.value ?? row.cells[index].textContent;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what is not known comes last
      const difference = Number(x) - Number(y);
      const order = Number.isNaN(difference) ? x.localeCompare(y, "en", { numeric: true }) : difference;
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  };
  headers.forEach((header, index) => {
    header.tabIndex = 0;
    header.addEventListener("click", () => sortBy(index));
    header.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        sortBy(index);
      }
    });
  });
}
// The methods paragraph goes to the clipboard.
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy).innerText;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(document.getElementById(button.dataset.copy));
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      button.textContent = "Selected: now copy";
    }
  });
}
