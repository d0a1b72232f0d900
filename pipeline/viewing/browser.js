"use strict";
// Each form hides those children of a list that do not fit its choices, and says how many do.
for (const form of document.querySelectorAll("form[data-list]")) {
  const items = [...document.getElementById(form.dataset.list).children];
  const texts = items.map((item) =>
    [...item.querySelectorAll("[data-find]")].map((part) => part.textContent).join(" ").toLowerCase()
  );
  const selects = [...form.querySelectorAll("select")];
  const search = form.querySelector("input");
  const status = document.getElementById(form.dataset.list + "-status");

  function update() {
    const chosen = selects.filter((select) => select.selectedIndex > 0);
    const words = search.value.toLowerCase().split(/\s+/);
    let shown = 0;
    items.forEach((item, n) => {
      const fits =
        chosen.every((select) => item.dataset[select.name] === select.value) &&
        words.every((word) => texts[n].includes(word));
      item.hidden = !fits;
      shown += fits;
    });
    const filters = chosen.map((select) => `${select.name}: ${select.value || "none"}`);
    if (search.value.trim()) filters.push(`text: ${search.value.trim()}`);
    const because = filters.length ? ` (${filters.join("; ")})` : "";
    status.textContent = `${shown} of ${items.length} ${form.dataset.unit} shown${because}`;
  }

  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update)); // then the controls are empty
  addEventListener("pageshow", update); // browsers fill in what was there before
  form.hidden = false;
  update();
}
