for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], tools = table.closest("details").querySelector(".tools");
  const value = (row, n) => row.cells[n].dataset.value ?? row.cells[n].textContent.replaceAll(",", "");
  table.querySelectorAll("thead th").forEach((head, n) => head.addEventListener("click", () => {
    const down = head.dataset.down = head.dataset.down === "1" ? "" : "1";
    const rows = [...body.rows].sort((a, b) => value(a, n).localeCompare(value(b, n), undefined, { numeric: true }));
    if (rows.every(row => !isNaN(value(row, n)))) rows.sort((a, b) => value(a, n) - value(b, n));
    body.append(...(down && n ? rows.reverse() : rows));
  }));
  tools.hidden = false;
  tools.querySelector("input").addEventListener("input", event => {
    const text = event.target.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(text);
  });
}
