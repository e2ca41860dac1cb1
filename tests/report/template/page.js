"use strict";
// Without this script the page is whole; with it, rows can be found by words and by verdict.
(() => {
  const form = document.getElementById("filter");
  const words = document.getElementById("words");
  const found = document.getElementById("found");
  const every = found.textContent;
  const sections = [...document.querySelectorAll("#tables section, #tables table, #tables figure, .contents [data-for]")];
  const rows = [...document.querySelectorAll("#tables tbody tr")].map((row) => {
    const table = row.closest("table");
    const of = table.closest("[data-table]").dataset.table;
    return {
      row,
      text: `${of} ${table.caption.textContent} ${row.textContent}`.toLowerCase(),
      verdict: row.dataset.verdict || "",
    };
  });

  function holdsARow(section) {
    const place = section.dataset.for ? document.getElementById(section.dataset.for) : section;
    return place.querySelector("tbody tr:not([hidden])") !== null;
  }

  function show() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = form.elements.verdict.value;
    const filters = wanted.length > 0 || verdict !== "";
    let count = 0;
    for (const { row, text, verdict: its } of rows) {
      row.hidden = !(wanted.every((word) => text.includes(word)) && (!verdict || its === verdict));
      count += row.hidden ? 0 : 1;
    }
    document.body.classList.toggle("filtered", filters);
    for (const section of sections) section.hidden = filters && !holdsARow(section);
    if (!filters) found.textContent = every;
    else if (count) found.textContent = `${count.toLocaleString("en")} of ${every}`;
    else found.textContent = "no row has all of that";
  }

  function clear() {
    form.reset();
    show();
  }

  form.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") clear();
  });
  // A way within the page leads to what the filter may hide.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    const place = link && document.getElementById(link.hash.slice(1));
    if (place && place.closest(".head") && document.body.classList.contains("filtered")) clear();
  });
  show(); // a browser may bring back what was typed before
})();
