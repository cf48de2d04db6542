"use strict";
// Draws each figure into its element, and again at the width of the paper before it is printed.
const PAPER_WIDTH = 680; // px of A4 and of Letter between margins
const figures = JSON.parse(document.getElementById("figures").textContent);
const touched = matchMedia("(pointer: coarse)").matches;
const plots = [];
for (const [name, figure] of Object.entries(figures)) {
  const element = document.getElementById(name);
  // A finger scrolls the page; it would zoom a figure else.
  if (touched) figure.layout.dragmode = false;
  Plotly.newPlot(element, figure.data, figure.layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: touched ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  });
  plots.push(element);
}
addEventListener("beforeprint", () => {
  for (const element of plots) {
    const narrow = element.closest(".row").classList.contains("narrow");
    Plotly.relayout(element, { width: narrow ? Math.floor(PAPER_WIDTH / 3) - 12 : PAPER_WIDTH });
  }
});
addEventListener("afterprint", () => {
  for (const element of plots) Plotly.relayout(element, { width: null, autosize: true });
});
