// A click on a heading sorts its table by that column: numbers by size, everything else by name; again, the other way.
for (const table of document.querySelectorAll(".scroll table")) {
  for (const [n, heading] of [...table.querySelectorAll("thead th")].entries()) {
    heading.tabIndex = 0;
    heading.setAttribute("role", "button");
    const sort = () => {
      const down = heading.getAttribute("aria-sort") !== "descending";
      for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = row => {
        const text = row.cells[n].textContent.trim();
        const number = parseFloat(text.replace(/,/g, ""));
        return n === 0 ? text : Number.isNaN(number) ? null : number;
      };
      const rows = [...table.tBodies[0].rows].map(row => [value(row), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = n === 0 ? a.localeCompare(b, "en", {numeric: true}) : a - b;
        return (n === 0) === down ? order : -order;
      });
      for (const [, row] of rows) table.tBodies[0].append(row);
      table.classList.add("sorted");
    };
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
  }
}
